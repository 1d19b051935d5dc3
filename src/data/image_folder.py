"""Any folder of images with one sub-folder a class, and one file of it, the same in training and prediction."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import ExifTags, Image, UnidentifiedImageError

from src.config.errors import UserError
from src.config.files import check_classes
from src.config.schema import Fit, PathBelow
from src.data.images import ImageSet, Source
from src.data.pixels import as_pixels, orientation

LARGEST_SIDE = 256  # pixels; the network sees 227, and all images are held in memory
_SPLIT = re.compile(r"(train|test|val|dev)(ing|id|idate|idation)?[\W_]*(set|data|image|folder|split)?s?", re.IGNORECASE)
_LIKE_SPLIT = re.compile(rf"(?<![a-z]){_SPLIT.pattern}(?![a-z])", re.IGNORECASE)  # seg_train, test2017
_LEFT_BEHIND = re.compile(
    r"\..*|.*(~|\.bak)|(eh)?thumbs\.db|desktop\.ini|__macosx|@eadir|__pycache__|lost\+found|\$recycle\.bin",
    re.IGNORECASE | re.DOTALL,
)
_FITTED = {"crop": "cut to the middle square", "pad": "padded to a square", "stretch": "stretched to a square"}
_STUBS = {"BUFR", "GRIB", "HDF5", "MPEG", "WMF"}  # which Pillow knows and can't decode
_ORIENTED_PNG = re.compile(rb"eXIf|Raw profile type exif|XML:com\.adobe\.xmp")


def read_folder(
    data_dir: Path, source: str, folder: PathBelow = ".", channels: Literal[1, 3] = 3, fit: Fit = "crop"
) -> Source:
    """Read `data_dir`/`folder`: either CLASS/IMAGE, or train/CLASS/IMAGE with test and val beside it.

    Images of one size keep it, up to LARGEST_SIDE; others become squares of the side that half of them reach, by
    their shorter sides where they are cut. Raises UserError if the folder is missing, is empty, has one class, or holds
    folders or images where none are expected.
    """
    root = data_dir / folder
    if source == "sample":
        raise UserError("dataset.source=sample: a folder of images has no packaged sample. Use auto or full.")
    check_classes(root)
    splits = _splits(root)
    classes = [item.name for item in _folders(splits["train"])]
    others: list[Path] = []
    files = {split: _files(place, classes, others) for split, place in splits.items()}
    if len(classes) < 2:
        found = f"only the class {classes[0]}" if classes else "no sub-folder"
        raise UserError(f"{splits['train']} holds {found}. Images are expected in one sub-folder a class, two or more.")
    with ThreadPoolExecutor() as pool:
        sizes = list(pool.map(_size, (path for part in files.values() for path, _ in part)))
    same = len(set(sizes)) == 1 and max(sizes[0]) <= LARGEST_SIDE and (fit != "pad" or len({*sizes[0]}) == 1)
    side = min(sorted(map(min if fit == "crop" else max, sizes))[len(sizes) // 2], LARGEST_SIDE)
    size = sizes[0] if same else (side, side)
    sets = {split: _load(part, channels, size, fit) for split, part in files.items()}
    lost = 0 if same or fit != "crop" else sum(3 * min(size) < 2 * max(size) for size in sizes)
    much = f"{lost:,} of {len(sizes):,} images lose more than a third to the cut; dataset.fit=pad keeps them whole."
    note = "\n       ".join(filter(None, [much if 10 * lost > len(sizes) else "", passed_over(others)]))
    fitted = "" if same or all(width == height for width, height in sizes) else _FITTED[fit]
    return Source(sets["train"], classes, "full", sets.get("val"), sets.get("test"), note, fitted)


def read_image(path: Path, channels: int, size: tuple[int, int] | None, fit: Fit = "crop") -> np.ndarray:
    """A file's `as_pixels`. Raises UserError if it is no image, or broken."""
    with _opened(path) as image:
        return as_pixels(image, channels, size, str(path), fit)


def list_folder(folder: Path) -> tuple[list[Path], list[Path], list[Path]]:
    """The folders, the images and the other files in a folder, by name; a link is what it leads to."""
    items = _visible(folder)
    folders, images = [item for item in items if item.is_dir()], [item for item in items if _is_image(item)]
    return folders, images, sorted({*items} - {*folders, *images})


def passed_over(others: list[Path]) -> str:
    """What to say of files that are no images."""
    named = ", ".join([*map(str, others[:3]), *["..."][: len(others) - 3]])
    return f"{len(others):,} passed over, as no image that can be read: {named}" if others else ""


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """An image whose pixels are not yet read. Raises UserError for whatever is wrong with it, then or in the block."""
    try:
        with path.open("rb") as file, Image.open(file) as image:  # of a path, Pillow maps a turned TIFF awry
            yield image
    except UserError:
        raise
    except Exception as error:  # damaged files raise errors of every kind
        reason = f" is a broken image: {str(error).rstrip('.') or type(error).__name__}"
        if isinstance(error, UnidentifiedImageError):
            reason = ": no image that can be read"
        elif isinstance(error, OSError) and error.filename:
            reason = f" can't be opened: {error.strerror}"
        raise UserError(f"{path}{reason}. Replace or remove it.") from error


def _visible(folder: Path) -> list[Path]:
    """What lies in a folder, by name, without what desktops, editors and file systems leave behind."""
    try:
        return sorted(item for item in folder.iterdir() if not _LEFT_BEHIND.fullmatch(item.name))
    except OSError as error:
        raise UserError(f"{folder} can't be read: {error.strerror}.") from error


def _folders(folder: Path) -> list[Path]:
    return [item for item in _visible(folder) if item.is_dir()]


def _is_image(file: Path) -> bool:
    """Whether it is named as an image, or begins as one; what is broken is named when it is read."""
    if not file.is_file():
        return not file.exists()
    format = Image.registered_extensions().get(file.suffix.lower(), "")
    if format in Image.OPEN and Image.MIME.get(format, "").startswith("image/"):  # other names mean other files too
        return True
    try:
        with Image.open(file) as image:
            return image.format not in _STUBS
    except Exception as error:
        return not isinstance(error, UnidentifiedImageError)


def _splits(root: Path) -> dict[str, Path]:
    """The folders of "train", "val" and "test" in any usual spelling, or `root` as "train" if it holds the classes."""
    folders, splits = _folders(root), dict[str, Path]()
    matches = [(match, folder) for folder in folders if (match := _SPLIT.fullmatch(folder.name))]
    named = [(match[1].lower().replace("dev", "val"), folder) for match, folder in matches]
    named.sort(key=lambda item: item[0] != "train")  # whose classes are looked at first
    # a folder train without folders in it is a class that is called so
    if not any(split == "train" and _folders(folder) for split, folder in named):
        alike = [(match[1].lower(), folder) for folder in folders if (match := _LIKE_SPLIT.search(folder.name))]
        unsorted = len(alike) == len(folders) and (len(dict(alike)) > 1 or len(named) == len(folders))
        if folders and (unsorted or any(_folders(folder) for _, folder in alike) or all(map(_folders, folders))):
            found = ", ".join([*(folder.name for folder in folders[:5]), *["..."][: len(folders) - 5]])
            advice = "Rename those of training, validation and test to train, val and test, with a sub-folder a class"
            reason = f"{root} holds {found}, and no train/CLASS/IMAGE"
            advice += ", or set data_dir to the folder of these or of the classes, which hold their images directly"
            raise UserError(f"{reason}. {advice}.")
        return {"train": root}
    for split, folder in named:
        if split in splits:
            raise UserError(f"{splits[split]} and {folder} both hold {split} images. Merge them, or move one away.")
        splits[split] = folder
    for folder in folders:
        if folder not in splits.values() and folder.name != "logs" and _holds_images(folder):  # logs: of runs
            reason = f"{folder} holds images, and is neither train, val nor test"
            advice = f"if {splits['train'].name} is a class as well, move its images up"
            raise UserError(f"{reason}. Rename it to one of these, or move it away; {advice}.")
    return splits


def _holds_images(folder: Path, depth: int = 2) -> bool:
    """Itself, or a folder up to `depth` below it."""
    items = _visible(folder)
    inner = [item for item in items if item.is_dir()] if depth else []
    return any(map(_is_image, items)) or any(_holds_images(item, depth - 1) for item in inner)


def _files(place: Path, classes: list[str], others: list[Path]) -> list[tuple[Path, int]]:
    """Each image's path and label; what is no image joins the `others`."""
    found = []
    folders, images, more = list_folder(place)
    others += more
    if images:
        raise UserError(f"{images[0]} lies beside the class folders. Move it into that of its class, or away.")
    for item in folders:
        if item.name not in classes:
            raise UserError(f"{item}: this class has no training images. The classes are {', '.join(classes)}.")
    for label, name in enumerate(classes):
        folder = place / name
        if not folder.is_dir():  # validation and test may lack a class
            continue
        inner, images, more = list_folder(folder)
        if inner:
            reason = f"{inner[0]} is a folder in the class {name}"
            raise UserError(f"{reason}. Move its images up, or itself if it is a class.")
        if not images:
            passed = f" ({passed_over(more)})" if more else ""
            raise UserError(f"{folder} holds no images{passed}. Add some, or remove that folder.")
        found += [(path, label) for path in images]
        others += more
    if classes and not found:
        raise UserError(f"{place} holds no images. Add some, or remove that folder.")
    return found


def _size(path: Path) -> tuple[int, int]:
    """Width and height of an image as it is shown; its pixels are not decoded."""
    with _opened(path) as image:
        # Pillow decodes a PNG to look for EXIF behind its pixels, and gives a TIFF's size as it is turned by its tag
        plain = image.format == "PNG" and not _ORIENTED_PNG.search(path.read_bytes())
        turned = ExifTags.Base.Orientation in getattr(image, "tag_v2", {})
        return image.size if plain or turned or orientation(image) not in (5, 6, 7, 8) else image.size[::-1]


def _load(files: list[tuple[Path, int]], channels: int, size: tuple[int, int], fit: Fit) -> ImageSet:
    pixels = np.empty((len(files), channels, size[1], size[0]), np.uint8)
    with ThreadPoolExecutor() as pool:
        for index, image in enumerate(pool.map(lambda file: read_image(file[0], channels, size, fit), files)):
            pixels[index] = image
    return ImageSet(torch.from_numpy(pixels), torch.tensor([label for _, label in files]))
