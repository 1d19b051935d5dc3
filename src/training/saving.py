"""Checkpoints: what each holds besides the weights, when one is written, and how it gets onto the disk whole."""

from __future__ import annotations

import os
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins import CheckpointIO
from torch import Tensor
from torch.utils._pytree import tree_map_only

from src.config.schema import CallbacksConfig
from src.training.callbacks.finite import FiniteLoss
from src.training.logs import RunLogs
from src.training.position import Position, number_steps


def previous(path: Path) -> Path:
    """Where the checkpoint that `path` held before is kept: last.ckpt -> last.previous.ckpt."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


class Checkpoints(L.Callback):
    """Writes `last.ckpt`, from which a run goes on bit for bit, and `best.ckpt`, the best validated weights.

    `last` is written before each validation, or after an epoch without one, every so many minutes and steps, and at
    the end. Each holds the run's position, so that where it was taken makes no difference to the run.

    Args:
        end_at_once: a run resumed at its end trains no more.
    """

    MONITOR = "val/acc"

    def __init__(
        self, folder: Path, config: CallbacksConfig, writer: Writer, logs: RunLogs, end_at_once: bool = False
    ) -> None:
        self.last, self.best = folder / "last.ckpt", folder / "best.ckpt"
        self.best_score: float | None = None
        self.best_step: int | None = None
        self.seconds = 0.0  # of training, before this process began; in all, when it is over
        self.interruptions = 0
        self.stalled = 0.0  # seconds that this process has waited for checkpoints
        self._steps, self._minutes = config.checkpoint_steps, config.checkpoint_minutes
        self._writer, self._logs = writer, logs
        self._should_stop = end_at_once  # or a wish to stop early, which min_epochs or min_steps may hold back
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
        trainer.should_stop = self._should_stop  # which no state of Lightning's remembers

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
        score = trainer.callback_metrics.get(self.MONITOR)
        if trainer.state.fn != "fit" or score is None:
            return
        if self.best_score is None or float(score) > self.best_score:
            self.best_score, self.best_step = float(score), trainer.global_step
            self._write(trainer, self.best, weights_only=True)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._save(trainer, Position.at_end(trainer))
        self.wait()
        trainer.strategy.barrier("checkpoints")  # every process loads the best one
        self.seconds += time.monotonic() - self._began
        self._began = time.monotonic()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self.wait()

    def wait(self) -> None:
        """Return when what was begun is on the disk."""
        self._writer.wait()

    def save_before_batch(self, trainer: L.Trainer) -> None:
        """Begin to write `last.ckpt`, unless this very step is saved already or has gradients that wait for more.

        Every process of the run must call it.
        """
        self._renumber(trainer)
        position = Position.before_batch(trainer)
        if position.batch % trainer.accumulate_grad_batches == 0 and trainer.global_step != self._saved_step:
            self._save(trainer, position)

    def _save(self, trainer: L.Trainer, position: Position) -> None:
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, FiniteLoss):
                callback.check(trainer)
        self._position, self._saved_step = position, trainer.global_step
        self._write(trainer, self.last, weights_only=False)
        self._saved_at = time.monotonic()

    def _write(self, trainer: L.Trainer, path: Path, weights_only: bool) -> None:
        started = time.perf_counter()
        trainer.save_checkpoint(path, weights_only)
        self.stalled += time.perf_counter() - started

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        assert self._position is not None
        checkpoint["position"] = asdict(self._position)
        checkpoint["should_stop"] = trainer.should_stop
        checkpoint["logs"] = self._logs.lengths() if trainer.is_global_zero else {}

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        self._resumed = Position(**checkpoint["position"])
        checkpoint["loops"] = self._resumed.loops()
        self._should_stop |= checkpoint["should_stop"] and not self._resumed.finished

    def state_dict(self) -> dict[str, Any]:
        state = {"best_score": self.best_score, "best_step": self.best_step, "interruptions": self.interruptions}
        return state | {"seconds": self.seconds + time.monotonic() - self._began}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        assert self._resumed is not None
        self.best_score, self.best_step = state_dict["best_score"], state_dict["best_step"]
        self.interruptions = state_dict["interruptions"] + (not self._resumed.finished)
        self.seconds = state_dict["seconds"]

    def _renumber(self, trainer: L.Trainer) -> None:
        if self._resumed is not None and trainer.state.fn == "fit":
            number_steps(trainer)
            self._saved_step, self._resumed = trainer.global_step, None


class Writer(CheckpointIO):
    """Copies a checkpoint's tensors and writes them in a thread of its own.

    A file is written under another name, flushed and renamed, and the one before it is kept; so at any instant
    there is a whole one. An error in the thread is raised by the next call.

    Args:
        preloaded: the content of the checkpoint that Lightning asks for first, if it was read already.
    """

    def __init__(self, preloaded: dict[str, Any] | None = None) -> None:
        self._preloaded = preloaded
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._written: Future[None] | None = None

    @property
    def busy(self) -> bool:
        return self._written is not None and not self._written.done()

    def wait(self) -> None:
        """Return when everything is on the disk; raises OSError if it could not be written."""
        written, self._written = self._written, None
        if written is not None:
            written.result()

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        self.wait()
        copy = tree_map_only(Tensor, lambda tensor: tensor.detach().to("cpu", copy=True), checkpoint)
        self._written = self._thread.submit(write, copy, Path(path))

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = True) -> dict[str, Any]:
        content, self._preloaded = self._preloaded, None
        return content or torch.load(path, map_location=map_location or "cpu", weights_only=True)

    def remove_checkpoint(self, path: Any) -> None:
        Path(path).unlink(missing_ok=True)

    def teardown(self) -> None:
        self.wait()


def write(content: dict[str, Any], path: Path) -> None:
    """Write a checkpoint to `path`, whole or not at all; what was there before becomes the previous one.

    Raises:
        OSError: it could not be written; the file is named.
    """
    temporary = path.with_name(f".{path.name}.part")
    try:
        temporary.unlink(missing_ok=True)
        with temporary.open("xb") as file:  # "x" follows no link that a stranger's folder has there
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            path.replace(previous(path))
        temporary.replace(path)
        _flush(path.parent)
    except (OSError, RuntimeError) as error:
        cause = error if isinstance(error, OSError) else error.__context__  # torch hides the file's own error so
        if isinstance(cause, OSError) and cause.filename is None:
            raise OSError(cause.errno, cause.strerror, str(path)) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def _flush(folder: Path) -> None:
    """Bring a rename onto the disk, where folders can be flushed."""
    if os.name == "posix":
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
