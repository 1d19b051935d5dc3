"""Options are read from the source of classes, torch's included, without importing them."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import torch

from src.config import signature


@pytest.mark.parametrize("name", ["SGD", "AdamW", "Adam", "RMSprop", "Adagrad"])
def test_parameters_of_an_optimizer_are_those_that_python_sees(name: str) -> None:
    expected = list(inspect.signature(getattr(torch.optim, name)).parameters)
    assert list(signature.parameters(f"torch.optim.{name}")) == expected


def test_default_and_annotation_are_read() -> None:
    found = signature.parameters("src.model.alexnet.AlexNet")
    assert found["in_channels"][1] is ...
    assert found["widths"][1] == [64, 192, 384, 256, 256]
    assert signature.evaluate(found["batch_norm"][0], {"bool": bool}) is bool


@pytest.mark.parametrize("target", ["src.nothing.X", "src.model.alexnet.X", "torch.optim.X", "nowhere.X"])
def test_unknown_target_is_a_lookup_error(target: str) -> None:
    with pytest.raises(LookupError):
        signature.parameters(target)


def test_default_that_cannot_be_read_is_no_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "made").mkdir()
    source = "class Net:\n    def __init__(self, width: int = 4 * 4, depth: int = 2): ...\n"
    (tmp_path / "made" / "net.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    assert list(signature.parameters("made.net.Net")) == ["depth"]


def test_constructor_is_that_of_a_base_where_the_class_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own").mkdir()
    source = "from torch.optim import SGD\nclass Mine(SGD):\n    pass\nclass Plain:\n    pass\n"
    (tmp_path / "own" / "parts.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    assert list(signature.parameters("own.parts.Mine")) == list(signature.parameters("torch.optim.SGD"))
    assert signature.parameters("own.parts.Plain") == {}
    assert signature.parameters("src.training.callbacks.confusion_matrix.ConfusionMatrix") == {}, "Lightning's has none"


def test_a_name_that_a_package_imports_from_a_file_of_its_own_is_found() -> None:
    assert {"num_ops", "magnitude"} <= signature.parameters("torchvision.transforms.v2.RandAugment").keys()
    assert signature.parameters("torchvision.transforms.v2.MixUp")["alpha"][1] == 1.0


def test_file_that_is_no_python_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text("x = 1\nclass Net(:\n")
    with pytest.raises(LookupError, match=r"net\.py, line 2"):
        signature.networks(tmp_path)


def test_networks_are_found_by_their_constructor(tmp_path: Path) -> None:
    assert signature.networks(Path("src/model").absolute()).keys() >= {"alexnet"}, "a network of one's own joins it"
