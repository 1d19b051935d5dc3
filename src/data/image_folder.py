"""Any folder of images with one sub-folder a class."""

from __future__ import annotations

import hashlib
import os
import re
from functools import cache
from pathlib import Path
from typing import Literal

import torch
from PIL import Image, UnidentifiedImageError

from src.config.errors import UserError
from src.config.files import check_classes
from src.config.schema import PathBelow
from src.data.images import ImageSet, Source
from src.data.photos import Paths, Photos

_SPLIT = re.compile(r"(train|test|val|dev)(ing|id|idate|idation)?[\W_]*(set|data|image|folder|split)?s?", re.IGNORECASE)
_LIKE_SPLIT = re.compile(rf"(?<![a-z]){_SPLIT.pattern}(?![a-z])", re.IGNORECASE)  # seg_train, test2017
_LEFT_BEHIND = re.compile(
    r"\..*|.*(~|\.bak)|(eh)?thumbs\.db|desktop\.ini|__macosx|@eadir|__pycache__|lost\+found|\$recycle\.bin",
    re.IGNORECASE | re.DOTALL,
)
_STUBS = {"BUFR", "GRIB", "HDF5", "MPEG", "WMF"}  # which Pillow knows and can't decode


def read_folder(data_dir: Path, source: str, folder: PathBelow = ".", channels: Literal[1, 3] = 3) -> Source:
    """List `data_dir`/`folder`: either CLASS/IMAGE, or train/CLASS/IMAGE with test and val beside it.

    No image is opened. Raises UserError if the folder is missing, is empty, has one class, or holds folders or images
    where none are expected.
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
    sets = {split: as_photos(splits[split], part, channels) for split, part in files.items()}
    return Source(sets["train"], classes, "full", sets.get("val"), sets.get("test"), passed_over(others))


def as_photos(root: Path, files: list[tuple[str, int, int]], channels: int) -> ImageSet:
    """Files below `root`: their names, sizes in bytes and labels."""
    names, _, labels = zip(*files, strict=True)
    known = "".join(
        f"{name.rpartition('/')[2]}\0{size}\n" for name, size, _ in files
    )  # what classes are called is free
    digest = hashlib.sha256(known.encode(errors="surrogateescape"))
    return ImageSet(Photos(Paths(root, names), channels, digest.hexdigest(), str(root)), torch.tensor(labels))


def list_folder(folder: Path) -> tuple[list[Path], list[Path], list[Path]]:
    """The folders, the images and the other files in a folder, by name; a link is what it leads to."""
    folders, images, others = ([folder / item.name for item in items] for items in _listed(folder))
    return folders, images, others


def passed_over(others: list[Path]) -> str:
    """What to say of files that are no images."""
    named = ", ".join([*map(str, others[:3]), *["..."][: len(others) - 3]])
    return f"{len(others):,} passed over, as no image that can be read: {named}" if others else ""


def _listed(folder: Path) -> tuple[list[os.DirEntry[str]], ...]:
    """The folders, the images and what else lies in a folder, but for what desktops, editors and file systems leave."""
    folders, images, others = list[os.DirEntry[str]](), list[os.DirEntry[str]](), list[os.DirEntry[str]]()
    try:
        with os.scandir(folder) as items:
            visible = sorted(
                (item for item in items if not _LEFT_BEHIND.fullmatch(item.name)), key=lambda item: item.name
            )
    except OSError as error:
        raise UserError(f"{folder} can't be read: {error.strerror}.") from error
    for item in visible:
        (folders if item.is_dir() else images if _is_image(item) else others).append(item)
    return folders, images, others


def _folders(folder: Path) -> list[Path]:
    return list_folder(folder)[0]


def _is_image(file: os.DirEntry[str]) -> bool:
    """Whether it is named as an image, or begins as one; what is broken is named when it is read."""
    if not file.is_file():
        return not Path(file).exists()
    if f".{file.name.rpartition('.')[2].lower()}" in _endings():
        return True
    try:
        with Image.open(file.path) as image:
            return image.format not in _STUBS
    except Exception as error:
        return not isinstance(error, UnidentifiedImageError)


@cache
def _endings() -> set[str]:
    """Of names that mean an image: others mean other files too."""
    formats = Image.registered_extensions().items()
    return {end for end, name in formats if name in Image.OPEN and Image.MIME.get(name, "").startswith("image/")}


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
    folders, images, _ = list_folder(folder)
    return bool(images) or any(_holds_images(item, depth - 1) for item in folders if depth)


def _files(place: Path, classes: list[str], others: list[Path]) -> list[tuple[str, int, int]]:
    """Each image's name below `place`, its size and its label; what is no image joins the `others`."""
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
        inner, own, rest = _listed(folder)
        if inner:
            reason = f"{folder / inner[0].name} is a folder in the class {name}"
            raise UserError(f"{reason}. Move its images up, or itself if it is a class.")
        left = [folder / item.name for item in rest]
        if not own:
            passed = f" ({passed_over(left)})" if left else ""
            raise UserError(f"{folder} holds no images{passed}. Add some, or remove that folder.")
        found += [(f"{name}/{item.name}", _bytes(item), label) for item in own]
        others += left
    if classes and not found:
        raise UserError(f"{place} holds no images. Add some, or remove that folder.")
    return found


def _bytes(file: os.DirEntry[str]) -> int:
    try:
        return file.stat().st_size
    except OSError:  # a link to nothing is told when it is read
        return 0
