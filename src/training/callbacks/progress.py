"""What a run shows while it trains: a line an epoch, and below them a bar on a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, TextColumn, TimeRemainingColumn
from torch import Tensor

from src.results.intervals import percent
from src.results.outcome import duration
from src.results.screen import digits, epochs
from src.training.callbacks.log_metrics import WARM_UP, LogMetrics

PAUSE = 0.2  # seconds between two drawings; Lightning's own bar draws, and reads the loss, in each step
FEW, HALF_HOUR, HOUR = 5, 1800, 3600  # seconds; after a few of them the steps tell how long the run will take
COLUMNS: dict[str, tuple[str, Callable[[float], str]]] = {
    "train loss": ("train/loss", digits),
    "train acc": ("train/acc", percent),
    "val loss": ("val/loss", digits),
    "val acc": ("val/acc", percent),
    "images/s": ("train/images_per_second", "{:.0f}".format),
}
LINE = "{:>9} " + " {:>10}" * len(COLUMNS) + " {:>8}"


class ProgressBar(RichProgressBar):
    """Lightning's bar with the epoch's loss and accuracy so far and images a second, in 80 columns; of an epoch that
    has ended its line stays, and not the bar."""

    def __init__(self, metrics: LogMetrics) -> None:
        super().__init__()
        self._metrics, self._drawn = metrics, 0.0
        self._shown: Tensor | None = None  # float (2,): loss and accuracy
        self._underway: Tensor | None = None

    def _init_progress(self, trainer: L.Trainer) -> None:
        super()._init_progress(trainer)
        if self.progress:
            self.progress.live.transient = True

    def configure_columns(self, trainer: L.Trainer) -> list[ProgressColumn]:
        time_left = TimeRemainingColumn(compact=True, elapsed_when_finished=True)
        return [TextColumn("{task.description}"), BarColumn(bar_width=8), MofNCompleteColumn(), time_left]

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        now, last = time.perf_counter(), trainer.is_last_batch
        if now - self._drawn >= PAUSE or last:
            self._drawn, means = now, module.means()
            fresh = means.to("cpu", non_blocking=not last)  # for an epoch's last step LogMetrics has waited
            # a GPU has yet to compute it: what was sent at the drawing before has arrived, and is shown without a wait
            self._shown, self._underway = self._underway if means.is_cuda and not last else fresh, fresh
            super().on_train_batch_end(trainer, module, outputs, batch, batch_idx)

    def get_metrics(self, *_: Any) -> Any:
        if self._shown is None:
            return {}
        loss, accuracy = self._shown.tolist()
        speed = {"img/s": f"{rate:.0f}"} if (rate := self._metrics.running) else {}
        return {"loss": digits(loss), "acc": percent(accuracy)} | speed

    def _get_train_description(self, current_epoch: int) -> str:
        return f"{f'Epoch {_epoch(self.trainer)}':{len(self.validation_description)}}"


class EpochLines(L.Callback):
    """A plain table with one line an epoch, and how long the run will take, as soon as its steps tell."""

    def on_train_start(self, trainer: L.Trainer, module: Any) -> None:
        self._started, self._columns, self._validated = time.perf_counter(), COLUMNS, -1
        if (name := module.monitor.rpartition("/")[2]) not in ("acc", "loss"):  # in the place of accuracy
            named = {"val acc": f"val {name}"[:10]}
            self._columns = {named.get(title, title): column for title, column in COLUMNS.items()}
            self._columns[named["val acc"]] = (module.monitor, digits)
        steps = int(trainer.estimated_stepping_batches) - trainer.global_step
        self._left, self._done, self._told = steps * trainer.accumulate_grad_batches, 0, False  # batches
        _print(LINE.format("epoch", *self._columns, "seconds"), flush=True)

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        now, self._done = time.perf_counter(), self._done + 1
        if self._done <= WARM_UP:
            self._counted_from = now
        elif not self._told and (spent := now - self._counted_from) > FEW:
            self._told, seconds = True, self._left * spent / (self._done - WARM_UP)
            if seconds > 2 * FEW:
                _print(estimate(seconds, self._left / trainer.num_training_batches, trainer), flush=True)

    def on_validation_end(self, trainer: L.Trainer, *_: Any) -> None:
        self._validated = trainer.current_epoch

    def on_train_epoch_end(self, trainer: L.Trainer, *_: Any) -> None:
        old = () if self._validated == trainer.current_epoch else "val/"  # of an epoch before
        metrics = {key: value for key, value in trainer.callback_metrics.items() if not key.startswith(old)}
        cells = [form(float(metrics[key])) if key in metrics else "-" for key, form in self._columns.values()]
        _print(LINE.format(_epoch(trainer), *cells, f"{time.perf_counter() - self._started:.0f}"), flush=True)


def estimate(seconds: float, count: float, trainer: L.Trainer) -> str:
    """How long so many epochs take; where that is long for a laptop, how many take half an hour."""
    words, fewer = f"about {duration(seconds)} for {epochs(count)}", max(int(HALF_HOUR * count / seconds), 1)
    if seconds < HOUR or trainer.strategy.root_device.type != "cpu" or not fewer < count == trainer.max_epochs:
        return f"{words} on this machine"
    return f"{words}; for a laptop: trainer.max_epochs={fewer} ({duration(seconds * fewer / count)})"


_print = rank_zero_only(print)


def _epoch(trainer: L.Trainer) -> str:
    return f"{trainer.current_epoch + 1}/{trainer.max_epochs}"
