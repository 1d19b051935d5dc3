"""Any network as a classifier in training: loss, metrics, optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import MulticlassAccuracy

from src.data.batches import Batch, step_seed
from src.model.saved import ABOUT, About, Content


class Classifier(L.LightningModule):
    """Cross-entropy on the logits of `network`, with loss and top-1 accuracy over each epoch.

    `label_smoothing` is of the training loss only, so that the scored losses of all runs compare; dropout in step k is
    a function of `seed`, k and the process.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: Callable[[Iterator[nn.Parameter]], Optimizer],
        scheduler: Callable[[Optimizer, int], LRScheduler],
        about: About,
        label_smoothing: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.network, self.about = network, about
        self.label_smoothing, self.seed = label_smoothing, seed
        self._optimizer, self._scheduler = optimizer, scheduler
        for phase in ("train", "val", "test"):  # with their own checks, each would wait for the device in each step
            self.add_module(f"{phase}_loss", MeanMetric(nan_strategy="disable"))
            accuracy = MulticlassAccuracy(len(about.classes), average="micro", validate_args=False)
            self.add_module(f"{phase}_acc", accuracy)

    def forward(self, images: Tensor) -> Tensor:
        """float (B, C, S, S) -> logits (B, number of classes)"""
        return self.network(images)

    def _step(self, batch: Batch, phase: str) -> dict[str, Tensor]:
        images, labels = batch
        logits = self(images)
        smoothing = self.label_smoothing if phase == "train" else 0.0
        loss = F.cross_entropy(logits, labels, label_smoothing=smoothing)
        metrics = self._metrics(phase)
        metrics["loss"].update(loss.detach().expand(len(labels)))  # nan_strategy="disable" would drop a weight
        metrics["acc"].update(logits.detach(), labels)
        if phase != "train":
            for name, metric in metrics.items():
                self.log(f"{phase}/{name}", metric, on_step=False, on_epoch=True, prog_bar=phase == "val")
        return {"loss": loss, "logits": logits.detach()}

    def _metrics(self, phase: str) -> dict[str, Metric]:
        return {name: getattr(self, f"{phase}_{name}") for name in ("loss", "acc")}

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        step = self.trainer.current_epoch * int(self.trainer.num_training_batches) + batch_idx
        torch.manual_seed(step_seed(self.seed, step, self.global_rank, "dropout"))

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        return self._step(batch, "train")

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        return self._step(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        return self._step(batch, "test")

    def log_epoch(self) -> None:
        """Log and reset the epoch's training metrics; not in each step, for a run resumed at its end takes none."""
        for name, metric in self._metrics("train").items():
            if metric.update_called:
                self.log(f"train/{name}", metric.compute())
            metric.reset()

    def on_save_checkpoint(self, checkpoint: Content) -> None:
        checkpoint["loops"] = {}  # Lightning's depend on the hook in which they are saved
        checkpoint[ABOUT] = self.about.model_dump()  # plain values, which weights_only=True loads
        if "optimizer_states" in checkpoint:
            states = {name: metric.metric_state for name, metric in self._metrics("train").items()}
            alone = self.trainer.world_size == 1  # then Lightning gives them back as they are
            gathered = apply_to_collection(states, Tensor, torch.unsqueeze, 0) if alone else self.all_gather(states)
            checkpoint["epoch_so_far"] = gathered  # each tensor (processes, ...)

    def on_load_checkpoint(self, checkpoint: Content) -> None:
        for name, metric in self._metrics("train").items():
            for key, values in checkpoint["epoch_so_far"][name].items():
                setattr(metric, key, values[self.global_rank].clone())
            metric._update_count = 1  # else it warns that nothing was counted

    def configure_optimizers(self) -> Any:
        optimizer = self._optimizer(weight for weight in self.network.parameters() if weight.requires_grad)
        scheduler = self._scheduler(optimizer, int(self.trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
