"""The size of the gradient, in the logs."""

from __future__ import annotations

import lightning as L
import torch
from torch.optim import Optimizer


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
