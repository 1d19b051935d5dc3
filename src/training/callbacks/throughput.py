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
        self._mark = 0.0  # when the step at hand began
        self._images, self._seconds = 0, 0.0  # of all earlier epochs
        self._epoch_images, self._epoch_seconds = 0, 0.0

    @property
    def rate(self) -> float | None:
        """Images a second over all epochs, on all devices together; None if too few steps were taken."""
        seconds = self._seconds + self._epoch_seconds
        return (self._images + self._epoch_images) / seconds if seconds else None

    @property
    def running(self) -> float | None:
        """The same in the epoch at hand."""
        return self._epoch_images / self._epoch_seconds if self._epoch_seconds else None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._mark = time.perf_counter()

    def state_dict(self) -> dict[str, Any]:
        return {"images": self._images + self._epoch_images, "seconds": self._seconds + self._epoch_seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._images, self._seconds = state_dict["images"], state_dict["seconds"]

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._images += self._epoch_images
        self._seconds += self._epoch_seconds
        self._epoch_images, self._epoch_seconds = 0, 0.0
        self._mark = time.perf_counter()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.is_last_batch:
            _ = float(outputs["loss"])  # a GPU may still be at work on the last steps
        now = time.perf_counter()
        self._steps += 1
        if self._steps > self.WARM_UP:
            labels: Tensor = batch[1]
            self._epoch_images += len(labels) * trainer.world_size
            self._epoch_seconds += now - self._mark
        self._mark = now
        if trainer.is_last_batch and self.running is not None:
            pl_module.log("train/images_per_second", self.running, on_step=False, on_epoch=True, sync_dist=True)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._mark = time.perf_counter()
