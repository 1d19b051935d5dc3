"""CIFAR-10 as a folder of JPEGs of quality 75, from the genuine files: python -m benchmarks.jpeg

Writes DATA_DIR/cifar10-jpeg/{train,test}/CLASS/NNNN.jpg, which `dataset=cifar10_jpeg` reads.
"""

from __future__ import annotations

import argparse
import shutil
from collections import Counter
from pathlib import Path

from PIL import Image

from benchmarks.records import explained
from src.config.check import check
from src.config.compose import compose, register
from src.config.errors import UserError
from src.config.schema import TrainConfig
from src.data.images import ImageSet
from src.model.build import read_images

QUALITY = 75


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.jpeg", description=__doc__)
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="where CIFAR-10 lies or is downloaded to")
    options = parser.parse_args()
    with explained():
        print(write(options.data_dir))


def write(data_dir: Path, *more: str) -> Path:
    """The folder, which gets its name when all images are in it; `more` are overrides of the data set.

    Raises:
        UserError: it is there already, or CIFAR-10 can't be had.
    """
    folder = data_dir / "cifar10-jpeg"
    if folder.exists():
        raise UserError(f"{folder} is there already. Move it away to have it written anew.")
    register()
    config = check(compose("train", None, ["dataset=cifar10", "dataset.source=full", *more]), TrainConfig)
    source = read_images(config.dataset, str(data_dir))
    assert source.test is not None
    temporary = folder.with_suffix(".part")
    shutil.rmtree(temporary, ignore_errors=True)
    for name, images in (("train", source.train), ("test", source.test)):
        save(images, [temporary / name / word for word in source.classes])
    return temporary.rename(folder)


def save(images: ImageSet, places: list[Path]) -> None:
    """Each image into the folder of its class, numbered in the order of the files."""
    for place in places:
        place.mkdir(parents=True)
    counts: Counter[int] = Counter()
    for pixels, label in zip(images.images, images.labels.tolist(), strict=True):
        path = places[label] / f"{counts[label]:04}.jpg"
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(path, quality=QUALITY)
        counts[label] += 1


if __name__ == "__main__":
    main()
