"""Photos that are decoded when they are fetched, by their paths or by what a library gives for an index."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from src.config.errors import UserError
from src.config.schema import Fit
from src.data.decoding import BrokenImage, Cut, Encoded, decode, size_of


class Paths(Sequence[Path]):
    """Files below a folder, as plain bytes: the processes of a loader share those, where each would copy objects."""

    def __init__(self, root: Path, names: Sequence[str]) -> None:
        self.root, self.names = root, np.array([os.fsencode(name) for name in names], np.bytes_)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Path:  # type: ignore[override]
        return self.root / os.fsdecode(self.names[index])


@dataclass(frozen=True)
class Photos:
    """N images, of which `items[index]` is a path, bytes of a file, one of Pillow's or torch's, or such in a pair.

    `sha256` tells them from others by what is known without reading them; `origin` is what they are called. Until their
    `size` (width, height) is known, as memory.settled finds it, they have no shape.
    """

    items: Sequence[Encoded]
    channels: int
    sha256: str
    origin: str
    size: tuple[int, int] = (0, 0)
    fit: Fit = "crop"
    rows: Tensor | None = None  # which of the items they are, int64 (N,); None: all

    device = torch.device("cpu")

    def __len__(self) -> int:
        return len(self.items) if self.rows is None else len(self.rows)

    @property
    def shape(self) -> torch.Size:
        return torch.Size([len(self), self.channels, *self.size[::-1]])

    def taken(self, indices: Tensor | None) -> Photos:
        """Some of them, int64 (N,), or all."""
        if indices is None:
            return self
        return replace(self, rows=indices if self.rows is None else self.rows[indices])

    def item(self, index: int) -> Encoded:
        """Raises BrokenImage."""
        try:
            item: Any = self.items[self._row(index)]
            return item[0] if isinstance(item, tuple | list) else item
        except (UserError, MemoryError):
            raise
        except Exception as error:  # of any library
            reason = str(error).rstrip(".") or type(error).__name__
            raise BrokenImage(f"{self._name(index)} can't be read: {reason}. Replace or remove it.") from error

    def read(self, index: int, cut: Cut | None = None) -> Tensor:
        """uint8 (C, H, W), or what `cut` says of it in that size; raises BrokenImage."""
        return decode(self.item(index), self.channels, self.size, self.fit, cut, self._name(index))

    def shown(self, index: int) -> tuple[int, int]:
        """Its own width and height; raises BrokenImage."""
        return size_of(self.item(index), self._name(index))

    def names(self, indices: list[int]) -> list[str]:
        """The file of each in their folder, or its number among the items."""
        rows = indices if self.rows is None else self.rows[indices].tolist()
        if isinstance(self.items, Paths):
            return [os.fsdecode(self.items.names[row]) for row in rows]
        return list(map(str, rows))

    def _row(self, index: int) -> int:
        return index if self.rows is None else int(self.rows[index])

    def _name(self, index: int) -> str:
        return f"{self.origin}: image {self._row(index)}"
