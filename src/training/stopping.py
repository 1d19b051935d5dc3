"""When a run stops before its end, and leaves a checkpoint: signals and `trainer.max_time`."""

from __future__ import annotations

import time
from typing import Any

import lightning as L
import torch
from torch import Tensor, distributed

from src.config.errors import Stopped
from src.config.process import Interrupts
from src.training.saving import Checkpoints

_SAVE, _TIME, _SIGNAL = 1, 2, 3  # what a process may wish; the greatest wish of all processes is done


class Stopping(L.Callback):
    """Ends the run after the step in hand, or within a validation, when a signal came or time is up.

    Several processes agree on it without waiting for each other: they begin to exchange their wishes before a batch,
    and read them before the next one. So a wish of theirs is done one step later.

    Args:
        max_time: "DD:HH:MM:SS" of training, from this start on.
    """

    def __init__(self, interrupts: Interrupts, checkpoints: Checkpoints, max_time: str | None) -> None:
        self._interrupts, self._checkpoints = interrupts, checkpoints
        self._seconds = None if max_time is None else _seconds(max_time)
        self._deadline: float | None = None
        self._common = 0  # batches of a validation that every process has
        self._group: Any = None  # of processes on their CPUs: a GPU's answer would have to be waited for
        self._asked: tuple[Any, Tensor] | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._deadline = None if self._seconds is None else time.monotonic() + self._seconds
        self._interrupts.install()  # Lightning has taken them
        self._interrupts.deferred = self._interrupts.training = True
        if trainer.world_size > 1:
            self._group = distributed.new_group(backend="gloo")

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._answer()
        self._interrupts.deferred = False

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._interrupts.deferred = False

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx % trainer.accumulate_grad_batches == 0:
            if wish := self._answer():
                self._checkpoints.save_before_batch(trainer)
                self._stop(wish)
            self._ask()

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        batches = torch.tensor(sum(trainer.num_val_batches))
        if self._group is not None:
            distributed.all_reduce(batches, distributed.ReduceOp.MIN, self._group)
        self._common = int(batches)

    def on_validation_batch_start(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if trainer.state.fn == "fit" and batch_idx < self._common:  # its checkpoint was begun when it started
            self._stop(self._answer())
            self._ask()

    def _stop(self, wish: int) -> None:
        if wish > _SAVE:
            self._checkpoints.wait()
            raise Stopped(None if wish == _TIME else wish - _SIGNAL)

    def _wish(self) -> int:
        if self._interrupts.received is not None:
            return _SIGNAL + self._interrupts.received
        if self._deadline is not None and time.monotonic() > self._deadline:
            return _TIME
        return _SAVE if self._checkpoints.time_is_up else 0

    def _ask(self) -> None:
        """Begin to tell the other processes, if there are any."""
        if self._group is not None:
            wishes = torch.tensor(self._wish())
            work = distributed.all_reduce(wishes, distributed.ReduceOp.MAX, self._group, async_op=True)
            self._asked = work, wishes

    def _answer(self) -> int:
        """What is to be done: of one process at once, of several what they asked before."""
        if self._group is None:
            return self._wish()
        if self._asked is None:
            return 0
        (work, wishes), self._asked = self._asked, None
        work.wait()
        return int(wishes)


def _seconds(text: str) -> int:
    days, hours, minutes, seconds = (int(part) for part in text.split(":"))
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds
