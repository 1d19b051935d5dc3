"""CIFAR-10 as JPEGs, DATA_DIR/cifar10-jpeg/{train,test}/CLASS/NNNN.jpg of quality 75: python -m benchmarks.jpeg"""

import argparse
import shutil
from collections import Counter
from pathlib import Path

from torchvision.datasets import CIFAR10


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.jpeg", description=__doc__)
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="where CIFAR-10 lies or is downloaded to")
    folder = parser.parse_args().data_dir / "cifar10-jpeg"
    if folder.exists():
        parser.error(f"{folder} is there already. Move it away to have it written anew.")
    try:
        print(write(folder))
    except (OSError, RuntimeError) as error:
        parser.error(f"CIFAR-10 can't be had: {error}")


def write(folder: Path) -> Path:
    """The folder, which gets its name when all images are in it, numbered in the order of the files."""
    temporary = folder.with_suffix(".part")
    shutil.rmtree(temporary, ignore_errors=True)
    for part in ("train", "test"):
        images = CIFAR10(str(folder.parent), train=part == "train", download=True)
        counts: Counter[int] = Counter()
        for image, label in images:
            path = temporary / part / images.classes[label] / f"{counts[label]:04}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            image.save(path, quality=75)
            counts[label] += 1
    return temporary.rename(folder)


if __name__ == "__main__":
    main()
