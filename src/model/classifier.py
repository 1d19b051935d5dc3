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

from src.config.errors import RunError
from src.data.batches import Batch, step_seed

PHASES = ("train", "val", "test")


class Classifier(L.LightningModule):
    """Cross-entropy on the logits of `network`, with loss and top-1 accuracy over each epoch.

    Args:
        network: float images (B, C, S, S) -> logits (B, num_classes).
        label_smoothing: of the training loss only, so that the scored losses of all runs compare.
        about: plain values that each checkpoint carries, so that it describes itself.
        seed: dropout in step k is a function of this, k and the process.
        skip_nan: leave out a step whose loss is NaN or infinite, and count it in `skipped`.
    """

    PATIENCE = 10  # steps left out in a row, before the run is given up

    def __init__(
        self,
        network: nn.Module,
        num_classes: int,
        optimizer: Callable[[Iterator[nn.Parameter]], Optimizer],
        scheduler: Callable[[Optimizer, int], LRScheduler],
        about: dict[str, Any],
        label_smoothing: float = 0.0,
        seed: int = 0,
        skip_nan: bool = False,
    ) -> None:
        super().__init__()
        self.network = network
        self.about = about
        self.label_smoothing = label_smoothing
        self.seed = seed
        self.skip_nan, self.skipped = skip_nan, 0
        self._step_is_bad, self._skipped_in_a_row = False, 0
        self._buffers_before: list[Tensor] = []
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
        result = {"loss": loss, "logits": logits.detach()}
        if phase == "train" and self.skip_nan and not loss.isfinite():
            self._step_is_bad = True
            return result
        metrics = self._of(phase)
        metrics["loss"].update(loss.detach().expand(len(labels)))  # nan_strategy="disable" would drop a weight
        metrics["acc"].update(logits.detach(), labels)
        if phase != "train":
            for name, metric in metrics.items():
                self.log(f"{phase}/{name}", metric, on_step=False, on_epoch=True, prog_bar=phase == "val")
        return result

    def _of(self, phase: str) -> dict[str, Metric]:
        return {name: self._metrics[f"{phase}_{name}"] for name in ("loss", "acc")}

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        step = self.trainer.fit_loop.epoch_loop.total_batch_idx
        torch.manual_seed(step_seed(self.seed, step, self.global_rank, "dropout"))
        if self.skip_nan and batch_idx % self.trainer.accumulate_grad_batches == 0:
            self._buffers_before = [buffer.clone() for buffer in self.network.buffers()]

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        return self._step(batch, "train")

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        return self._step(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        return self._step(batch, "test")

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        if self.skip_nan:
            bad = self.trainer.strategy.reduce_boolean_decision(self._step_is_bad, all=False)
            self._step_is_bad = False
            self.skipped += bad
            self._skipped_in_a_row = self._skipped_in_a_row + 1 if bad else 0
            if bad:
                self._skip(optimizer)

    def _skip(self, optimizer: Optimizer) -> None:
        if self._skipped_in_a_row == self.PATIENCE:
            raise RunError(
                f"the loss was NaN or infinite in {self.PATIENCE} steps in a row, the last of them step "
                f"{self.trainer.global_step + 1}: the weights are lost. Begin again with a smaller optimizer.lr.",
                everywhere=True,
            )
        if getattr(self.trainer.precision_plugin, "scaler", None) is None:  # which leaves out such a step itself
            optimizer.zero_grad(set_to_none=True)  # no parameter moves without a gradient
        for buffer, before in zip(self.network.buffers(), self._buffers_before, strict=True):
            buffer.copy_(before)  # running statistics have seen the batch

    def log_epoch(self) -> None:
        """Log the training metrics of the epoch, and begin anew.

        Not in each step: a run that is resumed before its last validation takes no step any more.
        """
        for name, metric in self._of("train").items():
            if metric.update_called:
                self.log(f"train/{name}", metric.compute())
            metric.reset()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["about"] = self.about
        if "optimizer_states" in checkpoint:
            states = {name: metric.metric_state for name, metric in self._of("train").items()}
            gathered: Any = self.all_gather(states)
            one = self.trainer.world_size == 1
            checkpoint["epoch_so_far"] = {  # each tensor (processes, ...)
                name: {key: value[None] if one else value for key, value in state.items()}
                for name, state in gathered.items()
            }
            checkpoint["skipped"] = [self.skipped, self._skipped_in_a_row]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.skipped, self._skipped_in_a_row = checkpoint["skipped"]
        for name, metric in self._of("train").items():
            for key, values in checkpoint["epoch_so_far"][name].items():
                setattr(metric, key, values[self.global_rank].clone())
            metric._update_count = 1  # else it warns that nothing was counted

    def configure_optimizers(self) -> Any:
        optimizer = self._optimizer(self.network.parameters())
        scheduler = self._scheduler(optimizer, int(self.trainer.estimated_stepping_batches))
        every_step = {"scheduler": scheduler, "interval": "step", "name": "train/learning_rate"}
        return {"optimizer": optimizer, "lr_scheduler": every_step}
