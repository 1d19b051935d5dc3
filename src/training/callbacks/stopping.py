"""When a run stops before its end, and leaves a checkpoint: signals and `trainer.max_time`."""

from __future__ import annotations

import time
from typing import Any

import lightning as L
import torch

from src.config.errors import Stopped
from src.config.process import Interrupts
from src.training.checkpoints import Checkpoints

_SAVE, _TIME, _SIGNAL = 1, 2, 3  # what a process may wish; the greatest wish of all processes is done


class Stopping(L.Callback):
    """Ends the run after the step in hand, or within a validation, when a signal came or time is up.

    It must stand before Checkpoints, so that a step is saved once.

    Args:
        max_time: "DD:HH:MM:SS" of training, from this start on.
    """

    def __init__(self, interrupts: Interrupts, checkpoints: Checkpoints, max_time: str | None) -> None:
        self._interrupts, self._checkpoints = interrupts, checkpoints
        self._seconds = None if max_time is None else _seconds(max_time)
        self._deadline: float | None = None
        self._common = 0  # batches of a validation that every process has

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._deadline = None if self._seconds is None else time.monotonic() + self._seconds
        self._interrupts.install()  # Lightning has taken them
        self._interrupts.deferred = self._interrupts.training = True

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._interrupts.deferred = False

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._interrupts.deferred = False

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx % trainer.accumulate_grad_batches == 0 and (wish := self._agreed(trainer)):
            self._checkpoints.save_before_batch(trainer)
            self._stop(trainer, wish)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        batches = torch.tensor(float(sum(trainer.num_val_batches)), device=pl_module.device)
        self._common = (
            int(trainer.strategy.reduce(batches, reduce_op="min")) if trainer.world_size > 1 else int(batches)
        )

    def on_validation_batch_start(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if trainer.state.fn == "fit" and batch_idx < self._common:  # its checkpoint was begun when it started
            self._stop(trainer, self._agreed(trainer))

    def _stop(self, trainer: L.Trainer, wish: int) -> None:
        if wish > _SAVE:
            self._checkpoints.wait()
            raise Stopped(None if wish == _TIME else wish - _SIGNAL)

    def _agreed(self, trainer: L.Trainer) -> int:
        wish = _SAVE if self._checkpoints.time_is_up else 0
        if self._deadline is not None and time.monotonic() > self._deadline:
            wish = _TIME
        if self._interrupts.received is not None:
            wish = _SIGNAL + self._interrupts.received
        if trainer.world_size == 1:
            return wish
        wishes = torch.tensor(float(wish), device=trainer.strategy.root_device)
        return int(trainer.strategy.reduce(wishes, reduce_op="max"))


def _seconds(text: str) -> int:
    days, hours, minutes, seconds = (int(part) for part in text.split(":"))
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds
