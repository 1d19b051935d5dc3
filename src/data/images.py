"""Labelled images, in memory or decoded when they are fetched, and the three sets of a run."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from src.data.decoding import BrokenImage, Cut, resized
from src.data.photos import Photos

FIXED_SEED = 0  # so that runs with other seeds are tested on the same images, and have the same few to learn from


@dataclass(frozen=True)
class ImageSet:
    """N images with `labels` int64 (N,) in a `store` that other sets share, so that no cut copies: uint8 (M, C, H, W),
    or photos that are decoded when they are fetched.

    `indices` int64 (N,) says where in the store each lies, None that the store is theirs in its order. `broken` bool
    (M,), in memory that processes share, says what of the store can't be read and is replaced; None makes it an error.
    `photos` are those that a store in memory was decoded from.
    """

    store: Tensor | Photos
    labels: Tensor
    indices: Tensor | None = None
    broken: Tensor | None = None
    photos: Photos | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, indices: Tensor | list[int]) -> ImageSet:
        return replace(self, labels=self.labels[indices], indices=self._stored(torch.arange(len(self)))[indices])

    @property
    def shape(self) -> torch.Size:
        """(N, C, H, W)"""
        return torch.Size([len(self), *self.store.shape[1:]])

    @property
    def nbytes(self) -> int:
        """Of all, once they are decoded."""
        return self.shape.numel()

    @property
    def chance(self) -> float:
        """The accuracy of the one answer that is right most often."""
        return float(self.labels.bincount().max() / len(self))

    @property
    def images(self) -> Tensor:
        """uint8 (N, C, H, W), a copy if the store holds others too: for the few, not for a data set."""
        if isinstance(self.store, Tensor) and self.indices is None:
            return self.store
        return self.fetch(torch.arange(len(self)))[0]

    def names(self) -> list[str]:
        """The file of each in the data set's folder, or its number in the store."""
        rows = self._stored(torch.arange(len(self))).tolist()
        return self._photos.names(rows) if self._photos else list(map(str, rows))

    def sha256(self) -> str:
        """Of all images and labels, in hexadecimal; of photos it takes their names."""
        digest = hashlib.sha256(self.labels.numpy().data)
        if self._photos:
            digest.update("/".join(self.names()).encode(errors="surrogateescape"))
        else:
            for indices in torch.arange(len(self)).split(4096):
                digest.update(self.fetch(indices)[0].numpy().data)
        return digest.hexdigest()

    @property
    def _photos(self) -> Photos | None:
        return self.store if isinstance(self.store, Photos) else self.photos

    @property
    def replaced(self) -> int:
        """How many are known to be broken."""
        return 0 if self.broken is None else int(self.broken[self._stored(torch.arange(len(self)))].sum())

    def fetch(self, indices: Tensor, cuts: Callable[[int], Cut] | None = None) -> tuple[Tensor, Tensor]:
        """A batch, uint8 (B, C, H, W) and int64 (B,); `cuts` says what is cut out of the image of an index.

        Raises BrokenImage if one can't be read, and is not to be replaced.
        """
        if isinstance(self.store, Tensor) and not cuts and self.broken is None:
            return self.store[self._stored(indices)], self.labels[indices]
        images = (self._read(index, cuts and cuts(index)) for index in indices.tolist())
        if isinstance(self.store, Tensor):
            return torch.stack(list(images)), self.labels[indices]
        batch = np.empty((len(indices), *self.store.shape[1:]), np.uint8)
        for place, image in enumerate(images):
            batch[place] = image.numpy()  # of channels that lie side by side, NumPy's copy takes half of torch's time
        return torch.from_numpy(batch), self.labels[indices]

    def _read(self, index: int, cut: Cut | None) -> Tensor:
        """An image, or if it is broken another of its class, of those in the order that their number and it decide."""
        if self.broken is None:
            return _read(self.store, int(self._stored(torch.tensor(index))), cut)
        error = BrokenImage("each image of a class is broken. Replace or remove them.")
        for other in self._in_its_place(index):
            row = int(self._stored(torch.tensor(other)))
            if self.broken[row]:
                continue
            try:
                return _read(self.store, row, cut)
            except BrokenImage as found:
                error, self.broken[row] = found, True
        raise error

    def _in_its_place(self, index: int) -> Iterator[int]:
        yield index
        alike = (self.labels == self.labels[index]).nonzero().flatten()
        generator = torch.Generator().manual_seed(FIXED_SEED + index)
        yield from alike[torch.randperm(len(alike), generator=generator)].tolist()

    def _stored(self, indices: Tensor) -> Tensor:
        return indices if self.indices is None else self.indices[indices]


def _read(store: Tensor | Photos, row: int, cut: Cut | None) -> Tensor:
    if isinstance(store, Photos):
        return store.read(row, cut)
    height, width = store.shape[2:]
    return resized(store[row], cut(width, height), (width, height)) if cut else store[row]


@dataclass(frozen=True)
class Source:
    """What a reader found; `origin` is "full", or "sample" for a part whose score is no score of the data set.

    `fitted` is how images of many shapes were brought to one, if they were, `held` where they are, `note` what else its
    reader must know. `sha256` is that of photos by their names, sizes and options; of others the pixels are taken.
    """

    train: ImageSet
    classes: list[str]
    origin: str
    valid: ImageSet | None = None
    test: ImageSet | None = None
    note: str = ""
    fitted: str = ""
    held: str = ""
    sha256: str = ""


@dataclass(frozen=True)
class Splits:
    train: ImageSet
    valid: ImageSet
    test: ImageSet
    classes: list[str]
    origin: str
    note: str = ""
    fitted: str = ""
    held: str = ""
    sha256: str = ""

    @property
    def parts(self) -> dict[str, ImageSet]:
        return {"train": self.train, "val": self.valid, "test": self.test}

    @property
    def in_memory(self) -> bool:
        return not any(isinstance(images.store, Photos) for images in self.parts.values())

    @property
    def stores(self) -> dict[int, Tensor]:
        """Each that is in memory once, by its address."""
        held = (images.store for images in self.parts.values())
        return {store.data_ptr(): store for store in held if isinstance(store, Tensor)}

    @property
    def nbytes(self) -> int:
        return sum(store.nbytes for store in self.stores.values())

    def to(self, device: torch.device) -> Splits:
        """The same on `device`, with stores that stay shared; they are in memory."""
        moved = {key: store.to(device) for key, store in self.stores.items()}

        def move(images: ImageSet) -> ImageSet:
            assert isinstance(images.store, Tensor)
            parts = {"indices": images.indices, "broken": images.broken}
            there: Any = {name: part if part is None else part.to(device) for name, part in parts.items()}
            return replace(images, store=moved[images.store.data_ptr()], labels=images.labels.to(device), **there)

        return replace(self, train=move(self.train), valid=move(self.valid), test=move(self.test))


def checksum(splits: Splits) -> str:
    """SHA-256 of all images and labels and of the way in which they are cut, in hexadecimal; of photos it takes what
    `Source` says."""
    digest, parts = hashlib.sha256(splits.sha256.encode()), (splits.train, splits.valid, splits.test)
    cuts = [tensor for part in parts for tensor in (part.labels, part.indices) if tensor is not None]
    for tensor in [*([] if splits.sha256 else splits.stores.values()), *cuts]:
        digest.update(repr(tuple(tensor.shape)).encode())
        digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()
