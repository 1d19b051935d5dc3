"""The learning rate, in the logs."""

from __future__ import annotations

import lightning as L
from torch.optim import Optimizer


class LearningRate(L.Callback):
    """Logs `train/learning_rate` of every `log_every_n_steps`-th step.

    Lightning's LearningRateMonitor logs it for each batch whose gradients are accumulated, under the same step.
    """

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Optimizer) -> None:
        step = trainer.global_step
        if (step + 1) % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            for logger in trainer.loggers:
                logger.log_metrics({"train/learning_rate": optimizer.param_groups[0]["lr"]}, step=step)
