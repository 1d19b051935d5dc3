"""The confusion matrix of a test."""

from __future__ import annotations

from typing import Any

import lightning as L
from torch import Tensor
from torchmetrics.classification import MulticlassConfusionMatrix


class Confusion(L.Callback):
    """Counts, in `matrix` int64 (true class, predicted class), what the last test answered."""

    def __init__(self, num_classes: int) -> None:
        self._metric = MulticlassConfusionMatrix(num_classes, validate_args=False)
        self.matrix: Tensor | None = None

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._metric.to(pl_module.device).reset()

    def on_test_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._metric.update(outputs["logits"], batch[1])

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.matrix = self._metric.compute().cpu()
