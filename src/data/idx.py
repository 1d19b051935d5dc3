"""MNIST's file format, IDX, and the data sets that come in it."""

from __future__ import annotations

import gzip
import hashlib
import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from src.config.errors import UserError
from src.config.schema import PathBelow
from src.data.download import Unreachable, fetch, locked, md5_of
from src.data.images import ImageSet, Source
from src.data.sample import read_mnist_sample

FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
_LARGEST = 1 << 30  # bytes of one unpacked file


def read_idx(
    data_dir: Path,
    source: str,
    folder: PathBelow,
    classes: list[str],
    mirrors: list[str],
    md5: dict[str, str] | None,
    sample: str | None = None,
) -> Source:
    """Read four IDX files from `data_dir`/`folder`, plain or gzipped, or download them there.

    Args:
        md5: file name -> checksum, of the plain and the gzipped (.gz) files; None reads unverified files
            and downloads nothing.
        sample: "mnist" where a packaged sample stands in, if there are no files and no network.

    Raises:
        UserError: a file is missing and can't be had, or is not what its name and checksum say.
    """
    place = data_dir / folder
    if source == "sample":
        if sample is None:
            raise UserError("dataset.source=sample: this data set has no packaged sample. Use auto or full.")
        return read_mnist_sample()
    if _missing(place):
        try:
            _download(place, mirrors if md5 else [], md5 or {})
        except Unreachable as error:
            if source == "auto" and sample:
                return read_mnist_sample()
            wanted = ", ".join(_missing(place))
            raise UserError(f"{error} Put {wanted} (plain or .gz) into {place}.") from error
    parts = {name: _read(place, name, md5) for name in FILES}
    train, test = (_pair(place, parts, prefix, len(classes)) for prefix in ("train", "t10k"))
    return Source(train, classes, "full", test=test)


def parse_idx(content: bytes, name: str) -> Tensor:
    """The uint8 array that an IDX file holds, in its own shape.

    The format: two zero bytes, a type (8 is uint8), the number of dimensions, each dimension as a
    big-endian 32-bit number, then the values (http://yann.lecun.com/exdb/mnist/).

    Raises:
        UserError: not this format, or more or fewer bytes than it announces.
    """
    advice = "Delete it to have it downloaded again."
    if len(content) < 4:
        raise UserError(f"{name} is empty or truncated: {len(content)} bytes. {advice}")
    if content[:3] != b"\x00\x00\x08" or content[3] not in (1, 3):
        raise UserError(f"{name} is not an IDX file of bytes: it starts with {content[:4].hex()}. {advice}")
    rank = content[3]
    start = 4 + 4 * rank
    shape = struct.unpack(f">{rank}I", content[4:start]) if len(content) >= start else ()
    expected = start + int(np.prod(shape, dtype=object)) if shape else start
    if len(content) != expected:
        raise UserError(f"{name} is truncated or too long: {len(content)} bytes instead of {expected}. {advice}")
    return torch.from_numpy(np.frombuffer(bytearray(content), np.uint8, offset=start).reshape(shape))


def _missing(place: Path) -> list[str]:
    return [name for name in FILES if not (place / name).exists() and not (place / f"{name}.gz").exists()]


def _download(place: Path, mirrors: list[str], md5: dict[str, str]) -> None:
    if not mirrors:
        raise Unreachable("the files are not there and no mirror is named.")

    def store(archive: str, temporary: Path) -> None:
        plain = temporary.with_suffix(".plain")
        try:
            plain.write_bytes(_unpack(temporary))
            plain.replace(place / archive.removesuffix(".gz"))
        finally:
            plain.unlink(missing_ok=True)

    with locked(place):
        # another job may have fetched them while this one waited
        fetch([f"{name}.gz" for name in _missing(place)], place, mirrors, md5, store)


def _read(place: Path, name: str, md5: dict[str, str] | None) -> Tensor:
    path = place / name
    if not path.exists():
        path = place / f"{name}.gz"
    known = {} if md5 is None else md5
    try:
        # an archive that someone packed anew has another checksum, and must hold the same bytes
        trusted = path.suffix == ".gz" and md5_of(path) == known.get(path.name)
        content = _unpack(path) if path.suffix == ".gz" else path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror or error}.") from error
    found = hashlib.md5(content).hexdigest()
    if not trusted and md5 is not None and found != known.get(name):
        size = f"{len(content)} bytes"
        raise UserError(
            f"{path} has the wrong checksum: {found} instead of {known.get(name)} ({size}). "
            "Delete it to have it downloaded again."
        )
    return parse_idx(content, str(path))


def _unpack(path: Path) -> bytes:
    try:
        with gzip.open(path) as file:
            content = file.read(_LARGEST + 1)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{path} is not a whole gzip file: {error}. Delete it to have it downloaded again.") from error
    if len(content) > _LARGEST:
        raise UserError(f"{path} unpacks to more than {_LARGEST} bytes. Delete it to have it downloaded again.")
    return content


def _pair(place: Path, parts: dict[str, Tensor], prefix: str, num_classes: int) -> ImageSet:
    images, labels = parts[f"{prefix}-images-idx3-ubyte"], parts[f"{prefix}-labels-idx1-ubyte"]
    if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels) or not images.numel():
        shapes = f"{tuple(images.shape)} and {tuple(labels.shape)}"
        raise UserError(f"{place}: the {prefix} images and labels don't belong together: shapes {shapes}.")
    if int(labels.max()) >= num_classes:
        raise UserError(f"{place}: a {prefix} label is {int(labels.max())}, but there are {num_classes} classes.")
    return ImageSet(images.unsqueeze(1), labels.long())
