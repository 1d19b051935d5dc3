"""When a run is saved, and when it stops before its end: signals and `trainer.max_time`."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor, distributed

from src.config.errors import Stopped
from src.config.process import Interrupts
from src.config.schema import TrainConfig
from src.model.saved import Content
from src.training.callbacks.finite import FiniteLoss
from src.training.logs import RunLogs
from src.training.position import Position
from src.training.resume import Resumed
from src.training.saving import Saved, Writer

_SAVE, _TIME, _SIGNAL = 1, 2, 3  # what a process may wish; the greatest wish of all processes is done


class Checkpoints(L.Callback):
    """Writes `last.ckpt`, from which a run goes on bit for bit, and `best.ckpt`, the best validated weights.

    `last` is written before each validation, or after an epoch without one, every so many minutes and steps, and at
    the end; a signal or `trainer.max_time` ends the run with one after the step in hand, or within a validation.
    Several processes begin to exchange their wishes before a batch, and read them before the next one, so that none
    waits for another, and a wish is done one step later.
    """

    def __init__(
        self, folder: Path, config: TrainConfig, logs: RunLogs, interrupts: Interrupts, resumed: Resumed | None = None
    ) -> None:
        self.last, self.best = folder / "last.ckpt", folder / "best.ckpt"
        self.writer, self.finite = Writer(resumed.content if resumed else None), FiniteLoss(self.last)
        self.best_score, self.best_step = (resumed.best_score, resumed.best_step) if resumed else (None, None)
        self.best_measured = resumed.best_measured if resumed else dict[str, float]()  # in the same validation
        self.seconds = resumed.seconds if resumed else 0.0  # of training; in all, when it is over
        self.interruptions = resumed.interruptions + (not resumed.position.finished) if resumed else 0
        self.stalled = 0.0  # seconds that this process has waited for checkpoints
        self._should_stop = resumed is not None and (resumed.should_stop or resumed.finished(config))
        self._saved_step = resumed and resumed.position.steps
        self.keep_optimizer = config.callbacks.keep_optimizer
        self._steps, self._minutes = config.callbacks.checkpoint_steps, config.callbacks.checkpoint_minutes
        self._monitor, self._mode = config.monitor, config.monitor_mode
        self._max_time = config.trainer.max_time
        self._logs, self._interrupts = logs, interrupts
        self._common = 0  # batches of a validation that every process has
        self._group: Any = None  # of processes on their CPUs: a GPU's answer would have to be waited for
        self._asked: tuple[Any, Tensor] | None = None

    def on_fit_start(self, trainer: L.Trainer, *_: Any) -> None:
        self._began = self._saved_at = time.monotonic()
        trainer.should_stop = self._should_stop

    def on_train_start(self, trainer: L.Trainer, *_: Any) -> None:
        self._deadline = math.inf
        if self._max_time:
            days, hours, minutes, seconds = (int(number) for number in self._max_time.split(":"))
            self._deadline = time.monotonic() + ((days * 24 + hours) * 60 + minutes) * 60 + seconds
        self._interrupts.install()  # Lightning has taken them
        self._interrupts.deferred = self._interrupts.training = True
        if trainer.world_size > 1:
            self._group = distributed.new_group(backend="gloo")

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx % trainer.accumulate_grad_batches:
            return  # no checkpoint holds gradients that wait for more
        step, wish = trainer.global_step, self._answer()
        due = step > 0 and (batch_idx == 0 or (self._steps is not None and step % self._steps == 0))
        if (due or wish) and step != self._saved_step:
            self._save(trainer)
        self._stop_or_ask(wish)

    def on_validation_start(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.state.fn != "fit":
            return
        batches = torch.tensor(sum(trainer.num_val_batches))
        if self._group is not None:
            distributed.all_reduce(batches, distributed.ReduceOp.MIN, self._group)
        self._common = int(batches)
        batch = Position.of(trainer, validate=True).batch
        at_a_step = batch % trainer.accumulate_grad_batches == 0 or batch == trainer.num_training_batches
        # started anew with `max_steps` steps done, Lightning would skip the validation that is due
        if at_a_step and not 0 < trainer.max_steps <= trainer.global_step:
            self._save(trainer, validate=True)

    def on_validation_batch_start(self, trainer: L.Trainer, _: Any, batch: Any, batch_idx: int, *more: Any) -> None:
        if trainer.state.fn == "fit" and batch_idx < self._common:  # its checkpoint was begun when it started
            self._stop_or_ask(self._answer())

    def on_validation_epoch_end(self, trainer: L.Trainer, *_: Any) -> None:
        measured = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
        score, sign = measured.get(self._monitor, math.nan), -1 if self._mode == "min" else 1
        better = score == score if self.best_score is None else sign * score > sign * self.best_score
        if trainer.state.fn == "fit" and better:
            self.best_score, self.best_step, self.best_measured = score, trainer.global_step, measured
            self._write(trainer, self.best, weights_only=True)

    def on_train_end(self, trainer: L.Trainer, *_: Any) -> None:
        self._answer()
        self._interrupts.deferred = False
        self._save(trainer, finished=True)
        self.writer.wait()
        trainer.strategy.barrier("checkpoints")  # every process loads the best one
        self.seconds += time.monotonic() - self._began

    def on_exception(self, *_: Any) -> None:
        self._interrupts.deferred = False
        self.writer.wait()

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: Any, checkpoint: Content) -> None:
        saved = Saved(
            position=self._position,
            logs=self._logs.lengths() if trainer.is_global_zero else {},
            best_score=self.best_score,
            best_step=self.best_step,
            best_measured=self.best_measured,
            interruptions=self.interruptions,
            seconds=self.seconds + time.monotonic() - self._began,
            should_stop=trainer.should_stop and not self._position.finished,
        )
        checkpoint.update(saved.model_dump())
        if self._position.finished and not self.keep_optimizer:
            for state in checkpoint["optimizer_states"]:
                state["state"] = {}

    def _save(self, trainer: L.Trainer, **before: bool) -> None:
        self.finite.check(trainer)
        self._position, self._saved_step = Position.of(trainer, **before), trainer.global_step
        self._write(trainer, self.last, weights_only=False)
        self._saved_at = time.monotonic()

    def _write(self, trainer: L.Trainer, path: Path, weights_only: bool) -> None:
        started = time.perf_counter()
        trainer.save_checkpoint(path, weights_only)
        self.stalled += time.perf_counter() - started

    def _wish(self) -> int:
        if self._interrupts.received is not None:
            return _SIGNAL + self._interrupts.received
        if time.monotonic() > self._deadline:
            return _TIME
        old = self._minutes is not None and time.monotonic() - self._saved_at > 60 * self._minutes
        return _SAVE if old and not self.writer.busy else 0  # busy with the last one

    def _stop_or_ask(self, wish: int) -> None:
        """Raise Stopped if that is to be done; else begin to ask the other processes, if there are any."""
        if wish > _SAVE:
            raise Stopped(None if wish == _TIME else wish - _SIGNAL)
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
