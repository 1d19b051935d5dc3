"""The learning rate and the size of the gradient, in the logs."""

from __future__ import annotations

import lightning as L
import torch
from torch.optim import Optimizer


class StepMetrics(L.Callback):
    """Logs `train/learning_rate` and `train/gradient_norm` of every `log_every_n_steps`-th step.

    The norm is that of all gradients together, before they are clipped. Lightning's LearningRateMonitor logs for each
    batch whose gradients are accumulated, under the same step.
    """

    def __init__(self, gradient_norm: bool) -> None:
        self._gradient_norm = gradient_norm

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Optimizer) -> None:
        step = trainer.global_step
        if (step + 1) % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            found = {"train/learning_rate": optimizer.param_groups[0]["lr"]}
            if self._gradient_norm:
                found["train/gradient_norm"] = self._norm(trainer, pl_module, optimizer)
            for logger in trainer.loggers:
                logger.log_metrics(found, step=step)

    @staticmethod
    def _norm(trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Optimizer) -> float:
        gradients = [weight.grad for weight in pl_module.parameters() if weight.grad is not None]
        norm = float(torch.nn.utils.get_total_norm(gradients))
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        # a fused optimizer unscales the gradients itself, in the step that follows
        scaled = scaler is not None and getattr(optimizer, "_step_supports_amp_scaling", False)
        return norm / scaler.get_scale() if scaled and scaler else norm
