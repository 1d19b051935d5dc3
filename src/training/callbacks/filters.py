"""What the first convolution looks for."""

from __future__ import annotations

import lightning as L
import torch
import torch.nn.functional as F

from src.config.schema import PositiveInt
from src.model.predictor import first_filters
from src.training.callbacks.pictures import tensorboard, viewable


class Filters(L.Callback):
    """Shows up to `count` kernels in TensorBoard when a validation ends, each brought to 0..1 by itself."""

    def __init__(self, count: PositiveInt = 96) -> None:
        self._count = count

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        writer, filters = tensorboard(trainer), first_filters(module)
        if writer and filters is not None:
            from src.results.figures.tiles import to_unit  # not before the first picture: matplotlib takes a second

            pictures = torch.stack([viewable(to_unit(kernel)) for kernel in filters[: self._count]])
            framed = F.pad(F.interpolate(pictures, scale_factor=4.0), (2, 2, 2, 2), value=1.0)
            writer.add_images("filters of the first convolution", framed, trainer.global_step - 1)
