"""Any network as a classifier in training: its loss, its metrics, its optimizer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import MulticlassAccuracy

from src.data.batches import Batch, step_seed
from src.model.parameters import Parameters, trainable
from src.model.saved import ABOUT, About, Content

Loss = Callable[[Tensor, Tensor], Tensor]


class Classifier(L.LightningModule):
    """A `network`, what trains it and what is measured: loss and top-1 accuracy over each epoch, and in validation and
    test the `metrics` besides.

    `loss` (logits (B, K), labels int64 (B,) or float (B, K)) -> scalar is of the training only: what is scored is
    cross-entropy, so that all runs compare. Dropout in step k is a function of `seed`, k and the process.
    """

    def __init__(
        self,
        network: nn.Module,
        loss: Loss,
        metrics: Mapping[str, Metric],
        optimizer: Callable[[Parameters], Optimizer],
        scheduler: Callable[[Optimizer, int], LRScheduler],
        about: About,
        monitor: str = "val/acc",
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.network, self.loss, self.about = network, loss, about
        self.monitor, self.seed = monitor, seed
        self._optimizer, self._scheduler, self._scored = optimizer, scheduler, tuple(metrics)
        self._resumed: Content = {}  # the checkpoint, as Lightning will read it
        self._counts: list[int] = []  # images of each batch whose gradients are accumulated
        for phase in ("train", "val", "test"):  # with their own checks, each would wait for the device in each step
            self.add_module(f"{phase}_loss", MeanMetric(nan_strategy="disable"))
            accuracy = MulticlassAccuracy(len(about.classes), average="micro", validate_args=False)
            self.add_module(f"{phase}_acc", accuracy)
            for name in self._scored if phase != "train" else ():
                self.add_module(f"{phase}_{name}", metrics[name].clone())

    def forward(self, images: Tensor) -> Tensor:
        """float (B, C, S, S) -> logits (B, number of classes)"""
        return self.network(images)

    def _step(self, batch: Batch, phase: str) -> dict[str, Tensor]:
        images, labels = batch
        logits = self(images).float()  # half precision would round what is measured
        loss = self.loss(logits, labels) if phase == "train" else F.cross_entropy(logits, labels)
        metrics = self._metrics(phase)
        classes = labels if labels.ndim == 1 else labels.argmax(1)  # of mixed images, the one with the most part
        metrics.pop("loss").update(loss.detach().expand(len(labels)))  # nan_strategy="disable" would drop a weight
        for metric in metrics.values():
            metric.update(logits.detach(), classes)
        if phase != "train":
            for name, metric in self._metrics(phase).items():
                self.log(f"{phase}/{name}", metric, on_step=False, on_epoch=True, prog_bar=phase == "val")
        return {"loss": loss, "logits": logits.detach(), "classes": classes}

    def _metrics(self, phase: str) -> dict[str, Metric]:
        names = ("loss", "acc", *(self._scored if phase != "train" else ()))
        return {name: getattr(self, f"{phase}_{name}") for name in names}

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        step = self.trainer.current_epoch * int(self.trainer.num_training_batches) + batch_idx
        torch.manual_seed(step_seed(self.seed, step, self.global_rank, "dropout"))

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        first = batch_idx % self.trainer.accumulate_grad_batches == 0
        self._counts = [*([] if first else self._counts), len(batch[0])]
        return self._step(batch, "train")

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Accumulates a gradient in which each batch weighs as many images as it has."""
        super().backward(loss * (self._counts[-1] / self._counts[0]), *args, **kwargs)

    def on_after_backward(self) -> None:
        """Makes that of a group the mean over its images: Lightning divides by the batches of a full group."""
        wanted = self.trainer.accumulate_grad_batches
        if len(self._counts) == wanted or self.trainer.is_last_batch:
            taken = sum(self._counts) / self._counts[0]
            for weight in self.parameters() if taken != wanted else ():
                if weight.grad is not None:
                    weight.grad *= wanted / taken

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        return self._step(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        return self._step(batch, "test")

    def means(self) -> Tensor:
        """float (2,): loss and accuracy of the epoch so far, of this process; `compute` would exchange them."""
        loss: Any = self.train_loss
        accuracy: Any = self.train_acc
        return torch.stack([loss.mean_value / loss.weight, (accuracy.tp / (accuracy.tp + accuracy.fn)).squeeze()])

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
            checkpoint["total_steps"] = int(self.trainer.estimated_stepping_batches)
            states = {name: metric.metric_state for name, metric in self._metrics("train").items()}
            alone = self.trainer.world_size == 1  # then Lightning gives them back as they are
            gathered = apply_to_collection(states, Tensor, torch.unsqueeze, 0) if alone else self.all_gather(states)
            checkpoint["epoch_so_far"] = gathered  # each tensor (processes, ...)

    def on_load_checkpoint(self, checkpoint: Content) -> None:
        self._resumed = checkpoint
        for name, metric in self._metrics("train").items():
            for key, values in checkpoint["epoch_so_far"][name].items():
                setattr(metric, key, values[self.global_rank].clone())
            metric._update_count = 1  # else it warns that nothing was counted

    def on_validation_epoch_end(self) -> None:
        scheduler: Any = self.lr_schedulers() if self.trainer.state.fn == "fit" else None
        if isinstance(scheduler, ReduceLROnPlateau) and self.monitor in self.trainer.callback_metrics:
            scheduler.step(float(self.trainer.callback_metrics[self.monitor]))

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        if not isinstance(scheduler, ReduceLROnPlateau):  # Lightning leaves it out in an epoch that a run goes on in
            scheduler.step()

    def configure_optimizers(self) -> Any:
        optimizer = self._optimizer(trainable(self))
        total, resumed, self._resumed = int(self.trainer.estimated_stepping_batches), self._resumed, {}
        scheduler = self._scheduler(optimizer, total)
        if resumed and resumed.get("total_steps") != total and not isinstance(scheduler, ReduceLROnPlateau):
            # more epochs were asked for: Lightning is given the new schedule, at the step that the run has come to
            for _ in range(resumed["global_step"]):
                scheduler.step()
            resumed["lr_schedulers"] = [scheduler.state_dict()]
            for old, group in zip(resumed["optimizer_states"][0]["param_groups"], optimizer.param_groups, strict=True):
                old |= {key: value for key, value in group.items() if key != "params"}
        interval = "epoch" if isinstance(scheduler, ReduceLROnPlateau) else "step"
        when = {"interval": interval, "monitor": self.monitor, "strict": False}  # a plateau alone needs the last two
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, **when}}
