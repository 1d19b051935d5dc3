"""Images a second, validation and checkpoints left out of the time."""

from __future__ import annotations

import time
from typing import Any

import lightning as L
from torch import Tensor


class Throughput(L.Callback):
    """Logs `train/images_per_second` for each epoch, and keeps the whole run's in `rate`.

    The first steps of the process, in which kernels are chosen and memory is fetched, are not counted.
    """

    WARM_UP = 2  # steps

    def __init__(self) -> None:
        self._steps = 0
        self._started, self._paused = 0.0, 0.0
        self._images = 0
        self._total_images, self._total_seconds = 0, 0.0

    @property
    def rate(self) -> float | None:
        """Images a second over all epochs, on all devices together; None if too few steps were taken."""
        return self._total_images / self._total_seconds if self._total_seconds else None

    @property
    def running(self) -> float | None:
        """The same in the epoch at hand."""
        seconds = time.perf_counter() - self._started
        return self._images / seconds if self._images and seconds else None

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._restart()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._steps += 1
        if self._steps <= self.WARM_UP:
            self._restart()
            return
        labels: Tensor = batch[1]
        self._images += len(labels) * trainer.world_size
        if trainer.is_last_batch:
            # the last step's work may still be under way on the device
            _ = float(outputs["loss"])
            seconds = time.perf_counter() - self._started
            self._total_images += self._images
            self._total_seconds += seconds
            pl_module.log("train/images_per_second", self._images / seconds, on_step=False, on_epoch=True)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._paused = time.perf_counter()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._started += time.perf_counter() - self._paused

    def _restart(self) -> None:
        self._started, self._images = time.perf_counter(), 0
