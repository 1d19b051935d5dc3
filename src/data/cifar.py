"""CIFAR-10 as its authors publish it: pickled batches in a tar archive."""

from __future__ import annotations

import io
import os
import pickle
import tarfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from src.config.errors import UserError
from src.config.schema import PathBelow
from src.data.download import Unreachable, fetch, locked, md5_of
from src.data.images import ImageSet, Source

TRAIN = tuple(f"data_batch_{number}" for number in range(1, 6))
TEST = ("test_batch",)
META = "batches.meta"
FILES = (META, *TRAIN, *TEST)
_LARGEST = 1 << 26  # bytes of one batch


def read_cifar10(
    data_dir: Path,
    source: str,
    folder: PathBelow,
    archive: PathBelow,
    mirrors: list[str],
    md5: dict[str, str] | None,
) -> Source:
    """Read `data_dir`/`folder`, else `data_dir`/`archive`, else download the archive there.

    Args:
        md5: file name -> checksum, of the archive and of each batch; None reads unverified files and
            downloads nothing.

    Raises:
        UserError: the files are missing and can't be had, or are not what their checksums say.
    """
    if source == "sample":
        raise UserError("dataset.source=sample: CIFAR-10 has no packaged sample. Use auto or full.")
    place = data_dir / folder
    if _missing(place):
        try:
            _provide(data_dir, place, archive, mirrors, md5)
        except Unreachable as error:
            raise UserError(f"{error} Put {archive} into {data_dir}, or its batches into {place}.") from error
    classes = _names(_load(place / META, md5), place / META)
    train, test = (_stack([place / name for name in names], md5, len(classes)) for names in (TRAIN, TEST))
    return Source(train, classes, "full", test=test)


class _Dtype:
    """What numpy's dtype(name, ...) was when the batches were pickled."""

    def __init__(self, name: str, *options: object) -> None:
        self.name = name

    def __setstate__(self, state: object) -> None:
        """Byte order and the like, of which one byte has none."""


class _Array:
    """An array of bytes as numpy pickled it, read without numpy, which can be crashed by a crafted one."""

    def __init__(self, *empty: object) -> None:
        self.values = np.empty(0, np.uint8)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, raw = state
        if not isinstance(dtype, _Dtype) or dtype.name not in ("u1", "|u1", "uint8") or fortran:
            raise pickle.UnpicklingError("it holds an array of something other than bytes, row by row")
        content = raw.encode("latin1") if isinstance(raw, str) else raw
        if not isinstance(content, bytes):  # a number would be as many bytes
            raise pickle.UnpicklingError("it holds an array without its bytes")
        self.values = np.frombuffer(content, np.uint8).reshape(shape)


def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":  # as Python 3 pickles byte strings for Python 2; others unpack without end
        raise pickle.UnpicklingError(f"it holds text in {encoding}")
    return text.encode(encoding)


class _ArraysOnly(pickle._Unpickler):
    """Loads arrays of bytes and plain values, and nothing that a pickle could run.

    In Python: the one in C takes gigabytes when a few bytes tell it to.
    """

    def find_class(self, module: str, name: str) -> Any:
        # functions of this call: a pickle can set attributes of what it names
        known = {
            ("multiarray", "_reconstruct"): lambda *empty: _Array(*empty),
            ("numpy", "ndarray"): None,
            ("numpy", "dtype"): lambda *options: _Dtype(*options),
            ("_codecs", "encode"): lambda *options: _encode(*options),
        }
        # what the package was called when the batches were pickled, and what it is today
        asked = (module.removeprefix("numpy.core.").removeprefix("numpy._core."), name)
        if asked not in known:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return known[asked]


def _missing(place: Path) -> list[str]:
    return [name for name in FILES if not (place / name).exists()]


def _provide(data_dir: Path, place: Path, archive: str, mirrors: list[str], md5: dict[str, str] | None) -> None:
    with locked(data_dir):
        if not _missing(place):
            return  # another job unpacked it while this one waited
        if (data_dir / archive).exists():
            _verify(data_dir / archive, md5)
        else:
            if not mirrors or md5 is None:
                raise Unreachable(f"{archive} is not in {data_dir} and no mirror is named.")
            fetch([archive], data_dir, mirrors, md5, lambda name, part: part.replace(data_dir / name))
        _extract(data_dir / archive, place)


def _extract(archive: Path, place: Path) -> None:
    """Write the known members of the archive, whatever paths it names, each whole or not at all."""
    temporary = place / f".{os.getpid()}.part"
    try:
        place.mkdir(parents=True, exist_ok=True)
        with tarfile.open(archive) as tar:
            for member in tar:
                name = member.name.rpartition("/")[2]
                if name in FILES and member.isfile() and member.size <= _LARGEST:
                    file = tar.extractfile(member)
                    assert file is not None
                    temporary.write_bytes(file.read())
                    temporary.replace(place / name)
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise UserError(f"{archive} can't be unpacked: {error}. Delete it to have it downloaded again.") from error
    finally:
        temporary.unlink(missing_ok=True)
    if missing := _missing(place):
        raise UserError(f"{archive} lacks {', '.join(missing)}. Delete it to have it downloaded again.")


def _verify(path: Path, md5: dict[str, str] | None) -> None:
    if md5 is not None and (found := md5_of(path)) != md5.get(path.name):
        expected = md5.get(path.name)
        raise UserError(
            f"{path} has the wrong checksum: {found} instead of {expected}. Delete it to have it downloaded again."
        )


def _load(path: Path, md5: dict[str, str] | None) -> dict[str, Any]:
    _verify(path, md5)
    try:
        content = _ArraysOnly(io.BytesIO(path.read_bytes()), encoding="latin1").load()
    except Exception as error:  # damaged pickles raise errors of every kind
        raise UserError(f"{path} is not a CIFAR-10 batch: {error}. Delete it to have it downloaded again.") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a CIFAR-10 batch: it holds a {type(content).__name__}.")
    return {key: value.values if isinstance(value, _Array) else value for key, value in content.items()}


def _names(content: dict[str, Any], path: Path) -> list[str]:
    names = content.get("label_names")
    if not isinstance(names, list) or len(names) < 2:
        raise UserError(f"{path} has no list of class names.")
    return [str(name) for name in names]


def _stack(paths: list[Path], md5: dict[str, str] | None, num_classes: int) -> ImageSet:
    images, labels = [], []
    for path in paths:
        batch = _load(path, md5)
        pixels = np.asarray(batch.get("data"))
        answers = np.asarray(batch.get("labels"))
        if pixels.dtype != np.uint8 or pixels.ndim != 2 or pixels.shape[1] != 3 * 32 * 32 or not len(pixels):
            raise UserError(f"{path}: data of shape {pixels.shape}, {pixels.dtype}; expected (N, 3072), uint8.")
        if answers.shape != (len(pixels),) or answers.dtype.kind != "i":
            raise UserError(f"{path}: {len(pixels)} images but labels of shape {answers.shape}.")
        if not 0 <= answers.min() <= answers.max() < num_classes:
            wrong = answers[(answers < 0) | (answers >= num_classes)][0]
            raise UserError(f"{path}: label {wrong}, but the classes are 0 to {num_classes - 1}.")
        images.append(torch.from_numpy(pixels.reshape(-1, 3, 32, 32).copy()))
        labels.append(torch.from_numpy(answers).long())
    return ImageSet(torch.cat(images), torch.cat(labels))
