"""Exported files: they answer as the checkpoint does, say what they are, and are whole or not there."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import yaml
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from src.config import errors
from src.config.errors import RunError, UserError
from src.config.files import whole
from src.data.readers import read_mnist_sample
from src.model.build import images_of
from src.model.hardware import Hardware
from src.model.network import build_network
from src.model.predictor import Predictor
from src.model.saved import load
from src.results.outcome import Outcome as Outcomes
from src.serving import graph
from tests.conftest import ROOT, SHORT, Outcome, train_in, write_folder
from tests.test_model import ABOUT, configure

Door = Callable[..., Outcome]
FORMATS = {"onnx": "graph.onnx", "torch_export": "graph.pt2"}


@pytest.fixture(scope="module")
def grey(trained: Path) -> Path:
    """A checkpoint of alexnet on packaged digits, 28 pixels resized to 128."""
    return trained / "checkpoints" / "best.ckpt"


@pytest.fixture(scope="module")
def colour(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of alexnet_bn on colour images of 240 pixels, which shrink to 227."""
    root = tmp_path_factory.mktemp("colour")
    data = write_folder(root / "images", classes=2, count=15, size=240)
    words = ["dataset=image_folder", f"data_dir={data}", "model=alexnet_bn", *SHORT, "dataset.image_size=227"]
    run = train_in(root, *words)
    return run / "checkpoints" / "best.ckpt"


@pytest.fixture(params=["grey", "colour"])
def saved(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)


def genuine(path: Path, number: int) -> Tensor:
    """Images that the checkpoint was not trained on."""
    if "colour" in str(path):
        return images_of(load(path)).test.images.repeat(3, 1, 1, 1)[:number]
    sample = read_mnist_sample().test
    assert sample is not None
    return sample.images[::17][:number]


def session(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def answers(path: Path, images: Tensor) -> Tensor:
    """The logits of a file, as any reader gets them."""
    if path.suffix == ".onnx":
        return torch.from_numpy(session(path).run(["logits"], {"images": images.numpy()})[0])
    return torch.export.load(path).module()(images)


def said(path: Path) -> dict[str, Any]:
    """What a file says of itself."""
    if path.suffix == ".onnx":
        found = session(path).get_modelmeta().custom_metadata_map
    else:
        found = dict.fromkeys(("classes", "preprocessing", "dataset", "training", "verification"), "")
        torch.export.load(path, extra_files=found)
    return {key: json.loads(text) for key, text in found.items()}


@pytest.mark.parametrize("format", FORMATS)
def test_file_answers_as_the_checkpoint_and_says_what_it_is(door: Door, in_tmp: Path, saved: Path, format: str) -> None:
    file = in_tmp / FORMATS[format]
    outcome = door("export", f"checkpoint={saved}", f"format={format}", f"output={file.name}")
    assert (outcome.code, outcome.err) == (0, "")
    assert [path.name for path in in_tmp.iterdir()] == [file.name], "one file, with all weights in it"
    assert f"{file.name}, " in outcome.out
    assert "largest difference of a logit" in outcome.out
    assert max(map(len, outcome.out.splitlines())) <= 80

    predictor = Predictor.load(saved, "cpu", "32-true")
    for number in (1, 7):
        images = genuine(saved, number)
        assert images.shape == (number, predictor.channels, predictor.height, predictor.width)
        logits = answers(file, images)
        assert logits.dtype == torch.float32
        torch.testing.assert_close(logits, predictor.logits(images), atol=1e-4, rtol=0)

    about, trained_as = said(file), load(saved)
    given, side = about["preprocessing"], trained_as.config.dataset.image_size
    assert side is not None
    assert about["classes"] == predictor.classes
    assert (given["channels"], given["size"]) == (predictor.channels, [predictor.height, predictor.width])
    assert (given["mean"], given["std"]) == (trained_as.config.dataset.mean, trained_as.config.dataset.std)
    assert (given["resized_to"], given["dark_background"]) == ([side, side], predictor.channels == 1)
    assert ("antialiasing" in given["inside"]) == (predictor.height > side)
    assert about["training"]["command"] == trained_as.about.command
    assert about["training"]["versions"] == trained_as.about.versions
    assert about["dataset"]["name"] == trained_as.about.dataset
    assert 0 <= about["verification"]["largest_difference"] <= about["verification"]["limit"] == 1e-4
    assert 1 in about["verification"]["batches"]
    assert str(ROOT).encode() not in file.read_bytes(), "no path of the machine that it was made on"
    if format == "onnx":
        onnx.checker.check_model(file, full_check=True)
        [images_in], [logits_out] = session(file).get_inputs(), session(file).get_outputs()
        size = [predictor.channels, predictor.height, predictor.width]
        assert (images_in.name, images_in.type, images_in.shape) == ("images", "tensor(uint8)", ["batch", *size])
        assert (logits_out.name, logits_out.type, logits_out.shape) == (
            "logits",
            "tensor(float)",
            ["batch", len(predictor.classes)],
        )


@pytest.mark.parametrize(("format", "wrong", "shown"), [("onnx", 1e-3, "0.001"), ("torch_export", float("nan"), "nan")])
def test_file_that_answers_otherwise_is_refused_and_the_one_before_it_stays(
    door: Door, in_tmp: Path, grey: Path, monkeypatch: pytest.MonkeyPatch, format: str, wrong: float, shown: str
) -> None:
    logits = Predictor.logits
    monkeypatch.setattr(Predictor, "logits", lambda self, images: logits(self, images) + wrong)
    file = in_tmp / FORMATS[format]
    file.write_text("an earlier one")
    outcome = door("export", f"checkpoint={grey}", f"format={format}", f"output={file}")
    assert outcome.code == 1
    assert outcome.err.startswith(f"error: the graph's logits differ from the checkpoint's by up to {shown}")
    assert outcome.err.count("\n") == 1
    assert [path.name for path in in_tmp.iterdir()] == [file.name]
    assert file.read_text() == "an earlier one"


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_nothing_is_left_of_a_file_that_was_broken_off(tmp_path: Path, error: type[BaseException]) -> None:
    def broken_off() -> None:
        with whole(tmp_path / "file") as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        broken_off()
    assert not list(tmp_path.iterdir())


def test_full_disk_is_an_error_in_words(door: Door, in_tmp: Path, grey: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(graph, "save", full)
    outcome = door("export", f"checkpoint={grey}", "output=graph.pt2", "format=torch_export")
    assert (outcome.code, outcome.err) == (1, "error: output=graph.pt2: [Errno 28] No space left on device.\n")
    assert not list(in_tmp.iterdir())


def test_a_folder_to_share_has_the_network_in_three_forms_that_answer_alike(
    door: Door, in_tmp: Path, grey: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (in_tmp / "share").mkdir()
    outcome = door("export", f"checkpoint={grey.parent.parent}", "output=share/")
    assert (outcome.code, outcome.err) == (0, "")
    assert max(map(len, outcome.out.splitlines()[1:])) <= 80
    names = {"README.md", "alexnet.py", "best.ckpt", "model.onnx", "model.safetensors", "report.html"}
    assert {path.name for path in (in_tmp / "share").iterdir()} == names
    assert [path.name for path in in_tmp.iterdir()] == ["share"]

    predictor, images = Predictor.load(grey, "cpu", "32-true"), genuine(grey, 5)
    expected, share = predictor.logits(images), in_tmp / "share"
    torch.testing.assert_close(answers(share / "model.onnx", images), expected, atol=1e-4, rtol=0)
    text = (share / "README.md").read_text()
    onnx_lines, torch_lines = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    shared = load(share / "best.ckpt")
    assert not shared.config.callbacks.components()
    assert shared.about.config["callbacks"].keys() >= {"checkpoint_minutes"}
    torch.testing.assert_close(shared.state_dict, load(grey).state_dict)
    monkeypatch.chdir(share)
    Image.fromarray(images[0, 0].numpy()).save("photo.png")
    names_of_lines: dict[str, Any] = {}
    exec(onnx_lines, names_of_lines)
    np.testing.assert_allclose(names_of_lines["logits"], expected[:1].numpy(), atol=1e-4)
    exec(torch_lines.replace("torch.zeros(1, 1, 28, 28)", "pixels"), names_of_lines := {"pixels": images})
    torch.testing.assert_close(names_of_lines["logits"], expected, atol=1e-4, rtol=0)


def test_a_card_says_what_was_measured_and_nothing_else(
    door: Door, in_tmp: Path, grey: Path, colour: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def card_of(name: str, checkpoint: Path) -> str:
        assert door("export", f"checkpoint={checkpoint}", f"output={name}").code == 0
        return (in_tmp / name / "README.md").read_text()

    # what takes long, and is no part of the card
    about = {"preprocessing": {"outside": "", "inside": "", "mean": [], "std": [], "resized_to": []}}
    monkeypatch.setattr(graph, "write", lambda *_: about | {"verification": {"in_words": "it answers alike"}})
    results, text = Outcomes.read(grey.parent.parent), card_of("scored", grey)
    assert results.test is not None
    head = yaml.safe_load(text.split("---")[1])
    assert head["pipeline_tag"] == "image-classification"
    accuracy = f"**Test accuracy: {results.test.verdict}** of 500 packaged mnist digits"
    assert f"{accuracy}, not the official test set" in text
    assert "the checkpoint that was the best by validation accuracy" in text
    assert "| licence of the data | CC BY-SA 3.0 |" in text
    assert results.command in text
    assert results.git is not None
    assert results.git.revision in text
    assert ("with changes that no revision has" in text) == results.git.modified

    shutil.copyfile(grey, in_tmp / "alone.ckpt")  # no results.json lies beside it
    text = card_of("unscored", in_tmp / "alone.ckpt")
    assert "**Not scored** on test images." in text
    assert not re.search(r"\d %", text)
    assert not (in_tmp / "unscored/report.html").exists()
    assert "| licence of the data | not known; say it here before you publish |" in card_of("folder", colour)


def test_a_folder_to_share_is_whole_or_not_there(
    door: Door, in_tmp: Path, grey: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(graph, "write", full)
    outcome = door("export", f"checkpoint={grey}", "output=share/")
    assert (outcome.code, outcome.err) == (1, "error: output=share: [Errno 28] No space left on device.\n")
    assert not list(in_tmp.iterdir())


REQUESTS = {
    "no folder": (["output=none/graph.onnx"], "output=none/graph.onnx: there is no folder none. Make it first."),
    "a folder": (["output=folder.onnx"], "output=folder.onnx: that is a folder. Name a file in it."),
    "another name": (["output=graph.pt2"], "output=graph.pt2: expected a file that ends in .onnx."),
    "no output": ([], "output: a value is needed."),
    "no new folder": (["output=full/"], "output=full: something lies there. Name a new folder, or remove that first."),
    "a folder in one format": (["output=new/", "format=torch_export"], "format=torch_export: a folder to share has"),
    "another format": (["output=graph.onnx", "format=tflite"], "format=tflite: expected"),
    "no checkpoint": (["output=graph.onnx"], "checkpoint=nothing.ckpt: it does not exist"),
}


@pytest.mark.parametrize("what", REQUESTS)
def test_wrong_request_is_refused_in_a_sentence(door: Door, in_tmp: Path, what: str) -> None:
    for folder in ("folder.onnx", "full", "full/it"):
        (in_tmp / folder).mkdir()
    given, sentence = REQUESTS[what]
    outcome = door("export", "checkpoint=nothing.ckpt", *given)
    assert outcome.code == 2
    assert outcome.err.startswith(f"error: {sentence}")
    assert outcome.err.count("\n") == 1
    assert sorted(path.name for path in in_tmp.iterdir()) == ["folder.onnx", "full"]


def test_read_only_folder_is_refused(door: Door, in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    access = os.access
    (in_tmp / "shut").mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "shut" and access(path, mode))
    outcome = door("export", "checkpoint=nothing.ckpt", "output=shut/graph.onnx")
    assert (outcome.code, outcome.err) == (2, "error: output=shut/graph.onnx: the folder shut is read-only.\n")


@pytest.mark.parametrize("package", ["onnx", "onnxruntime", "onnxscript", "safetensors"])
def test_missing_package_is_named_before_the_checkpoint_is_read(
    door: Door, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setattr(errors, "find_spec", lambda name: None if name == package else SimpleNamespace(origin="there"))
    output, what = ("share/", "output=share/") if package == "safetensors" else ("graph.onnx", "format=onnx")
    outcome = door("export", "checkpoint=nothing.ckpt", f"output={output}")
    assert outcome.code == 2
    assert outcome.err.startswith(f"error: {what} needs {package}, which is not installed: pip install")
    assert "[export]" in outcome.err
    by_torch = door("export", "checkpoint=nothing.ckpt", "output=graph.pt2", "format=torch_export")
    assert "checkpoint=nothing.ckpt" in by_torch.err, "which needs none of them"


class Undecided(nn.Module):
    """Takes another way by what it sees."""

    def forward(self, images: Tensor) -> Tensor:
        logits = images.mean((2, 3)).expand(-1, 10)
        return logits * 2 if logits.mean() > 0 else logits


class Pooled(nn.Module):
    """Has a layer that torch.onnx doesn't know."""

    def __init__(self) -> None:
        super().__init__()
        self.pool, self.linear = nn.AdaptiveMaxPool2d((5, 2)), nn.Linear(10, 10)

    def forward(self, images: Tensor) -> Tensor:
        return self.linear(self.pool(images).flatten(1))


@pytest.mark.parametrize("format", FORMATS)
def test_network_that_is_no_graph_is_refused_in_a_sentence(
    grey: Path, capfd: pytest.CaptureFixture[str], format: Any
) -> None:
    predictor = Predictor.load(grey, "cpu", "32-true")
    predictor.network = Undecided()
    capfd.readouterr()
    with pytest.raises(RunError, match=f"format={format}: this network can't be exported: Could not guard") as found:
        graph.build(predictor, format)
    assert "\n" not in str(found.value)
    assert capfd.readouterr() == ("", ""), "and without the exporter's pages"


def test_adaptive_max_pooling_can_be_exported(grey: Path, tmp_path: Path) -> None:
    predictor = Predictor.load(grey, "cpu", "32-true")
    predictor.network = Pooled().eval()
    graph.verify(graph.build(predictor, "onnx"), tmp_path / "graph.onnx", predictor)


@pytest.mark.parametrize(("side", "size"), [((28, 28), [8, 8]), ((5, 7), [3, 7]), ((4, 4), [1, 6])])
def test_adaptive_max_pooling_by_slices_is_torchs(side: tuple[int, int], size: list[int]) -> None:
    images = torch.randn(2, 3, *side)
    assert torch.equal(graph.adaptive_max_pool(images, size)[0], functional.adaptive_max_pool2d(images, size))


def test_network_too_large_for_one_onnx_file_is_refused(grey: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph, "LARGEST", 2**20)
    with pytest.raises(UserError, match=r"format=onnx: .* Use format=torch_export\."):
        graph.build(Predictor.load(grey, "cpu", "32-true"), "onnx")


def test_help_names_its_options(door: Door) -> None:
    text = door("export", "--help").out
    assert all(f"  {key} " in text for key in ("checkpoint", "output", "format"))
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize(
    ("fit", "words"),
    [
        ("crop", "decode, cut to the middle part of the shape 320x240, resize to 320x240"),
        ("pad", "decode, fit whole into the middle of its edge's median colour, 320x240"),
        ("stretch", "decode, stretch to 320x240"),
    ],
)
def test_a_file_says_width_before_height_and_how_its_images_are_brought_to_size(fit: str, words: str) -> None:
    overrides = ["dataset=image_folder", f"++dataset.fit={fit}"]
    config = configure([*overrides, "++model.widths=[1,1,1,1,1]", "++model.hidden=4"])
    about = ABOUT.model_copy(update={"size": [240, 320], "channels": 3})
    predictor = Predictor(build_network(config.model, 1, 2), config, about, Hardware("cpu", "32-true"))
    said = graph.describe(predictor, about)["preprocessing"]
    assert said["input"] == "images: uint8 (N, 3, 240, 320), any N, RGB, 0 to 255"
    assert said["outside"] == words
    assert said["inside"].endswith("resized to 227x227, bilinear, with antialiasing")
    assert (said["size"], said["resized_to"]) == ([240, 320], [227, 227])
