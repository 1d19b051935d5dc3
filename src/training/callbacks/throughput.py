"""Images a second, validation and checkpoints left out of the time."""

from __future__ import annotations

import time
from typing import Any

import lightning as L


class Throughput(L.Callback):
    """Logs `train/images_per_second` for each epoch, and keeps the whole run's in `rate`.

    The first steps of the process, in which kernels are chosen and memory is fetched, are not counted. Lightning's
    ThroughputMonitor waits for the device in each step, and counts validations.
    """

    WARM_UP = 2  # steps

    def __init__(self) -> None:
        self._steps = 0
        self._mark = 0.0  # when the step at hand began
        self._images, self._seconds = 0, 0.0  # of all epochs
        self._before = (0, 0.0)  # the same when the epoch at hand began

    @property
    def rate(self) -> float | None:
        """Images a second over all epochs, on all devices together; None if too few steps were taken."""
        return self._images / self._seconds if self._seconds else None

    @property
    def running(self) -> float | None:
        """The same in the epoch at hand."""
        images, seconds = self._images - self._before[0], self._seconds - self._before[1]
        return images / seconds if images else None

    def state_dict(self) -> dict[str, Any]:
        return {"images": self._images, "seconds": self._seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._images, self._seconds = state_dict["images"], state_dict["seconds"]
        self._before = self._images, self._seconds

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._before, self._mark = (self._images, self._seconds), time.perf_counter()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.is_last_batch:
            _ = float(outputs["loss"])  # a GPU may still be at work on the last steps
        now = time.perf_counter()
        self._steps += 1
        if self._steps > self.WARM_UP:
            self._images += len(batch[1]) * trainer.world_size
            self._seconds += now - self._mark
        self._mark = now
        if trainer.is_last_batch and self.running is not None:
            pl_module.log("train/images_per_second", self.running, on_step=False, on_epoch=True, sync_dist=True)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._mark = time.perf_counter()
