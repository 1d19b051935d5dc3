"""From images to batches as the network sees them, in an order that seed and position decide."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Generator, Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from src.config.errors import UserError
from src.config.process import keep_freed_memory
from src.config.schema import Workers
from src.data.decoding import Box, Cut
from src.data.images import ImageSet
from src.data.photos import Photos

SHARED = Path("/dev/shm")  # where Linux has the memory that processes share; in a container often small
Batch = tuple[Tensor, Tensor]  # images (B, C, H, W), labels int64 (B,), or float (B, classes) of mixed images
Augment = Callable[[Tensor, Tensor, Generator], Batch]


def step_seed(seed: int, step: int, rank: int, purpose: str) -> int:
    """A 63-bit seed for one `purpose` in one step of one process; nearby arguments give unrelated seeds."""
    sequence = np.random.SeedSequence([seed, step, rank, *purpose.encode()])
    return int(sequence.generate_state(1, np.uint64)[0] >> 1)


class BatchOrder(Sampler[tuple[int, Tensor]]):
    """The epoch, and indices int64 (B,) on `device`, of each batch; shuffled anew in each epoch if `seed` is given.

    Each of `replicas` processes takes every `replicas`-th image, for training equally many: the few left over wait for
    another epoch. A resumed run goes on at `start`, (epoch, batch): of that epoch, the batches before it are left out.
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
        self.device, self.epoch, self._start = device, start[0], start
        whole = length if seed is None else length - length % replicas
        self.share = range(rank, whole, replicas)

    def set_epoch(self, epoch: int) -> None:  # Lightning calls it at the start of each
        self.epoch = epoch

    def __len__(self) -> int:
        return math.ceil(len(self.share) / self.batch_size)

    def __iter__(self) -> Iterator[tuple[int, Tensor]]:
        order, done = torch.arange(self.length), 0
        if self.seed is not None:
            generator = Generator().manual_seed(step_seed(self.seed, self.epoch, 0, "order"))
            order = torch.randperm(self.length, generator=generator)
            done = self._start[1] if self.epoch == self._start[0] else 0
        share = order[self.share.start : self.share.stop : self.share.step]
        for indices in share.to(self.device).split(self.batch_size)[done:]:  # one transfer an epoch
            yield self.epoch, indices


@dataclass(frozen=True)
class RandomCut:
    """What is cut out of an image when it is fetched, by a function of (width, height, generator), drawn anew for each
    (seed, epoch, index)."""

    function: Callable[..., Box]
    seed: int

    def __call__(self, epoch: int, index: int) -> Cut:
        generator = Generator().manual_seed(step_seed(self.seed, epoch, index, "cut"))
        return partial(self.function, generator=generator)


@dataclass(frozen=True)
class Batches(Dataset[Batch]):
    """A data set whose index is a whole batch: the loader calls once for all its images.

    What can't be read is given in place of a batch, for of an error a loader's process hands on its traceback.
    """

    images: ImageSet
    cut: RandomCut | None = None

    def __getitem__(self, batch: tuple[int, Tensor]) -> Batch | UserError:  # type: ignore[override]
        epoch, indices = batch
        try:
            return self.images.fetch(indices, partial(self.cut, epoch) if self.cut else None)
        except UserError as error:
            return error


def _keep_memory(_: int) -> None:
    keep_freed_memory()


def make_loader(
    images: ImageSet,
    order: BatchOrder,
    workers: Workers,
    processes: int = 1,
    pin: bool = False,
    cut: RandomCut | None = None,
) -> DataLoader:
    """Batches in that order, fetched by `workers`: auto takes one for each core but one that `processes` share."""
    count = workers if isinstance(workers, int) else 0
    if workers == "auto" and (cut or isinstance(images.store, Photos)):
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        count = max(cores // processes - 1, 1)
    count *= images.store.device.type == "cpu"  # what lies on the device needs no fetching
    check_shared_memory(images, order.batch_size, count)
    return DataLoader(
        Batches(images, cut),
        sampler=order,
        batch_size=None,
        num_workers=count,
        # seconds; a process that finds no memory to share says nothing, but one photo may take a second
        timeout=bool(count) * (50 + 2 * order.batch_size * isinstance(images.store, Photos)),
        persistent_workers=count > 0,
        worker_init_fn=_keep_memory,
        pin_memory=pin,
    )


def check_shared_memory(images: ImageSet, batch_size: int, workers: int) -> None:
    """Raises UserError if the batches of so many processes don't fit into it: torch would wait for them for ever."""
    if workers and SHARED.is_dir():
        free = shutil.disk_usage(SHARED).free
        # each process fetches two ahead, one is in use; what they need besides is small
        needed = (2 * workers + 1) * (min(batch_size, len(images)) * images.shape[1:].numel() + 2**16)
        if needed > free:
            room = f"their batches need {needed / 2**20:,.1f} MiB of {SHARED}, which has {free / 2**20:,.1f} MiB free"
            raise UserError(f"num_workers={workers}: {room}. Take num_workers=0, or a smaller batch_size.")
