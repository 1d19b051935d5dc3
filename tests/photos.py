"""Made photos of handwritten digits, and how a network reads them: python -m tests.photos CHECKPOINT DATA_DIR

DATA_DIR holds MNIST as torchvision lays it; the digits are the first 200 of the official test set.
"""

from __future__ import annotations

import io
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from PIL import Image
from scipy import ndimage

from src.data.images import ImageSet
from src.data.readers import read_torchvision
from src.model.predictor import UNSURE, Predictor

PENS = [(35, 35, 40), (90, 90, 95), (30, 50, 150), (170, 30, 40), (20, 100, 50)]  # ink, pencil, blue, red, green
PAPERS = ["plain", "lined", "squared"]


def photo(digit: np.ndarray, seed: int, width: int = 800, height: int = 600) -> bytes:
    """A JPEG of uint8 (28, 28), turned by up to 15 degrees and written anywhere on a sheet with some pen.

    A third of the sheets is lined, a third squared; one in six is a board with chalk, one in four ends on a table.
    Light comes from one side, a shadow falls, and there are specks and noise.
    """
    rng = np.random.default_rng(seed)
    paper, side = PAPERS[seed % 3], int(rng.uniform(0.25, 0.8) * height)
    large = np.asarray(Image.fromarray(digit).resize((side, side), Image.Resampling.BICUBIC), np.float32) / 255
    if seed % 2:  # a thin pen: the middle of the strokes
        large = np.clip(large, 0, 1) / ndimage.maximum_filter(large, side // 7).clip(0.5) - 0.25
    large = ndimage.rotate(large, rng.uniform(-15, 15), order=1)[: height - 20, : width - 20]
    edge, level = rng.uniform(0.05, 0.2), rng.uniform(0.3, 0.75)  # a high level: a thin pen
    ink = np.zeros((height, width), np.float32)
    top, left = (int(rng.uniform(8, 1 + free - 8)) for free in np.subtract(ink.shape, large.shape))
    ink[top : top + large.shape[0], left : left + large.shape[1]] = np.clip((large - level) / edge + 0.5, 0, 1)

    sheet = np.full((height, width, 3), rng.uniform(215, 250, 3), np.float32)
    gap, rule = int(rng.uniform(25, 60)), np.array([(150, 180, 220), (190, 190, 190), (90, 90, 95)][rng.integers(3)])
    slope, y, x = np.tan(np.radians(rng.uniform(-5, 5))), *np.mgrid[:height, :width]
    rules = np.zeros((height, width), bool)
    if paper != "plain":
        rules |= np.mod(y + slope * x, gap) < rng.uniform(1.5, 3)
    if paper == "squared":
        rules |= np.mod(x - slope * y, gap) < rng.uniform(1.5, 3)
    sheet[rules] = rule
    sheet += (np.array(PENS[rng.integers(len(PENS))]) - sheet) * ink[..., None] * rng.uniform(0.8, 1)
    if rng.random() < 1 / 6:
        sheet = 275 - sheet  # chalk on a board
    for _ in range(rng.integers(8)):
        sheet[(y - rng.integers(height)) ** 2 + (x - rng.integers(width)) ** 2 < 9] = 60
    if rng.random() < 1 / 4:
        sheet[x + slope * y < rng.uniform(5, 60)] = (70, 50, 40)

    angle = rng.uniform(0, 2 * np.pi)
    across = (np.cos(angle) * (x / width - 0.5) + np.sin(angle) * (y / height - 0.5)) * 2
    light = 0.8 + rng.uniform(0, 0.25) * across
    turn = angle + rng.uniform(-1, 1)
    far = np.cos(turn) * (x - rng.uniform(0.2, 0.8) * width) + np.sin(turn) * (y - rng.uniform(0.2, 0.8) * height)
    light *= 1 - rng.uniform(0, 0.45) / (1 + np.exp(np.clip(-far / rng.uniform(4, 60), -50, 50)))
    sheet = sheet * light[..., None] + rng.normal(0, rng.uniform(1, 9), (height, width, 1))
    file = io.BytesIO()
    blurred = ndimage.gaussian_filter(sheet, (*[rng.uniform(0.3, 1.5)] * 2, 0))
    Image.fromarray(np.clip(blurred, 0, 255).astype(np.uint8)).save(file, "jpeg", quality=int(rng.uniform(40, 95)))
    return file.getvalue()


def write_photos(digits: ImageSet, folder: Path) -> list[Path]:
    files = [folder / f"{seed:03}.jpg" for seed in range(len(digits))]
    for seed, (file, digit) in enumerate(zip(files, digits.fetch(torch.arange(len(digits)))[0], strict=True)):
        file.write_bytes(photo(digit[0].numpy(), seed))
    return files


def main(checkpoint: str, data_dir: str) -> None:
    predictor, source = Predictor.load(checkpoint, "cpu"), read_torchvision(Path(data_dir), "full", "MNIST")
    assert source.test is not None
    digits = source.test[torch.arange(200)]
    with TemporaryDirectory() as folder, ThreadPoolExecutor(2) as pool:
        files = write_photos(digits, Path(folder))
        for centre in (None, False):
            pixels = pool.map(lambda file: predictor.read(file, centre=centre).pixels, files)  # noqa: B023
            shares, answers = predictor(torch.stack(list(pixels))).max(1)
            right, unsure = answers == digits.labels, shares < UNSURE
            print(f"centre={centre}: {right.sum()} of 200 right, {(right & unsure).sum()} of them unsure;", end=" ")
            print(f"{(~right & unsure).sum()} of {(~right).sum()} wrong ones unsure", flush=True)
            print("  wrong:", *(~right).nonzero()[:, 0].tolist(), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
