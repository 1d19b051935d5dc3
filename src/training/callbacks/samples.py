"""What the network sees in training."""

from __future__ import annotations

from typing import Any

import lightning as L

from src.config.schema import PositiveInt
from src.results.figures.tiles import as_colour
from src.training.callbacks.pictures import square, tensorboard


class Samples(L.Callback):
    """Shows `count` images of the first batch in TensorBoard, augmented, in at most 96 pixels each."""

    def __init__(self, count: PositiveInt = 16) -> None:
        self._count = count

    def on_train_batch_start(self, trainer: L.Trainer, module: L.LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == batch_idx == 0 and (writer := tensorboard(trainer)):
            normalized = trainer.datamodule.preparation  # type: ignore[attr-defined]
            mean, std = (values.view(-1, 1, 1) for values in (normalized.mean, normalized.std))
            images = (batch[0][: self._count].float() * std + mean).clamp(0, 1).cpu()
            writer.add_images("training images, augmented", as_colour(square(images, 96)), 0)
