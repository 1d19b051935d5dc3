"""Labelled images in memory, and how they are cut into training, validation and test sets."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from src.config.errors import UserError

TEST_FRACTION = 0.1  # of images that come without a test set of their own
FIXED_SEED = 0  # so that runs with other seeds are tested on the same images, and have the same few to learn from


@dataclass(frozen=True)
class ImageSet:
    """N images with `labels` int64 (N,) in a `store` uint8 (M, C, H, W) that other sets share, so that no cut copies.

    `indices` int64 (N,) says where in the store each lies, None that the store is theirs in its order.
    """

    store: Tensor
    labels: Tensor
    indices: Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, indices: Tensor | list[int]) -> ImageSet:
        return ImageSet(self.store, self.labels[indices], self._stored(torch.arange(len(self)))[indices])

    @property
    def shape(self) -> torch.Size:
        """(N, C, H, W)"""
        return torch.Size([len(self), *self.store.shape[1:]])

    @property
    def chance(self) -> float:
        """The accuracy of the one answer that is right most often."""
        return float(self.labels.bincount().max() / len(self))

    @property
    def images(self) -> Tensor:
        """uint8 (N, C, H, W), a copy if the store holds others too: for the few, not for a data set."""
        return self.store if self.indices is None else self.store[self.indices]

    def fetch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """A batch, uint8 (B, C, H, W) and int64 (B,), in one indexing call."""
        return self.store[self._stored(indices)], self.labels[indices]

    def _stored(self, indices: Tensor) -> Tensor:
        return indices if self.indices is None else self.indices[indices]


@dataclass(frozen=True)
class Source:
    """What a reader found; `origin` is "full", or "sample" for a part whose score is no score of the data set.

    `fitted` is how images of many shapes were brought to one, if they were, `note` what else its reader must know.
    """

    train: ImageSet
    classes: list[str]
    origin: str
    valid: ImageSet | None = None
    test: ImageSet | None = None
    note: str = ""
    fitted: str = ""


@dataclass(frozen=True)
class Splits:
    train: ImageSet
    valid: ImageSet
    test: ImageSet
    classes: list[str]
    origin: str
    note: str = ""
    fitted: str = ""

    def named(self, split: str) -> ImageSet:
        return {"train": self.train, "val": self.valid, "test": self.test}[split]

    @property
    def stores(self) -> dict[int, Tensor]:
        """Each once, by its address."""
        return {images.store.data_ptr(): images.store for images in (self.train, self.valid, self.test)}

    @property
    def nbytes(self) -> int:
        return sum(store.nbytes for store in self.stores.values())

    def to(self, device: torch.device) -> Splits:
        """The same on `device`, with stores that stay shared."""
        moved = {key: store.to(device) for key, store in self.stores.items()}

        def move(images: ImageSet) -> ImageSet:
            indices = None if images.indices is None else images.indices.to(device)
            return ImageSet(moved[images.store.data_ptr()], images.labels.to(device), indices)

        return replace(self, train=move(self.train), valid=move(self.valid), test=move(self.test))


def has_dark_background(images: ImageSet) -> bool:
    """Whether nearly all images are grey with an edge that is black, as MNIST's and Fashion-MNIST's are."""
    if images.shape[1] != 1:
        return False
    few = images[torch.linspace(0, len(images) - 1, min(len(images), 500)).round().long()].images[:, 0]
    edges = torch.cat([few[:, 0], few[:, -1], few[:, :, 0], few[:, :, -1]], dim=1)  # (N, pixels)
    return float((edges.median(1).values < 32).float().mean()) > 0.9


def checksum(splits: Splits) -> str:
    """SHA-256 of all pixels and labels and of the way in which they are cut, in hexadecimal."""
    digest, parts = hashlib.sha256(), (splits.train, splits.valid, splits.test)
    cuts = [tensor for part in parts for tensor in (part.labels, part.indices) if tensor is not None]
    for tensor in [*splits.stores.values(), *cuts]:
        digest.update(repr(tuple(tensor.shape)).encode())
        digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()


def limited(source: Source, count: int) -> Source:
    """The same with `count` of its training images, the same for every seed; raises UserError if there are fewer."""
    source = _with_test(source)
    return replace(source, train=source.train[stratified(source.train.labels, count)])


def stratified(labels: Tensor, count: int) -> Tensor:
    """Indices of `count` images, always the same, each class by its share; raises UserError if there are fewer."""
    if not 0 < count <= len(labels):
        raise UserError(f"{count} training images: expected a number from 1 to {len(labels)}, which there are.")
    return _cut(labels, count / len(labels), len(labels), FIXED_SEED)[1]


def split(source: Source, valid_fraction: float, seed: int) -> Splits:
    """Cut the validation set by `seed`, each class by its share, as `valid_fraction` of all images but official tests.

    Raises UserError if a class has too few images to stand in each set.
    """
    total, source = len(source.train), _with_test(source)
    train, valid, test = source.train, source.valid, source.test
    if valid is None:
        rest, chosen = _cut(train.labels, valid_fraction, total, seed)
        train, valid = train[rest], train[chosen]
    present = torch.bincount(train.labels, minlength=len(source.classes))
    if not valid or not test or int(present.min()) == 0:
        few = source.classes[int(present.argmin())]
        kept = f"{total} images are too few for three sets; class {few} keeps {int(present.min())} for training"
        raise UserError(f"dataset.valid_fraction={valid_fraction}: {kept}. Add images or change it.")
    return Splits(train, valid, test, source.classes, source.origin, source.note, source.fitted)


def _with_test(source: Source) -> Source:
    """The same with a test set: its own, or a tenth of all images, the same for every seed."""
    if source.test is not None:
        return source
    rest, chosen = _cut(source.train.labels, TEST_FRACTION, len(source.train), FIXED_SEED)
    return replace(source, train=source.train[rest], test=source.train[chosen])


def _cut(labels: Tensor, fraction: float, total: int, seed: int) -> tuple[Tensor, Tensor]:
    """Indices of the rest and of the chosen part, `fraction` * `total` images, stratified by class: each gives its
    exact share rounded down, and those still missing come from the classes with the largest remainders."""
    counts = torch.bincount(labels)
    share = counts.double() * fraction * total / len(labels)
    take = share.floor().long()
    missing = round(fraction * total) - int(take.sum())
    take[(share - take).argsort(descending=True, stable=True)[: max(missing, 0)]] += 1
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    classes = order[labels[order].argsort(stable=True)].split(counts.tolist())  # each shuffled
    pairs = [indices.tensor_split([count]) for indices, count in zip(classes, take.tolist(), strict=True)]
    chosen, rest = (torch.cat(parts).sort().values for parts in zip(*pairs, strict=True))
    return rest, chosen
