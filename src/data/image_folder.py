"""Any folder of images with one sub-folder a class, and one file as pixels, the same in training and prediction."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from src.config.errors import UserError
from src.config.schema import PathBelow
from src.data.images import ImageSet, Source

MODES = {1: "L", 3: "RGB"}  # by channels
LARGEST_SIDE = 256  # pixels; the network sees 227, and all images are held in memory
_SPLITS = {"train": "train", "validation": "valid", "valid": "valid", "val": "valid", "test": "test"}  # by folder
_BROKEN = (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError)


def read_folder(data_dir: Path, source: str, folder: PathBelow = ".", channels: Literal[1, 3] = 3) -> Source:
    """Read `data_dir`/`folder`: either CLASS/IMAGE, or train/CLASS/IMAGE with test and val beside it.

    Images of one size keep it, up to LARGEST_SIDE; others become squares of the side that half of them reach. Raises
    UserError if the folder is missing, is empty, has one class, or holds something that is no image.
    """
    root = data_dir / folder
    if source == "sample":
        raise UserError("dataset.source=sample: a folder of images has no packaged sample. Use auto or full.")
    if not root.is_dir():
        raise UserError(f"{root}: there is no such folder. Set data_dir to a folder with one sub-folder a class.")
    splits = {_SPLITS[item.name]: item for item in _visible(root) if item.is_dir() and item.name in _SPLITS}
    splits = splits if "train" in splits else {"train": root}
    classes = [item.name for item in _visible(splits["train"]) if item.is_dir()]
    if len(classes) < 2:
        found = f"only the class {classes[0]}" if classes else "no sub-folder"
        raise UserError(f"{splits['train']} holds {found}. Images are expected in one sub-folder a class, two or more.")
    files = {split: _files(place, classes) for split, place in splits.items()}
    with ThreadPoolExecutor() as pool:
        sizes = list(pool.map(_size, (path for part in files.values() for path, _ in part)))
    same = len(set(sizes)) == 1 and max(sizes[0]) <= LARGEST_SIDE
    side = min(sorted(map(min, sizes))[len(sizes) // 2], LARGEST_SIDE)
    size = sizes[0] if same else (side, side)
    sets = {split: _load(part, channels, size) for split, part in files.items()}
    return Source(sets["train"], classes, "full", sets.get("valid"), sets.get("test"))


def read_image(path: Path, channels: int, size: tuple[int, int]) -> np.ndarray:
    """An image as uint8 (C, H, W) of the `size` (width, height): its largest middle part of that shape, resized.

    What is transparent becomes white. Raises UserError if it is no image, or a broken one.
    """
    with _open(path) as image:
        try:
            return as_pixels(ImageOps.exif_transpose(image), channels, size, str(path))
        except _BROKEN as error:
            raise UserError(f"{path} is a broken image: {error}. Replace or remove it.") from error


def as_pixels(image: Image.Image, channels: int, size: tuple[int, int], name: str = "the image") -> np.ndarray:
    """The same of an image in memory; `name` is what an error calls it."""
    if channels not in MODES:
        raise UserError(f"{name}: files are read as 1 channel (grey) or 3 (colour), and this network takes {channels}.")
    if image.mode == "F":
        raise UserError(f"{name}: its pixels are decimal numbers, whose range nobody knows. Save it with 8 or 16 bits.")
    if image.mode.startswith("I"):  # 16 bits, which Pillow would cut off at 255
        image = Image.fromarray((np.asarray(image).astype(np.int64).clip(0, 65535) >> 8).astype(np.uint8))
    if image.has_transparency_data:  # what lies below transparent pixels is often black
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    image = image.convert(MODES[channels])
    if image.size != size:  # ImageOps.fit would begin between two pixels
        width = min(image.width, image.height * size[0] / size[1])
        height = min(image.height, image.width * size[1] / size[0])
        left, top = (image.width - width) // 2, (image.height - height) // 2
        image = image.resize(size, Image.Resampling.BILINEAR, (left, top, left + width, top + height))
    return np.asarray(image).reshape(size[1], size[0], channels).transpose(2, 0, 1)


def _open(path: Path) -> Image.Image:
    try:  # the pixels are not yet read
        return Image.open(path)
    except _BROKEN as error:
        reason = "no image that can be read" if isinstance(error, UnidentifiedImageError) else error
        raise UserError(f"{path}: {reason}. Replace or remove it.") from error


def _visible(folder: Path) -> list[Path]:
    """What lies in a folder, by name, without the files that desktops leave behind."""
    hidden = {"thumbs.db", "desktop.ini", "__macosx"}
    return sorted(item for item in folder.iterdir() if item.name[0] != "." and item.name.lower() not in hidden)


def _files(place: Path, classes: list[str]) -> list[tuple[Path, int]]:
    """Each image's path and label."""
    found = []
    for item in _visible(place):
        if not item.is_dir():
            raise UserError(f"{item} lies beside the class folders. Move it into one of them, or away.")
        if item.name not in classes:
            raise UserError(f"{item}: this class has no training images. The classes are {', '.join(classes)}.")
    for label, name in enumerate(classes):
        images = _visible(place / name) if (place / name).is_dir() else []
        if not images:
            raise UserError(f"{place / name} holds no images. Add some, or remove the class.")
        found += [(path, label) for path in images]
    return found


def _size(path: Path) -> tuple[int, int]:
    with _open(path) as image:
        return image.size


def _load(files: list[tuple[Path, int]], channels: int, size: tuple[int, int]) -> ImageSet:
    pixels = np.empty((len(files), channels, size[1], size[0]), np.uint8)
    with ThreadPoolExecutor() as pool:
        for index, image in enumerate(pool.map(lambda file: read_image(file[0], channels, size), files)):
            pixels[index] = image
    return ImageSet(torch.from_numpy(pixels), torch.tensor([label for _, label in files]))
