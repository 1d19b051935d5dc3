"""What a run shows while it trains: a bar on a terminal, a line an epoch elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.callbacks.progress.rich_progress import RichProgressBarTheme
from torch import Tensor

from src.callbacks.throughput import Throughput


class ProgressBar(RichProgressBar):
    """Lightning's bar with the running loss and images a second."""

    REFRESH_EVERY = 10  # steps; each reads the loss off the device

    def __init__(self, throughput: Throughput) -> None:
        super().__init__(refresh_rate=self.REFRESH_EVERY, theme=RichProgressBarTheme(metrics_format=".4g"))
        self._throughput = throughput
        self._loss: Tensor | None = None

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._loss = outputs["loss"]
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def get_metrics(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Any]:
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        if trainer.training and self._loss is not None:
            rate = self._throughput.running
            metrics = {"loss": float(self._loss), **({"img/s": round(rate)} if rate else {}), **metrics}
        return metrics


class EpochLines(L.Callback):
    """One plain line an epoch, for pipes, files and job logs."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._started = time.perf_counter()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        named = {
            "train loss": "train/loss",
            "train acc": "train/acc",
            "val loss": "val/loss",
            "val acc": "val/acc",
            "images/s": "train/images_per_second",
        }
        found = {
            words: trainer.callback_metrics[name] for words, name in named.items() if name in trainer.callback_metrics
        }
        numbers = "  ".join(f"{words} {float(value):.4g}" for words, value in found.items())
        seconds = time.perf_counter() - self._started
        print(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  {numbers}  {seconds:.0f} s", flush=True)


def progress_callback(throughput: Throughput) -> L.Callback:
    return ProgressBar(throughput) if sys.stdout.isatty() else EpochLines()
