"""Checkpoints: what each holds besides the weights, and when one is written."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import lightning as L

from src.config.schema import CallbacksConfig
from src.training.callbacks.finite import FiniteLoss
from src.training.logs import RunLogs
from src.training.position import Position
from src.training.writer import Writer


class Checkpoints(L.Callback):
    """Writes `last.ckpt`, from which a run goes on bit for bit, and `best.ckpt`, the best validated weights.

    `last` is written before each validation, or after an epoch without one, every so many minutes and steps, and at
    the end. Each holds the run's position, so that where it was taken makes no difference to the run.

    It must stand before callbacks that log when a batch starts, or that change weights around a validation.
    """

    MONITOR = "val/acc"

    def __init__(self, folder: Path, config: CallbacksConfig, writer: Writer, logs: RunLogs) -> None:
        self.last, self.best = folder / "last.ckpt", folder / "best.ckpt"
        self.best_score: float | None = None
        self.best_step: int | None = None
        self.seconds = 0.0  # of training, before this process began; in all, when it is over
        self.interruptions = 0
        self.stalled = 0.0  # seconds that this process has waited for checkpoints
        self._should_stop = False  # a wish to stop early, which min_epochs or min_steps may hold back
        self.end_at_once = False  # a run resumed at its end trains no more
        self._steps, self._minutes = config.checkpoint_steps, config.checkpoint_minutes
        self._writer, self._logs = writer, logs
        self._position: Position | None = None
        self._resumed: Position | None = None
        self._saved_step: int | None = None
        self._began = self._saved_at = time.monotonic()

    @property
    def time_is_up(self) -> bool:
        """Whether the last checkpoint is old; never while it is still being written."""
        old = self._minutes is not None and time.monotonic() - self._saved_at > 60 * self._minutes
        return old and not self._writer.busy

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._began = self._saved_at = time.monotonic()
        if trainer.is_global_zero:
            self.last.parent.mkdir(parents=True, exist_ok=True)
        trainer.should_stop = self.end_at_once or self._should_stop  # which no state of Lightning's remembers

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.is_global_zero:  # a finished run that is to have more epochs is unfinished from here on
            (self.last.parent.parent / "results.json").unlink(missing_ok=True)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._renumber(trainer)
        step = trainer.global_step
        if batch_idx == 0 < step or (self._steps and step and step % self._steps == 0):
            self.save_before_batch(trainer)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._renumber(trainer)
        position = Position.before_validation(trainer)
        whole = position.batch % trainer.accumulate_grad_batches == 0 or position.batch == trainer.num_training_batches
        # started anew with `max_steps` steps done, Lightning would skip the validation that is due
        if trainer.state.fn == "fit" and whole and not 0 < trainer.max_steps <= trainer.global_step:
            self._save(trainer, position)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        found = trainer.callback_metrics.get(self.MONITOR)
        if trainer.state.fn != "fit" or found is None:
            return
        if self.best_score is None or float(found) > self.best_score:
            self.best_score, self.best_step = float(found), trainer.global_step
            content = trainer._checkpoint_connector.dump_checkpoint(weights_only=True) | {"loops": {}}
            if trainer.is_global_zero:
                self._write(trainer, lambda: self._writer.save_checkpoint(content, self.best))

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._save(trainer, Position.at_end(trainer))
        self._writer.wait()
        trainer.strategy.barrier("checkpoints")  # every process loads the best one
        self.seconds += time.monotonic() - self._began
        self._began = time.monotonic()

    def save_before_batch(self, trainer: L.Trainer) -> None:
        """Begin to write `last.ckpt`, unless this very step is saved already or has gradients that wait for more.

        Every process of the run must call it.
        """
        self._renumber(trainer)
        position = Position.before_batch(trainer)
        if position.batch % trainer.accumulate_grad_batches == 0 and trainer.global_step != self._saved_step:
            self._save(trainer, position)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._writer.wait()

    def wait(self) -> None:
        """Return when what was begun is on the disk."""
        self._writer.wait()

    def _save(self, trainer: L.Trainer, position: Position) -> None:
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, FiniteLoss):
                callback.check(trainer)
        self._position = position
        self._saved_step = trainer.global_step
        self._write(trainer, lambda: trainer.save_checkpoint(self.last, weights_only=False))
        self._saved_at = time.monotonic()

    def _write(self, trainer: L.Trainer, save: Any) -> None:
        started = time.perf_counter()
        save()
        self.stalled += time.perf_counter() - started

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        assert self._position is not None
        checkpoint["loops"] = {}  # Lightning's own depend on the hook; see position.py
        checkpoint["position"] = self._position.as_dict()
        checkpoint["should_stop"] = trainer.should_stop
        checkpoint["logs"] = self._logs.lengths() if trainer.is_global_zero else {}

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        self._resumed = Position(**checkpoint["position"])
        checkpoint["loops"] = {"fit_loop": self._resumed.loops()}
        self._should_stop = checkpoint["should_stop"] and not self._resumed.finished

    def state_dict(self) -> dict[str, Any]:
        seconds = self.seconds + time.monotonic() - self._began
        return {
            "best_score": self.best_score,
            "best_step": self.best_step,
            "seconds": seconds,
            "interruptions": self.interruptions,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best_score, self.best_step = state_dict["best_score"], state_dict["best_step"]
        assert self._resumed is not None
        self.seconds = state_dict["seconds"]
        self.interruptions = state_dict["interruptions"] + (not self._resumed.finished)

    def _renumber(self, trainer: L.Trainer) -> None:
        if self._resumed is not None and trainer.state.fn == "fit":
            Position.number_steps(trainer)
            self._saved_step = trainer.global_step
            self._resumed = None
