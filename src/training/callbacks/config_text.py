"""The config as text in TensorBoard."""

from __future__ import annotations

import lightning as L
from lightning.pytorch.loggers import TensorBoardLogger


class ConfigText(L.Callback):
    """Writes `yaml` to TensorBoard's text page when training starts."""

    def __init__(self, yaml: str) -> None:
        self._yaml = yaml

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger) and trainer.is_global_zero:
                # four spaces make a block in TensorBoard's Markdown
                logger.experiment.add_text("config", "\n".join(f"    {line}" for line in self._yaml.splitlines()))
