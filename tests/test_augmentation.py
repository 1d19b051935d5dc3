"""What is done to a training batch: each part alone, several in their order, and what is drawn where."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torchvision.transforms.v2.functional as reference
from torch import Generator, Tensor
from torchvision.transforms import v2

from src.config.check import check
from src.config.compose import compose, declared
from src.config.errors import UserError
from src.config.schema import CONFIGS, Component, TrainConfig
from src.data.augmentation import Augmentation, batch_affine, batch_crop, batch_flip, build_component
from src.data.batches import Batches
from src.data.datamodule import DataModule
from src.data.images import ImageSet, Splits
from src.model.build import build_datamodule
from src.model.components import resolve
from tests.test_batches import bytes_, module, seeded

LABELS = torch.arange(16) % 4
OPTIONS = sorted(file.stem for file in (CONFIGS / "dataset" / "augmentation").glob("*.yaml"))


def augmented(*overrides: str, channels: int = 3, side: int = 32) -> DataModule:
    """The data module of a run of these overrides, on 16 made images of 4 classes."""
    part = ImageSet(bytes_(16, channels, side), LABELS)
    size = [f"dataset.mean={[0.5] * channels}", f"dataset.std={[0.3] * channels}", "dataset.image_size=32", "seed=1"]
    config = check(compose("train", declared([*overrides, *size])).values, TrainConfig)
    return build_datamodule(config, Splits(part, part, part, list("abcd"), "full"))


def batch_of(data: DataModule, seed: int = 1) -> tuple[Tensor, Tensor]:
    cut = replace(data.cut, seed=seed) if data.cut else None
    batch = Batches(data.splits.train, cut)[0, torch.arange(16)]
    assert not isinstance(batch, UserError)
    return data.augmentation(*batch, seeded(seed))


def of(*targets: Any, num_classes: int = 4, **arguments: Any) -> Augmentation:
    """Each of these functions and classes, the last with the arguments."""
    given: list[dict[str, Any]] = [{} for _ in targets[1:]] + [arguments]
    return Augmentation(
        [build_component(*pair, place, num_classes) for place, pair in enumerate(zip(targets, given, strict=False))]
    )


def test_flip_mirrors_about_half_of_the_images_and_leaves_the_rest() -> None:
    images = bytes_(400)
    flipped, _ = batch_flip(images, LABELS, seeded())
    mirrored = (flipped == images.flip(-1)).flatten(1).all(1)
    same = (flipped == images).flatten(1).all(1)
    assert bool((mirrored ^ same).all())
    assert 150 < int(mirrored.sum()) < 250


def test_crop_cuts_windows_of_the_reflected_image() -> None:
    images = bytes_(50)
    padding = 3
    cropped, _ = batch_crop(images, LABELS, seeded(), padding)
    padded = torch.nn.functional.pad(images.float(), [padding] * 4, mode="reflect").byte()
    offsets = set()
    for image, source in zip(cropped, padded, strict=True):
        places = [
            (top, left)
            for top in range(2 * padding + 1)
            for left in range(2 * padding + 1)
            if torch.equal(source[:, top : top + 8, left : left + 8], image)
        ]
        assert places
        offsets.add(places[0])
    assert len(offsets) > 15


def test_affine_of_nothing_is_the_image_and_of_something_agrees_with_torchvision() -> None:
    images = torch.rand(2, 1, 28, 28, generator=seeded())
    assert torch.allclose(batch_affine(images, LABELS, seeded(), 0.0, 0.0, 0.0)[0], images, atol=1e-5)
    # these draws mean: the largest angle, no change of size, no shift
    draws = torch.tensor([1.0, 0.5, 0.5, 0.5])[:, None].expand(4, 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "rand", lambda *_, **__: draws)
        turned, _ = batch_affine(images, LABELS, seeded(), 20.0, 0.1, 0.1)
    expected = reference.rotate(images, 20.0, interpolation=reference.InterpolationMode.BILINEAR)
    assert torch.allclose(turned, expected, atol=1e-4)


@pytest.mark.parametrize(("channels", "side"), [(1, 28), (3, 32)])
@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_is_a_function_of_its_seed_and_draws_nothing_else(option: str, channels: int, side: int) -> None:
    data = augmented(f"dataset/augmentation={option}", channels=channels, side=side)
    before = torch.get_rng_state()
    images, labels = batch_of(data)
    assert torch.equal(torch.get_rng_state(), before)
    assert images.shape == (16, channels, side, side)
    torch.rand(7)
    again, same = batch_of(data)
    assert torch.equal(again, images)
    assert torch.equal(same, labels)
    assert torch.equal(batch_of(data, 2)[0], images) == (option == "none")


def test_each_image_has_its_own_draw_and_each_part_too() -> None:
    same = bytes_(1).expand(16, -1, -1, -1)
    images, labels = of(v2.ColorJitter, brightness=0.5)(same, LABELS, seeded())
    assert len({tuple(image.flatten().tolist()) for image in images}) > 12
    assert labels is LABELS
    drawn: list[list[float]] = []

    class Draw:
        def __init__(self) -> None:
            drawn.append([])
            self.mine = drawn[-1]

        def __call__(self, image: Tensor) -> Tensor:
            self.mine.append(float(torch.rand(())))
            return image

    of(Draw, Draw)(same, LABELS, seeded())
    assert len(set(drawn[0] + drawn[1])) == 32


def test_a_transform_of_single_images_is_given_bytes() -> None:
    seen = []

    class Look:
        def __call__(self, image: Tensor) -> Tensor:
            seen.append(image)
            return image

    of(Look)(torch.tensor([-3.0, 0.6, 254.4, 300.0]).view(1, 1, 2, 2), LABELS[:1], seeded())
    assert seen[0].tolist() == [[[0, 1], [254, 255]]]
    assert seen[0].dtype == torch.uint8


@pytest.mark.parametrize("targets", [[v2.MixUp], [v2.CutMix], [v2.MixUp, v2.CutMix], [v2.MixUp, v2.RandAugment]])
def test_mixed_images_have_labels_that_sum_to_one(targets: list[Any]) -> None:
    images, labels = of(*targets)(bytes_(16), LABELS, seeded())
    assert labels.shape == (16, 4)
    assert torch.allclose(labels.sum(1), torch.ones(16))
    assert bool(((labels > 0).sum(1) > 1).any())
    assert images.shape == (16, 3, 8, 8)


def test_mixup_mixes_pixels_as_it_mixes_labels() -> None:
    pixels = torch.tensor([0, 200], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 1, 4, 4)
    images, labels = of(v2.MixUp, num_classes=2)(pixels, torch.arange(2), seeded())
    assert torch.allclose(images[:, 0, 0, 0], labels[:, 1] * 200)


def test_the_order_is_that_of_the_yaml_and_of_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    def names(*overrides: str) -> list[str]:
        config = check(compose("train", declared([*overrides])).values, TrainConfig)
        return list(config.dataset.augmentation.components())

    assert names("dataset/augmentation=flip_crop") == ["flip", "crop"]
    assert names("dataset/augmentation=[mixup,flip_crop]") == ["mixup", "flip", "crop"]
    assert names("dataset/augmentation=[flip_crop,mixup]", "dataset.augmentation.flip=null") == ["crop", "mixup"]
    assert names("dataset/augmentation=none") == []
    made: list[Any] = []

    def build(*arguments: Any) -> Any:
        made.append(arguments)
        return batch_flip

    monkeypatch.setattr("src.model.build.build_component", build)
    augmented("dataset/augmentation=[mixup,flip_crop]")
    assert [(target, place) for target, _, place, _ in made] == [(v2.MixUp, 0), (batch_flip, 1), (batch_crop, 2)]


def test_a_function_of_ones_own_is_a_component(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "def darken(images, labels, generator, num_classes, by=2):\n    return images // by, labels % num_classes\n"
    (tmp_path / "own_augmentation.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    darken = resolve(Component(_target_="own_augmentation.darken"))
    images, labels = of(darken, by=4, num_classes=3)(bytes_(16), LABELS, seeded())
    assert torch.equal(images, bytes_(16) // 4)
    assert torch.equal(labels, LABELS % 3)


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (
            ["dataset/augmentation=flip_crop", "dataset.augmentation.crop.padding=32"],
            "crop: padding=32 needs images of",
        ),
        (["dataset/augmentation=mixup", "dataset.augmentation.mixup.alpha=-1"], "mixup: Expected parameter"),
        (["dataset/augmentation=random_erasing", "dataset.augmentation.random_erasing.p=2"], "random_erasing: "),
        (["dataset/augmentation=affine", "dataset.augmentation.affine.scale=1"], "affine.scale=1: expected"),
        (["dataset/augmentation=flip", "dataset.augmentation.flip.p=1"], "flip.p: there is no such key."),
    ],
)
def test_wrong_arguments_are_refused_before_the_first_step(overrides: list[str], sentence: str) -> None:
    with pytest.raises(UserError) as raised:
        augmented(*overrides)
    assert str(raised.value).startswith(f"dataset.augmentation.{sentence}")


def test_only_training_is_augmented_and_each_step_anew() -> None:
    data = module(augmentation=of(batch_flip, batch_crop, padding=4))
    batch = data.splits.train.images, data.splits.train.labels
    prepared, _ = data.on_after_batch_transfer(batch, 0)
    assert torch.equal(prepared, data.prepare(batch[0]))
    data.trainer = SimpleNamespace(training=True, global_rank=0)  # type: ignore[assignment]
    first, second = data.on_after_batch_transfer(batch, 0)[0], data.on_after_batch_transfer(batch, 0)[0]
    assert not torch.equal(first, prepared)
    assert not torch.equal(first, second)
    data.step = 0
    assert torch.equal(data.on_after_batch_transfer(batch, 0)[0], first)


def test_without_augmentation_the_batch_is_as_it_was() -> None:
    images, labels = bytes_(16), LABELS
    assert of()(images, labels, Generator()) == (images, labels)


@pytest.mark.parametrize(("x", "y"), [(2, -3), (-1, 2), (0, 1)])
def test_affine_shifts_each_side_by_its_own_draw_and_black_comes_in(
    x: int, y: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = torch.rand(1, 1, 8, 8, generator=seeded()) + 1
    draws = torch.tensor([0, 0, -x / 4, -y / 4])[:, None] / 2 + 0.5  # no turn, no change of size, parts of the most
    monkeypatch.setattr(torch, "rand", lambda *_, **__: draws)
    shifted, _ = batch_affine(images, LABELS, seeded(), 20.0, 0.5, 0.1)  # half of 8 pixels at the most
    expected = reference.affine(images, 0.0, [x, y], 1.0, [0.0], fill=[0.0])
    assert torch.allclose(shifted, expected, atol=1e-5)


def test_affine_scales_by_a_draw_that_is_not_the_angles(monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.rand(1, 1, 28, 28, generator=seeded())
    draws = torch.tensor([0.5, 1.0, 0.5, 0.5])[:, None]  # the largest size, no turn, no shift
    monkeypatch.setattr(torch, "rand", lambda *_, **__: draws)
    larger, _ = batch_affine(images, LABELS, seeded(), 20.0, 0.1, 0.25)
    bilinear = reference.InterpolationMode.BILINEAR
    assert torch.allclose(larger, reference.affine(images, 0.0, [0, 0], 1.25, [0.0], bilinear), atol=1e-4)


def test_each_process_augments_in_its_own_way() -> None:
    data = module(augmentation=of(batch_flip, batch_crop, padding=4))
    batch, seen = (data.splits.train.images, data.splits.train.labels), []
    for rank in (0, 1):
        data.trainer, data.step = SimpleNamespace(training=True, global_rank=rank), 3  # type: ignore[assignment]
        seen.append(data.on_after_batch_transfer(batch, 0)[0])
    assert not torch.equal(*seen)
