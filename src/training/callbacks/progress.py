"""What a run shows while it trains: a bar on a terminal, a line an epoch elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any, ClassVar

import lightning as L
import torch
from lightning.pytorch.callbacks import RichProgressBar
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, TextColumn, TimeRemainingColumn
from torch import Tensor

from src.training.callbacks.throughput import Throughput


class ProgressBar(RichProgressBar):
    """Lightning's bar with loss and accuracy of the batch at hand and images a second, in 80 columns."""

    PAUSE = 0.2  # seconds between two drawings; Lightning's own bar draws, and reads the loss, in each step

    def __init__(self, throughput: Throughput) -> None:
        super().__init__(leave=True)
        self._throughput = throughput
        self._drawn = 0.0
        self._underway: Tensor | None = None  # float (2,): loss and accuracy
        self._shown: Tensor | None = None

    def configure_columns(self, trainer: L.Trainer) -> list[ProgressColumn]:
        time_left = TimeRemainingColumn(compact=True, elapsed_when_finished=True)
        return [TextColumn("{task.description}"), BarColumn(bar_width=5), MofNCompleteColumn(), time_left]

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now = time.perf_counter()
        if now - self._drawn >= self.PAUSE or trainer.is_last_batch:
            self._drawn = now
            self._look(outputs, batch[1])
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def _look(self, outputs: Any, labels: Tensor) -> None:
        accuracy = (outputs["logits"].argmax(1) == labels).float().mean()
        fresh = torch.stack([outputs["loss"].float(), accuracy]).to("cpu", non_blocking=True)
        # a GPU has yet to compute it: what was sent at the drawing before has arrived, and is shown without a wait
        self._shown, self._underway = self._underway if labels.is_cuda else fresh, fresh

    def get_metrics(self, trainer: L.Trainer, pl_module: L.LightningModule) -> Any:
        metrics: dict[str, str] = {}
        if trainer.training and self._shown is not None:
            loss, accuracy = self._shown.tolist()
            metrics |= {"loss": f"{loss:.3f}", "acc": f"{accuracy:.1%}"}
            metrics |= {"img/s": f"{rate:.0f}"} if (rate := self._throughput.running) else {}
        validated = trainer.callback_metrics.get("val/acc")
        return metrics if validated is None else metrics | {"val": f"{float(validated):.1%}"}

    def _get_train_description(self, current_epoch: int) -> str:
        return f"{f'Epoch {_epoch(self.trainer)}':{len(self.validation_description)}}"


class EpochLines(L.Callback):
    """A plain table with one line an epoch, for pipes, files and job logs."""

    COLUMNS: ClassVar = {
        "train loss": ("train/loss", ".4f"),
        "train acc": ("train/acc", ".2%"),
        "val loss": ("val/loss", ".4f"),
        "val acc": ("val/acc", ".2%"),
        "images/s": ("train/images_per_second", ".0f"),
    }

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._started = time.perf_counter()
        self._print(trainer, "epoch", list(self.COLUMNS), "seconds")

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        metrics = trainer.callback_metrics
        cells = [format(float(metrics[key]), style) if key in metrics else "-" for key, style in self.COLUMNS.values()]
        self._print(trainer, _epoch(trainer), cells, f"{time.perf_counter() - self._started:.0f}")

    @staticmethod
    def _print(trainer: L.Trainer, epoch: str, cells: list[str], seconds: str) -> None:
        if trainer.is_global_zero:
            print(f"{epoch:>9} ", *(f"{cell:>10}" for cell in cells), f"{seconds:>8}", flush=True)


def _epoch(trainer: L.Trainer) -> str:
    """Counted from 1, of how many."""
    return f"{trainer.current_epoch + 1}/{trainer.max_epochs}"


def progress_callback(throughput: Throughput) -> L.Callback:
    return ProgressBar(throughput) if sys.stdout.isatty() else EpochLines()
