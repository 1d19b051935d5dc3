"""What every run logs of its training."""

from __future__ import annotations

import lightning as L
from torch.optim import Optimizer


class LogMetrics(L.Callback):
    """Logs `train/learning_rate` of every `log_every_n_steps`-th step, and the training metrics when an epoch ends.

    Lightning's LearningRateMonitor logs for each batch whose gradients are accumulated, under the same step; and it
    calls a module's own hook at an epoch's end after those of callbacks, some of which read the metrics.
    """

    def on_before_optimizer_step(self, trainer: L.Trainer, module: L.LightningModule, optimizer: Optimizer) -> None:
        if (trainer.global_step + 1) % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            for logger in trainer.loggers:
                rate = optimizer.param_groups[0]["lr"]
                logger.log_metrics({"train/learning_rate": rate}, step=trainer.global_step)

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        module.log_epoch()  # type: ignore[operator]
