"""Which images come at which step, and with which randomness: functions of the seed and the position."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from src.data.images import ImageSet

Batch = tuple[Tensor, Tensor]  # images (B, C, H, W), labels int64 (B,)


def step_seed(seed: int, step: int, rank: int, purpose: str) -> int:
    """A 63-bit seed for one `purpose` in one step of one process; nearby arguments give unrelated seeds."""
    sequence = np.random.SeedSequence([seed, step, rank, *purpose.encode()])
    return int(sequence.generate_state(1, np.uint64)[0] >> 1)


class BatchOrder(Sampler[Tensor]):
    """Indices int64 (B,) on `device`, one tensor a batch; shuffled anew in each epoch if `seed` is given.

    Each of `replicas` processes takes every `replicas`-th image, and none is taken twice. For
    training, each gets equally many batches: the few images left over wait for another epoch.

    Args:
        start: (epoch, batch) that a resumed run goes on at: of that epoch, the batches before it are left out.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        seed: int | None,
        rank: int = 0,
        replicas: int = 1,
        device: torch.device | str = "cpu",
        start: tuple[int, int] = (0, 0),
    ) -> None:
        self.length, self.batch_size, self.seed = length, batch_size, seed
        self.rank, self.replicas, self.device = rank, replicas, device
        self.epoch, self._start = start[0], start

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this at the start of each epoch."""
        self.epoch = epoch

    def _share(self) -> range:
        whole = self.length - self.length % self.replicas if self.seed is not None else self.length
        return range(self.rank, whole, self.replicas)

    def __len__(self) -> int:
        return -(-len(self._share()) // self.batch_size)

    def __iter__(self) -> Iterator[Tensor]:
        if self.seed is None:
            order = torch.arange(self.length)
        else:
            generator = torch.Generator().manual_seed(step_seed(self.seed, self.epoch, 0, "order"))
            order = torch.randperm(self.length, generator=generator)
        share = order[self._share().start : self._share().stop : self.replicas]
        done = self._start[1] if self.seed is not None and self.epoch == self._start[0] else 0
        yield from share.to(self.device).split(self.batch_size)[done:]  # one transfer an epoch


class Batches(Dataset[Batch]):
    """A data set whose index is a whole batch: the loader calls once for all its images."""

    def __init__(self, images: ImageSet) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, indices: Tensor) -> Batch:
        return self.images.fetch(indices)
