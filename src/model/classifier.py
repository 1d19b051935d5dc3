"""Any network as a classifier in training: loss, metrics, optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import MulticlassAccuracy

from src.data.sampling import Batch, step_seed

PHASES = ("train", "val", "test")


class Classifier(L.LightningModule):
    """Cross-entropy on the logits of `network`, with loss and top-1 accuracy over each epoch.

    Args:
        network: float images (B, C, S, S) -> logits (B, num_classes).
        label_smoothing: of the training loss only, so that the scored losses of all runs compare.
        about: plain values that each checkpoint carries, so that it describes itself.
        seed: dropout in step k is a function of this, k and the process.
    """

    def __init__(
        self,
        network: nn.Module,
        num_classes: int,
        optimizer: Callable[[Iterator[nn.Parameter]], Optimizer],
        scheduler: Callable[[Optimizer, int], LRScheduler],
        about: dict[str, Any],
        label_smoothing: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.network = network
        self.about = about
        self.label_smoothing = label_smoothing
        self.seed = seed
        self._optimizer, self._scheduler = optimizer, scheduler
        for phase in PHASES:  # with their own checks, each would wait for the device in each step
            self.add_module(f"{phase}_loss", MeanMetric(nan_strategy="disable"))
            self.add_module(f"{phase}_acc", MulticlassAccuracy(num_classes, average="micro", validate_args=False))

    @property
    def _metrics(self) -> dict[str, Metric]:
        return {name: module for name, module in self.named_children() if isinstance(module, Metric)}

    def forward(self, images: Tensor) -> Tensor:
        """float (B, C, S, S) -> logits (B, num_classes)"""
        return self.network(images)

    def _step(self, batch: Batch, phase: str) -> dict[str, Tensor]:
        images, labels = batch
        logits = self(images)  # (B, num_classes)
        smoothing = self.label_smoothing if phase == "train" else 0.0
        loss = F.cross_entropy(logits, labels, label_smoothing=smoothing)
        metrics = {"loss": self._metrics[f"{phase}_loss"], "acc": self._metrics[f"{phase}_acc"]}
        metrics["loss"].update(loss.detach(), len(labels))
        metrics["acc"].update(logits.detach(), labels)
        for name, metric in metrics.items():
            self.log(f"{phase}/{name}", metric, on_step=False, on_epoch=True, prog_bar=phase == "val")
        return {"loss": loss, "logits": logits.detach()}

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        step = self.trainer.fit_loop.epoch_loop.total_batch_idx
        torch.manual_seed(step_seed(self.seed, step, self.global_rank, "dropout"))

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        return self._step(batch, "train")

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._step(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        return self._step(batch, "test")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["about"] = self.about

    def configure_optimizers(self) -> Any:
        optimizer = self._optimizer(self.network.parameters())
        scheduler = self._scheduler(optimizer, int(self.trainer.estimated_stepping_batches))
        every_step = {"scheduler": scheduler, "interval": "step", "name": "train/learning_rate"}
        return {"optimizer": optimizer, "lr_scheduler": every_step}
