"""Pictures for TensorBoard.

A validation's stand at the step under which Lightning logs it, `trainer.global_step - 1`.
"""

from __future__ import annotations

from typing import Any

import lightning as L
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor
from torchvision.transforms.v2.functional import resize

from src.config.schema import PositiveInt
from src.model.predictor import first_filters
from src.results.figures import canvas, scores, tiles
from src.training.callbacks.recorder import recorded


class Samples(L.Callback):
    """Shows `count` images of the first batch, augmented, as the network sees them, in at most 96 pixels each."""

    def __init__(self, count: PositiveInt = 16) -> None:
        self._count = count

    def on_train_batch_start(self, trainer: L.Trainer, module: L.LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == batch_idx == 0 and (writer := tensorboard(trainer)):
            normalized = trainer.datamodule.preparation  # type: ignore[attr-defined]
            mean, std = (values.view(-1, 1, 1) for values in (normalized.mean, normalized.std))
            images = (batch[0][: self._count].float() * std + mean).clamp(0, 1).cpu()
            writer.add_images("training images, augmented", tiles.as_colour(square(images, 96)), 0)


class ConfusionMatrix(L.Callback):
    """Shows which classes each validation took for which."""

    def on_validation_end(self, trainer: L.Trainer, *_: Any) -> None:
        if (writer := tensorboard(trainer)) and (answers := recorded(trainer)):
            figure = canvas.blank(5, 5, dpi=90)
            scores.draw_confusion(figure, answers)
            writer.add_figure("confusion matrix of validation", figure, trainer.global_step - 1)


class Mistakes(L.Callback):
    """Shows the `count` wrong answers of each validation that the network is surest of, each with the true class."""

    def __init__(self, count: PositiveInt = 16) -> None:
        self._count = count

    def on_validation_end(self, trainer: L.Trainer, *_: Any) -> None:
        writer, answers = tensorboard(trainer), recorded(trainer)
        if writer and answers and len(worst := answers.mistakes(self._count)):
            figure = canvas.blank(6, 1.35 * -(-len(worst) // 6), dpi=90)
            tiles.draw_answers(figure, answers, worst, columns=6, sure=True)
            writer.add_figure("most confident mistakes in validation", figure, trainer.global_step - 1)


class Filters(L.Callback):
    """Shows up to 96 kernels of the first convolution when a validation ends, each brought to 0..1 by itself."""

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        writer, filters = tensorboard(trainer), first_filters(module)
        if writer and len(filters):
            grid = tiles.filter_grid(filters[:96], columns=16)
            writer.add_image("filters of the first convolution", grid, trainer.global_step - 1)


def tensorboard(trainer: L.Trainer) -> Any:
    """TensorBoard's SummaryWriter; None where there is none, and in all processes but the first."""
    loggers = [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
    return loggers[0].experiment if loggers and trainer.is_global_zero else None


def square(images: Tensor, side: int) -> Tensor:
    """Float images (B, C, H, W) as squares of `side` pixels, or fewer if they have fewer."""
    return resize(images, [min(side, max(images.shape[-2:]))] * 2)
