"""Options are read from the source of classes, torch's included, without importing them."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from textwrap import dedent
from typing import Any, Literal, Optional

import lightning
import pytest
import torch
import torchmetrics

from src.config import signature

Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Write:
    """Write files of a package of this test's own, a keyword each, and give its name: what was read stays in memory."""
    package = tmp_path / f"made_{abs(hash(request.node.nodeid))}"
    monkeypatch.syspath_prepend(tmp_path)

    def files(**sources: str) -> str:
        for name, source in sources.items():
            file = package / f"{name.replace('__', '/') if name != '__init__' else name}.py"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(dedent(source))
        return package.name

    return files


def defaults(target: str) -> dict[str, Any]:
    return {name: default for name, (_, default) in signature.read(target).parameters.items()}


@pytest.mark.parametrize("name", ["SGD", "AdamW", "Adam", "RMSprop", "Adagrad"])
def test_parameters_of_an_optimizer_are_those_that_python_sees(name: str) -> None:
    expected = list(inspect.signature(getattr(torch.optim, name)).parameters)
    assert list(signature.read(f"torch.optim.{name}").parameters) == expected


@pytest.mark.parametrize(
    "cls", [lightning.pytorch.callbacks.EarlyStopping, torchmetrics.classification.MulticlassStatScores, torch.nn.GELU]
)
def test_parameters_of_a_library_class_are_those_that_python_sees(cls: type) -> None:
    package = cls.__module__.rpartition(".")[0]  # which imports it
    found = signature.read(f"{package}.{cls.__name__}")
    assert list(found.parameters) == [name for name in inspect.signature(cls).parameters if name != "kwargs"]
    assert found.is_class
    assert found.open == ("kwargs" in inspect.signature(cls).parameters)


def test_default_and_annotation_are_read() -> None:
    found = signature.read("src.model.alexnet.AlexNet").parameters
    assert found["in_channels"][1] is ...
    assert found["widths"][1] == [64, 192, 384, 256, 256]
    assert signature.evaluate(found["batch_norm"][0], {"bool": bool}) is bool


@pytest.mark.parametrize(
    "target",
    ["src.nothing.X", "src.model.alexnet.X", "torch.optim.X", "nowhere.X", "torch.optim", "x", "", "a..b"],
)
def test_unknown_target_is_a_lookup_error(target: str) -> None:
    with pytest.raises(LookupError, match="no ") as caught:
        signature.read(target)
    assert not isinstance(caught.value, signature.Unreadable)


@pytest.mark.parametrize("target", ["math.floor", "torch._C.Generator", "torch.tensor", "torch.float32"])
def test_name_that_source_cannot_tell_is_unreadable(target: str) -> None:
    with pytest.raises(signature.Unreadable):
        signature.read(target)


def test_name_that_is_made_when_the_module_runs_is_unreadable(write: Write) -> None:
    package = write(net="Net = make()\n", lazy="def __getattr__(name): ...\n")
    for target in ("net.Net", "lazy.Net"):
        with pytest.raises(signature.Unreadable):
            signature.read(f"{package}.{target}")


def test_default_that_cannot_be_read_is_no_option(write: Write) -> None:
    package = write(net="class Net:\n    def __init__(self, width: int = 4 * 4, depth: int = 2): ...\n")
    assert list(signature.read(f"{package}.net.Net").parameters) == ["depth"]


def test_constructor_is_that_of_a_base_where_the_class_has_none(write: Write) -> None:
    source = """
        import lightning as L
        import torch.optim
        from torch import nn
        from torch.optim import SGD
        class Mine(SGD): pass
        class Far(torch.optim.AdamW): pass
        class Plain: pass
        class Net(nn.Module): pass
        class Watch(L.Callback): pass
        class Lost(no.such.Base): pass
        class Second(Plain, Mine): pass
        class Itself(Itself): pass
    """
    package = write(parts=source)
    sgd = signature.read("torch.optim.SGD").parameters
    assert list(signature.read(f"{package}.parts.Mine").parameters) == list(sgd)
    assert list(signature.read(f"{package}.parts.Second").parameters) == list(sgd), "the first base that has one"
    assert "amsgrad" in signature.read(f"{package}.parts.Far").parameters
    for name, is_open in {"Plain": False, "Net": False, "Watch": False, "Lost": True, "Itself": True}.items():
        assert signature.read(f"{package}.parts.{name}") == signature.Signature({}, is_open, True, f"{package}.parts")
    known = signature.read("src.training.callbacks.pictures.ConfusionMatrix").parameters
    assert known == {}, "Lightning's has none"


def test_kwargs_reach_the_parameters_of_the_base(write: Write) -> None:
    source = """
        import torch.nn as nn
        class Base(nn.Module):
            def __init__(self, width, depth=2, bias=True): ...
        class Rest(Base):
            def __init__(self, *args, **kwargs): super().__init__(*args, **kwargs)
        class Some(Rest):
            def __init__(self, a, **kwargs): super(Some, self).__init__(8, bias=False, **kwargs)
        class End(nn.Module):
            def __init__(self, a, **kwargs): super().__init__(**kwargs)
        class Keeps(Base):
            def __init__(self, a, **kwargs): self.kwargs = kwargs
        class Open(Keeps):
            def __init__(self, b=1, **kwargs): super().__init__(**kwargs)
        class Takes(Base):
            def __init__(self, **kwargs):
                self.extra = kwargs.pop("extra", 1)
                super().__init__(**kwargs)
        class Lost(no.such.Base):
            def __init__(self, **kwargs): super().__init__(**kwargs)
        class New:
            def __new__(cls, a, b=2): ...
        class Both(End, Base): pass
        def function(a, **kwargs): ...
    """
    read = {name: signature.read(f"{write(nets=source)}.nets.{name}") for name in
            ("Rest", "Some", "End", "Keeps", "Open", "Takes", "Lost", "New", "Both", "function")}  # fmt: skip
    assert {name: (list(found.parameters), found.open) for name, found in read.items()} == {
        "Rest": (["width", "depth", "bias"], False),
        "Some": (["a", "depth"], False),
        "End": (["a"], False),
        "Keeps": (["a"], True),
        "Open": (["b", "a"], True),
        "Takes": (["width", "depth", "bias"], True),
        "Lost": ([], True),
        "New": (["a", "b"], False),
        "Both": (["a", "width", "depth", "bias"], False),
        "function": (["a"], True),
    }


def test_fields_of_a_dataclass_are_its_parameters(write: Write) -> None:
    source = """
        import dataclasses
        from dataclasses import dataclass, field
        from typing import ClassVar
        @dataclass
        class Base:
            width: int
            depth: int = 2
            kind: ClassVar[str] = "net"
        @dataclasses.dataclass(frozen=True)
        class Net(Base):
            depth: int = 3
            rate: float = field(default=0.5)
            names: list = field(default_factory=list)
            built: bool = dataclasses.field(init=False)
            last: str = field(repr=False)
        class Child(Net): pass
    """
    package = write(parts=source)
    assert defaults(f"{package}.parts.Net") == {"width": ..., "depth": 3, "rate": 0.5, "last": ...}
    assert defaults(f"{package}.parts.Child") == defaults(f"{package}.parts.Net")
    assert list(defaults(f"{package}.parts.Net")) == ["width", "depth", "rate", "last"]


def test_name_is_followed_to_where_it_is_defined(write: Write) -> None:
    package = write(
        __init__="""
            from .inner import Net as Renamed
            from .inner import *
            from . import inner as below
            try:
                from .inner import Other as Tried
            except ImportError:
                Tried = None
            if True:
                def branch(a, b=1): ...
            @decorated
            def wrapped(c): ...
            class Mine(below.Net): pass
        """,
        inner="""
            class Net:
                def __init__(self, a=1): ...
            class Other(Net): ...
        """,
        deep__folder__nets="from ...inner import Net\nclass Deep(Net): ...\n",
    )
    for name in ("Renamed", "Other", "Tried", "Mine", "deep.folder.nets.Deep", "below.Net"):
        assert defaults(f"{package}.{name}") == {"a": 1}, name
    assert defaults(f"{package}.branch") == {"a": ..., "b": 1}
    assert not signature.read(f"{package}.wrapped").is_class
    with pytest.raises(LookupError, match="has no class or function Absent"):
        signature.read(f"{package}.Absent")


def test_single_file_in_the_current_directory_is_a_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mylosses_here.py").write_text("raise SystemExit('imported')\ndef loss(logits, labels, power=2): ...\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")
    assert defaults("mylosses_here.loss") == {"logits": ..., "labels": ..., "power": 2}


def test_package_that_only_a_finder_knows_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "nets.py").write_text("def net(a=1): ...\n")
    (tmp_path / "__init__.py").write_text("raise SystemExit('imported')\n")

    class Editable:
        @staticmethod
        def find_spec(name: str, path: object = None, target: object = None) -> ModuleSpec | None:
            here = tmp_path / "__init__.py"
            return spec_from_file_location(name, here) if name == "made_editable" else None

    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Editable])
    assert defaults("made_editable.inner.nets.net") == {"a": 1}, "inner has no __init__.py"


def test_attribute_is_a_literal_of_the_class_or_a_base(write: Write) -> None:
    source = """
        from torchmetrics import Metric
        class Base(Metric):
            higher_is_better = True
            names: tuple = ("a", "b")
            made = call()
            bare: int
        class Child(Base):
            higher_is_better: bool = False
        def function(): ...
    """
    parts = f"{write(parts=source)}.parts"
    assert signature.attribute(f"{parts}.Child", "higher_is_better") is False
    assert signature.attribute(f"{parts}.Child", "names") == ("a", "b")
    for target, name in [("Child", "made"), ("Child", "bare"), ("Child", "nothing"), ("function", "names")]:
        assert signature.attribute(f"{parts}.{target}", name) is None
    assert signature.attribute("torchmetrics.classification.MulticlassF1Score", "higher_is_better") is True


@pytest.mark.parametrize(("module", "required"), [("torch.optim", "params"), ("torch.optim.lr_scheduler", "optimizer")])
def test_classes_of_torch_are_those_that_python_sees(module: str, required: str) -> None:
    package = sys.modules[module]
    base = torch.optim.Optimizer if required == "params" else torch.optim.lr_scheduler.LRScheduler
    public = {name: getattr(package, name) for name in package.__all__}
    # dense weights have no sparse gradients, channels_last ones no view as a vector; a command names no function
    unfit = {"SparseAdam", "LBFGS", "LambdaLR", "MultiplicativeLR", "SequentialLR", base.__name__}
    expected = {name for name, cls in public.items() if isinstance(cls, type) and issubclass(cls, base)} - unfit
    assert signature.classes(module, required) == {name.lower(): f"{module}.{name}" for name in expected}


def test_classes_of_a_module_are_its_own(write: Write) -> None:
    source = "from torch.optim import SGD\nclass Mine(SGD): ...\nclass _Hidden(SGD): ...\nclass Other: ...\n"
    package = write(parts=source)
    assert signature.classes(f"{package}.parts", "params") == {"mine": f"{package}.parts.Mine"}


WORDS: Any = {"int": int, "str": str, "float": float, "list": list, "dict": dict, "tuple": tuple, "Literal": Literal}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("int | None", int | None),
        ("Optional[int]", Optional[int]),  # noqa: UP045
        ("typing.Optional['t.List[int]']", Optional[list[int]]),  # noqa: UP045
        ("Union[int, 'str', None]", int | str | None),
        ("t.Dict[str, List[float]]", dict[str, list[float]]),
        ("'Tuple[int, ...] | None'", tuple[int, ...] | None),
        ("typing.Literal['a', 'int'] | None", Literal["a", "int"] | None),
        ("'int | Unknown'", Any),
        ("Callable[[int], str]", Any),
        ("'no type'", Any),
        ("torch.Tensor", Any),
    ],
)
def test_annotation_is_understood_or_any(text: str, expected: Any) -> None:
    assert signature.evaluate(ast.parse(text, mode="eval").body, WORDS) == expected


def test_nothing_is_imported() -> None:
    code = """
        import sys
        from src.config import signature
        signature.read("torchmetrics.classification.MulticlassF1Score")
        signature.classes("torch.optim", "params")
        print({"torch", "torchmetrics", "lightning"} & sys.modules.keys())
    """
    assert subprocess.check_output([sys.executable, "-c", dedent(code)], text=True).strip() == "set()"


def test_file_that_is_no_python_is_named_with_its_line(write: Write) -> None:
    package = write(net="x = 1\nclass Net(:\n")
    with pytest.raises(LookupError, match=r"net\.py, line 2"):
        signature.classes(f"{package}.net", "in_channels")


def test_networks_are_found_by_their_constructor(tmp_path: Path) -> None:
    assert signature.networks(Path("src/model").absolute()).keys() >= {"alexnet"}, "a network of one's own joins it"
