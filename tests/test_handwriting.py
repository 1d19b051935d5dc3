"""A handwritten character is found in a photo, and lies as MNIST's digits do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from src.data.handwriting import centre
from src.data.readers import read_mnist_sample
from src.model.predictor import Predictor
from tests.photos import write_photos


def sheet(*boxes: tuple[int, int, int, int], size: tuple[int, int] = (400, 400), level: int = 240) -> Image.Image:
    """Light paper with dark rectangles: left, top, right, bottom, all within."""
    image = Image.new("L", size, level)
    for box in boxes:
        ImageDraw.Draw(image).rectangle(box, fill=30)
    return image


def found(image: Image.Image | np.ndarray) -> np.ndarray:
    dark_and_character = centre(np.asarray(image))
    assert dark_and_character is not None
    assert dark_and_character[0]
    return dark_and_character[1]


@pytest.mark.parametrize("box", [(10, 20, 59, 219), (300, 15, 379, 95), (390, 100, 399, 160)])
def test_the_longer_side_fills_20_of_28(box: tuple[int, int, int, int]) -> None:
    character = found(sheet(box))
    rows, columns = character.nonzero()
    assert character.shape[0] == character.shape[1]
    assert max(np.ptp(rows), np.ptp(columns)) + 1 == pytest.approx(len(character) * 20 / 28, abs=1)
    assert abs(rows.mean() + 0.5 - len(character) / 2) <= 1
    assert abs(columns.mean() + 0.5 - len(character) / 2) <= 1


def test_the_middle_is_that_of_the_ink_and_nothing_is_cut_off() -> None:
    seven = found(sheet((140, 100, 199, 109), (190, 100, 199, 299)))
    ink = seven.astype(int)
    middles = [np.average(np.arange(len(seven)) + 0.5, weights=ink.sum(axis)) for axis in (0, 1)]
    assert middles == pytest.approx([len(seven) / 2] * 2, abs=0.5)
    assert np.ptp(seven.nonzero()[1]) > np.ptp(seven.nonzero()[0]) / 4, "its upper stroke is whole"
    heavy = found(sheet((100, 100, 299, 139), (195, 140, 204, 299)))
    rows, columns = heavy.nonzero()
    assert np.ptp(columns) == pytest.approx(np.ptp(rows), abs=2)


def test_an_empty_sheet_has_nothing_to_centre() -> None:
    assert centre(np.full((300, 400), 250, np.uint8)) is None
    assert centre(np.zeros((3, 2), np.uint8)) is None
    assert centre(np.full((1, 900), 7, np.uint8)) is None
    noise = np.random.default_rng(0).normal(200, 6, (300, 400)).clip(0, 255).astype(np.uint8)
    assert centre(noise) is None


def test_chalk_and_ink_are_told_apart() -> None:
    image = np.asarray(sheet((140, 100, 199, 109), (190, 100, 199, 299), level=200))
    ink, chalk = found(image), centre(255 - image)
    assert chalk is not None
    assert not chalk[0]
    assert np.abs(ink.astype(int) - chalk[1]).mean() < 5


def test_neither_rules_nor_a_table_nor_specks_nor_a_shadow_are_ink() -> None:
    boxes = [(240, 150, 299, 159), (290, 150, 299, 299)]
    clean = found(sheet(*boxes))
    lines = [(0, y, 399, y + 1) for y in range(10, 400, 30)] + [(x, 0, x + 1, 399) for x in range(25, 400, 30)]
    specks = [(x, 3 * x, x + 3, 3 * x + 3) for x in (60, 90, 110)]
    photo = np.asarray(sheet(*boxes, *lines, *specks, (0, 0, 40, 399)), np.float32)
    shade = np.where(np.add.outer(np.arange(400), np.arange(400)) < 420, 0.6, 1.0)
    taken = Image.fromarray((photo * shade).astype(np.uint8)).rotate(2, fillcolor=150)
    same = found(taken.crop((8, 8, 392, 392)))
    thumbnails = [np.asarray(Image.fromarray(image).resize((28, 28)), int) for image in (clean, same)]
    assert np.abs(np.subtract(*thumbnails)).mean() < 12


def test_a_thin_pen_is_as_thick_as_mnists() -> None:
    thin = found(sheet((140, 100, 143, 299), (140, 100, 239, 103)))
    small = np.asarray(Image.fromarray(thin).resize((28, 28), Image.Resampling.BILINEAR))
    assert (small[10] > 128).sum() >= 2


def test_photos_of_digits_are_read_as_digits(trained: Path, tmp_path: Path) -> None:
    digits = read_mnist_sample().test
    assert digits is not None
    some = digits[torch.arange(10, 500, 33)]
    predictor = Predictor.load(trained / "checkpoints" / "best.ckpt", "cpu")
    files = write_photos(some, tmp_path)

    def right(centre: bool | None) -> int:
        pixels = torch.stack([predictor.read(file, centre=centre).pixels for file in files])
        return int((predictor(pixels).argmax(1) == some.labels).sum())

    plainly = int(predictor.answer(some, "test").right.sum())
    assert right(None) >= plainly - 2
    assert right(False) <= plainly / 2


def test_what_has_the_trained_size_is_left_as_it_is(trained: Path, tmp_path: Path) -> None:
    digits = read_mnist_sample().test
    assert digits is not None
    predictor = Predictor.load(trained / "checkpoints" / "best.ckpt", "cpu")
    for image in digits.images[::50]:
        Image.fromarray(image[0].numpy()).save(tmp_path / "a.png")
        reading = predictor.read(tmp_path / "a.png")
        assert torch.equal(reading.pixels, image)
        assert not reading.centred
    assert predictor.read(tmp_path / "a.png", centre=True).centred


def test_clothes_are_not_cut(trained: Path, tmp_path: Path) -> None:
    predictor = Predictor.load(trained / "checkpoints" / "best.ckpt", "cpu")
    predictor.handwritten = False
    sheet((140, 100, 143, 299)).save(tmp_path / "a.png")
    assert not predictor.read(tmp_path / "a.png").centred
