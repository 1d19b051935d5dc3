"""What a run logs of its training."""

from __future__ import annotations

import time
from typing import Any

import lightning as L
import torch
from torch.optim import Optimizer

WARM_UP = 2  # steps of the process, in which kernels are chosen and memory is fetched; they are not counted


class LogMetrics(L.Callback):
    """Logs `train/learning_rate` of every `log_every_n_steps`-th step, that of each group of weights beside it, and of
    each epoch `train/images_per_second`, validation and checkpoints left out; the whole run's is kept in `rate`."""

    # Lightning's LearningRateMonitor logs for each batch whose gradients are accumulated, under the same step; its
    # ThroughputMonitor waits for the device in each step, and counts validations

    def __init__(self) -> None:
        self._steps, self._mark = 0, 0.0  # steps taken; when the one at hand began
        self._all = self._before = (0, 0.0)  # images and seconds of all epochs; the same when the epoch at hand began

    @property
    def rate(self) -> float | None:
        """Images a second over all epochs, on all devices together; None if too few steps were taken."""
        images, seconds = self._all
        return images / seconds if seconds else None

    @property
    def running(self) -> float | None:
        """The same in the epoch at hand."""
        images, seconds = (now - before for now, before in zip(self._all, self._before, strict=True))
        return images / seconds if images else None

    def state_dict(self) -> dict[str, Any]:
        return {"images": self._all[0], "seconds": self._all[1]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._all = self._before = (state_dict["images"], state_dict["seconds"])

    def on_train_epoch_start(self, *_: Any) -> None:
        self._before, self._mark = self._all, time.perf_counter()

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, outputs: Any, batch: Any, *_: Any) -> None:
        if trainer.is_last_batch:
            float(outputs["loss"])  # a GPU may still be at work on the last steps
        now, (images, seconds) = time.perf_counter(), self._all
        self._steps += 1
        if self._steps > WARM_UP:
            self._all = images + len(batch[1]) * trainer.world_size, seconds + now - self._mark
        self._mark = now
        if trainer.is_last_batch and (rate := self.running) is not None:
            module.log("train/images_per_second", rate, on_step=False, on_epoch=True, sync_dist=True)

    def on_validation_end(self, *_: Any) -> None:
        self._mark = time.perf_counter()

    def on_before_optimizer_step(self, trainer: L.Trainer, module: Any, optimizer: Optimizer) -> None:
        if (trainer.global_step + 1) % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            groups = optimizer.param_groups
            rates = {f"train/learning_rate/{group['name']}": group["lr"] for group in groups if "name" in group}
            rates["train/learning_rate"] = groups[0]["lr"]
            for logger in trainer.loggers:
                logger.log_metrics(rates, step=trainer.global_step)


class GradientNorm(L.Callback):
    """Logs `train/gradient_norm` of every `log_every_n_steps`-th step: of all gradients together, before clipping."""

    def on_before_optimizer_step(self, trainer: L.Trainer, module: L.LightningModule, optimizer: Optimizer) -> None:
        if (trainer.global_step + 1) % trainer.log_every_n_steps:  # type: ignore[attr-defined]
            return
        norm = torch.nn.utils.get_total_norm([weight.grad for weight in module.parameters() if weight.grad is not None])
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        if scaler and getattr(optimizer, "_step_supports_amp_scaling", False):
            norm = norm / scaler.get_scale()  # a fused optimizer unscales them itself, in the step that follows
        for logger in trainer.loggers:
            logger.log_metrics({"train/gradient_norm": float(norm)}, step=trainer.global_step)
