"""The training metrics of each epoch, before other callbacks read them."""

from __future__ import annotations

import lightning as L

from src.model.classifier import Classifier


class EpochMetrics(L.Callback):
    """Has the classifier log them when an epoch ends; Lightning calls a module's own hook after those of callbacks."""

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, Classifier)
        pl_module.log_epoch()
