"""What the first convolution looks for."""

from __future__ import annotations

import lightning as L

from src.model.predictor import first_filters
from src.results.figures.tiles import filter_grid
from src.training.callbacks.pictures import tensorboard


class Filters(L.Callback):
    """Shows up to 96 kernels in TensorBoard when a validation ends, each brought to 0..1 by itself."""

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        writer, filters = tensorboard(trainer), first_filters(module)
        if writer and len(filters):
            grid = filter_grid(filters[:96], columns=16)
            writer.add_image("filters of the first convolution", grid, trainer.global_step - 1)
