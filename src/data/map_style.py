"""Any map-style data set of torch's, whose items are pairs of a Pillow image or uint8 tensor and a class number."""

from __future__ import annotations

import hashlib
import inspect
import pkgutil
import re
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image

from src.config import signature
from src.config.errors import UserError
from src.config.schema import MapStyle, Values
from src.data.decoding import decode
from src.data.fetching import Unreachable, fetch
from src.data.image_folder import as_photos
from src.data.images import ImageSet, Source
from src.data.photos import Photos


def read_map_style(
    data_dir: Path,
    source: str,
    train: MapStyle,
    valid: MapStyle | None = None,
    test: MapStyle | None = None,
    channels: Literal[1, 3] = 3,
    download: bool = True,
) -> Source:
    """Make each part by its class, which may download its files; one that takes a `loader` opens no image.

    Raises UserError if that fails, or the items are no such pairs, or the parts have other classes than train.
    """
    if source == "sample":
        raise UserError("dataset.source=sample: this data set has no packaged sample. Use auto or full.")
    sets, names = dict[str, ImageSet](), dict[str, list[str]]()
    for key, part in {"train": train, "valid": valid, "test": test}.items():
        if part:
            try:
                made = _made(part, data_dir / part.root, download)
                sets[key] = _image_set(made, data_dir / part.root, channels)
                titles = getattr(made, "classes", ())
                names[key] = [title if isinstance(title, str) else ", ".join(title) for title in titles]
            except Exception as error:  # of any library
                kind = f"{type(error).__name__}: " if isinstance(error, LookupError) else ""  # its text is a bare key
                reason = str(error).partition("\n")[0].rstrip(".")
                raise UserError(f"dataset.{key}, {part.target}: {kind}{reason}.") from error
            if names[key] != names["train"]:
                raise UserError(f"dataset.{key}: its classes are {names[key]}, and those of train {names['train']}.")
    count = max(int(part.labels.max()) for part in sets.values()) + 1
    classes = names["train"] if len(names["train"]) >= count else list(map(str, range(count)))
    return Source(sets["train"], unique(classes), "full", sets.get("valid"), sets.get("test"))


def unique(names: list[str]) -> list[str]:
    """The same names, but those that several classes have are followed by their class numbers."""
    counts = Counter(names)
    return [name if counts[name] == 1 else f"{name} ({label})" for label, name in enumerate(names)]


def _made(part: MapStyle, root: Path, download: bool) -> Any:
    """An instance of the class; raises UserError if its files are missing and can't be had."""
    own, known, new = pkgutil.resolve_name(part.target), set[str](), list[str]()
    with suppress(LookupError):
        known = {*(declared := signature.read(part.target)).parameters, *declared.computed}
    options = part.arguments() | {"root": root} | ({"loader": Path} if "loader" in known else {})
    cls = own
    if hasattr(own, "parse_archives"):  # of ImageNet, which leaves half of them where it is killed
        cls = type(own.__name__, (own,), {"parse_archives": lambda _: None})

    def missing() -> list[str]:
        with suppress(RuntimeError, OSError):
            cls(**options)
            return []
        return new or ["its files"]

    def fill(_: str, folder: Path) -> None:
        cls(**options | {"root": folder, "download": True})
        paths = [path.relative_to(folder) for path in folder.rglob("*")]
        new[:] = [str(path) for path in paths if not (root / path).exists() and (root / path).parent.exists()]

    try:
        with suppress(*[RuntimeError, OSError] * (download and "download" in known)):
            return cls(**options)
        # while a checksum of gigabytes is taken no byte comes
        fetch(root, own.__name__, missing, [f"//{part.target}"], fill, 60)
        return cls(**options)
    except (Unreachable, RuntimeError, OSError) as error:
        raise UserError(f"{str(error).partition('. ')[0].rstrip('.')}. {_wanted(own, cls, options)}") from error


def _wanted(own: Any, cls: Any, options: Values) -> str:
    """What to put where: the archives that a class's source names, and paths that an instance has and are not there."""
    blank, archives, root = cls.__new__(cls), list[str](), options["root"]
    with suppress(Exception):
        archives += dict.fromkeys(re.findall(r"[\w-][\w.-]*\.(?:tgz|tar\.gz|tar|zip|mat)\b", inspect.getsource(own)))
        blank.__init__(**options)
    paths = [Path(value) for value in vars(blank).values() if isinstance(value, str | Path)]
    places = sorted({str(path) for path in paths if root in path.parents and not path.exists()}) or [str(root)]
    files = f"{', '.join(archives)}, unpacked," if archives else "its files"
    return f"Put {files} where it looks: {', '.join(places)}"


def _image_set(made: Any, root: Path, channels: int) -> ImageSet:
    if not len(made):
        raise UserError(f"there are no images below {root}")
    image, prefix = made[0][0], f"{root.as_posix()}/"
    if isinstance(image, Path):
        pairs = (made[index] for index in range(len(made)))
        files = [(path.as_posix().removeprefix(prefix), path.stat().st_size, _number(label)) for path, label in pairs]
        return as_photos(root, files, channels)
    if not isinstance(image, Image.Image) and getattr(image, "dtype", None) != torch.uint8:
        kind = getattr(image, "dtype", type(image).__name__)
        raise UserError(f"its images are {kind}; expected Pillow images, or uint8 tensors (C, H, W)")
    labels = torch.tensor(_labels(made))
    digest = hashlib.sha256(labels.numpy().tobytes())
    for index in torch.linspace(0, len(made) - 1, 100).long().unique().tolist():
        with suppress(Exception):  # what is broken is told when it is read
            digest.update(decode(made[index][0], channels, None).numpy().tobytes())
    return ImageSet(Photos(made, channels, digest.hexdigest(), str(root)), labels)


def _labels(made: Any) -> list[int]:
    """Those of an attribute, if three images have them too; else each image is read."""
    few = {index: _number(made[index][1]) for index in (0, len(made) // 2, len(made) - 1)}
    for values in (getattr(made, name, ()) for name in ("targets", "labels", "_labels", "y")):
        with suppress(TypeError, UserError):  # of another kind
            if len(values) == len(made) and all(_number(values[index]) == label for index, label in few.items()):
                return [_number(value) for value in values]
    return [_number(made[index][1]) for index in range(len(made))]


def _number(label: Any) -> int:
    number = np.asarray(label)
    if number.size != 1 or number.dtype.kind not in "iu":
        raise UserError(f"a label is {label!r:.40}; expected a class number")
    return int(number.item())
