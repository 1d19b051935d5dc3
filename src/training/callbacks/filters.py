"""What the first convolution looks for."""

from __future__ import annotations

import lightning as L

from src.config.schema import PositiveInt
from src.model.predictor import first_filters
from src.results.figures.tiles import filter_grid
from src.training.callbacks.pictures import tensorboard


class Filters(L.Callback):
    """Shows up to `count` kernels in TensorBoard when a validation ends, each brought to 0..1 by itself."""

    def __init__(self, count: PositiveInt = 96) -> None:
        self._count = count

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        writer, filters = tensorboard(trainer), first_filters(module)
        if writer and filters is not None:
            grid = filter_grid(filters[: self._count], columns=16)
            writer.add_image("filters of the first convolution", grid, trainer.global_step - 1)
