"""What a run shows while it trains: a bar on a terminal, a line an epoch elsewhere."""

from __future__ import annotations

import time
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, TextColumn, TimeRemainingColumn
from torch import Tensor

from src.training.callbacks.log_metrics import LogMetrics

PAUSE = 0.2  # seconds between two drawings; Lightning's own bar draws, and reads the loss, in each step
COLUMNS = {
    "train loss": ("train/loss", ".4f"),
    "train acc": ("train/acc", ".2%"),
    "val loss": ("val/loss", ".4f"),
    "val acc": ("val/acc", ".2%"),
    "images/s": ("train/images_per_second", ".0f"),
}
LINE = "{:>9} " + " {:>10}" * len(COLUMNS) + " {:>8}"


class ProgressBar(RichProgressBar):
    """Lightning's bar with loss and accuracy of the batch at hand and images a second, in 80 columns."""

    def __init__(self, metrics: LogMetrics) -> None:
        super().__init__(leave=True)
        self._metrics, self._drawn = metrics, 0.0
        self._shown: Tensor | None = None  # float (2,): loss and accuracy
        self._underway: Tensor | None = None

    def configure_columns(self, trainer: L.Trainer) -> list[ProgressColumn]:
        time_left = TimeRemainingColumn(compact=True, elapsed_when_finished=True)
        return [TextColumn("{task.description}"), BarColumn(bar_width=5), MofNCompleteColumn(), time_left]

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        now, labels = time.perf_counter(), outputs["classes"]
        if now - self._drawn >= PAUSE or trainer.is_last_batch:
            self._drawn = now
            accuracy = (outputs["logits"].argmax(1) == labels).float().mean()
            loss = outputs["loss"].float() * trainer.accumulate_grad_batches  # Lightning has divided it
            fresh = torch.stack([loss, accuracy]).to("cpu", non_blocking=True)
            # a GPU has yet to compute it: what was sent at the drawing before has arrived, and is shown without a wait
            self._shown, self._underway = self._underway if labels.is_cuda else fresh, fresh
            super().on_train_batch_end(trainer, module, outputs, batch, batch_idx)

    def get_metrics(self, trainer: L.Trainer, *_: Any) -> Any:
        metrics = {}
        if trainer.training and self._shown is not None:
            loss, accuracy = self._shown.tolist()
            metrics = {"loss": f"{loss:.3f}", "acc": f"{accuracy:.1%}"}
            if rate := self._metrics.running:
                metrics["img/s"] = f"{rate:.0f}"
        monitor = str(trainer.lightning_module.monitor)
        if (validated := trainer.callback_metrics.get(monitor)) is not None:
            metrics["val"] = format(float(validated), ".1%" if monitor == "val/acc" else ".4f")
        return metrics

    def _get_train_description(self, current_epoch: int) -> str:
        return f"{f'Epoch {_epoch(self.trainer)}':{len(self.validation_description)}}"


class EpochLines(L.Callback):
    """A plain table with one line an epoch, for pipes, files and job logs."""

    def on_train_start(self, trainer: L.Trainer, module: Any) -> None:
        self._started, self._columns, self._validated = time.perf_counter(), COLUMNS, -1
        if (name := module.monitor.rpartition("/")[2]) not in ("acc", "loss"):  # in the place of accuracy
            named = {"val acc": f"val {name}"[:10]}
            self._columns = {named.get(title, title): column for title, column in COLUMNS.items()}
            self._columns[named["val acc"]] = (module.monitor, ".4f")
        _print(LINE.format("epoch", *self._columns, "seconds"), flush=True)

    def on_validation_end(self, trainer: L.Trainer, *_: Any) -> None:
        self._validated = trainer.current_epoch

    def on_train_epoch_end(self, trainer: L.Trainer, *_: Any) -> None:
        old = () if self._validated == trainer.current_epoch else "val/"  # of an epoch before
        metrics = {key: value for key, value in trainer.callback_metrics.items() if not key.startswith(old)}
        cells = [format(float(metrics[key]), style) if key in metrics else "-" for key, style in self._columns.values()]
        _print(LINE.format(_epoch(trainer), *cells, f"{time.perf_counter() - self._started:.0f}"), flush=True)


_print = rank_zero_only(print)


def _epoch(trainer: L.Trainer) -> str:
    return f"{trainer.current_epoch + 1}/{trainer.max_epochs}"
