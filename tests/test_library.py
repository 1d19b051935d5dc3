"""The architectures of torchvision and timm, by name, for any images."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import nn
from torchvision import models

from src.config import architectures
from src.config.check import check
from src.config.compose import compose
from src.config.errors import UserError
from src.config.schema import Component, TrainConfig
from src.model import library
from src.model.network import build_network, preferred_size
from tests.conftest import ROOT, Outcome, only_run, results_of

# each of another family, with the side that its library says
TORCHVISION = {
    "convnext_tiny": 224,
    "densenet121": 224,
    "efficientnet_b1": 240,
    "googlenet": 224,
    "inception_v3": 299,
    "maxvit_t": 224,
    "mnasnet0_5": 224,
    "mobilenet_v3_small": 224,
    "shufflenet_v2_x0_5": 224,
    "squeezenet1_1": 224,
    "swin_v2_t": 256,
    "vgg11_bn": 224,
    "vit_b_16": 224,
    "vit_h_14": 224,
}
TIMM = {"resnet18": 224, "vit_tiny_patch16_224": 224, "deit_tiny_distilled_patch16_224": 224, "efficientnet_b1": 240}


def model(name: str, *words: str) -> Component:
    """The part of a checked config."""
    overrides = [f"model={name}", *(f"++model.{word}" for word in words)]
    return check(compose("train", overrides).values, TrainConfig).model


@pytest.mark.parametrize(
    ("name", "arch", "size"),
    [("torchvision", *item) for item in TORCHVISION.items()] + [("timm", *item) for item in TIMM.items()],
)
def test_each_family_answers_with_logits_at_the_size_that_it_says(name: str, arch: str, size: int) -> None:
    config = model(name, f"arch={arch}")
    assert preferred_size(config) == size
    with torch.device("meta"):
        for channels in (1, 4):
            network = build_network(config, channels, 7).train()
            assert network(torch.zeros(2, channels, size, size)).shape == (2, 7)


def test_alexnet_prefers_its_227_pixels() -> None:
    assert preferred_size(model("alexnet")) == 227


def test_names_are_those_of_the_libraries_themselves() -> None:
    assert architectures.architectures("torchvision") == sorted(models.list_models(module=models))
    assert architectures.architectures("timm") == sorted(timm.list_models())


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("torchvision", lambda: models.resnet18(num_classes=5)),
        ("timm", lambda: timm.create_model("resnet18", num_classes=5)),
    ],
)
def test_weights_have_the_names_and_shapes_that_published_ones_have(name: str, own: Callable[[], nn.Module]) -> None:
    shapes = {key: value.shape for key, value in own().state_dict().items()}
    network = build_network(model(name, "arch=resnet18"), 3, 5)
    assert {key: value.shape for key, value in network.state_dict().items()} == shapes


def test_three_channels_leave_torchvisions_own_weights() -> None:
    torch.manual_seed(0)
    expected = models.regnet_y_400mf(num_classes=5).state_dict()
    torch.manual_seed(0)
    found = library.torchvision(3, 5, "regnet_y_400mf").state_dict()
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_first_layer_answers_at_the_variance_that_it_has_for_three_channels() -> None:
    torch.manual_seed(0)
    first = {n: library.torchvision(n, 5, "alexnet").get_submodule("features.0") for n in (3, 1, 2, 9)}
    with torch.inference_mode():
        spread = {n: float(layer(torch.randn(8, n, 64, 64)).std()) for n, layer in first.items()}
    assert spread == pytest.approx(dict.fromkeys(first, spread[3]), rel=0.05)
    for layer in first.values():
        weight: Any = layer.weight
        assert float((weight.abs().max() / weight.std()).detach()) < 2, "uniform, as torchvision's"


@pytest.mark.parametrize(
    ("name", "arch", "sentence"),
    [
        ("torchvision", "resnet19", "expected an architecture of torchvision; the nearest are resnet18, "),
        ("torchvision", "fasterrcnn_resnet50_fpn", "expected an architecture of torchvision"),
        ("torchvision", "3", "expected a string"),
        ("timm", "vit_tiny_patch16_224.augreg_in21k", "expected an architecture of timm; the nearest are vit_tiny_"),
        ("timm", "hf_hub:timm/resnet18", "expected an architecture of timm"),
        ("timm", "local-dir:/tmp/resnet18", "expected an architecture of timm"),
        ("timm", "../resnet18", "expected an architecture of timm"),
    ],
)
def test_other_names_are_refused_with_the_nearest(name: str, arch: str, sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        model(name, f"arch='{arch}'" if ":" in arch else f"arch={arch}")
    assert f"model.arch={arch}: {sentence}" in str(caught.value)


@pytest.mark.parametrize("words", [["model=torchvision", "model.arch=resnet19"], ["model=timm", "--cfg", "job"]])
def test_names_are_known_before_torch_or_the_library_is_imported(words: list[str]) -> None:
    program = (
        "import runpy, sys\n"
        f"sys.argv = ['train', *{words!r}]\n"
        "try:\n    runpy.run_module('src.train', run_name='__main__')\n"
        "except SystemExit as exit_:\n    print('code', exit_.code or 0)\n"
        "print({'torch', 'torchvision', 'timm'} & sys.modules.keys())\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"
    assert ("code 2" in done.stdout) == ("model.arch=resnet19" in words)


def test_timm_that_is_not_installed_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("src.config.errors.find_spec", lambda package: None)
    architectures.architectures.cache_clear()
    with pytest.raises(UserError, match=r"model=timm needs timm, which is not installed: .*\[timm\]"):
        model("timm")
    architectures.architectures.cache_clear()


@pytest.mark.parametrize(("name", "arch"), [("torchvision", "resnet18"), ("timm", "test_resnet")])
def test_run_trains_and_is_named_after_its_architecture(
    door: Callable[..., Outcome], in_tmp: Path, images_folder: Path, name: str, arch: str
) -> None:
    options = [f"model={name}", f"model.arch={arch}", "dataset=image_folder", f"data_dir={images_folder}"]
    short = ["dataset.image_size=32", "batch_size=8", "device=cpu", "trainer.max_epochs=1", "callbacks=none"]
    outcome = door("train", *options, *short, "report=false")
    assert outcome.code == 0, outcome.err
    run = only_run(in_tmp)
    assert results_of(run)["model"] == f"{name}_{arch}"
    scored = door("eval", f"checkpoint={run / 'checkpoints' / 'best.ckpt'}")
    assert scored.code == 0, scored.err


@pytest.mark.parametrize(("name", "arch"), [("torchvision", "vit_b_32"), ("timm", "vit_tiny_patch16_224")])
def test_images_that_do_not_fit_are_refused_in_a_sentence(
    door: Callable[..., Outcome], images_folder: Path, name: str, arch: str
) -> None:
    options = [f"model={name}", f"model.arch={arch}", "dataset=image_folder", f"data_dir={images_folder}"]
    outcome = door("train", *options, "dataset.image_size=32", "batch_size=8", "device=cpu")
    assert outcome.code == 2
    assert outcome.err.startswith("error: dataset.image_size: ")
    assert "224" in outcome.err


def nothing(in_channels: int, num_classes: int) -> None:
    pass


def test_function_that_gives_no_network_is_refused() -> None:
    with pytest.raises(UserError, match="that is no network"):
        build_network(Component(_target_="tests.test_library.nothing"), 1, 2)


def test_dropout_is_timms_own_or_the_one_asked_for() -> None:
    assert not [layer for layer in modules(model("timm", "arch=resnet18")) if getattr(layer, "drop_rate", 0)]
    asked = modules(model("timm", "arch=resnet18", "drop_rate=0.3"))
    assert [layer.drop_rate for layer in asked if hasattr(layer, "drop_rate")] == [0.3]


def modules(config: Component) -> list[Any]:
    return list(build_network(config, 1, 2).modules())
