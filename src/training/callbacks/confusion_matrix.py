"""Which classes each validation took for which."""

from __future__ import annotations

from typing import Any

import lightning as L

from src.training.callbacks.pictures import tensorboard
from src.training.callbacks.recorder import recorded


class ConfusionMatrix(L.Callback):
    """Draws it for TensorBoard when a validation ends."""

    shows_validation = True

    def on_validation_end(self, trainer: L.Trainer, *_: Any) -> None:
        if (writer := tensorboard(trainer)) and (answers := recorded(trainer)):
            from src.results.figures import canvas, scores  # not before the first picture: matplotlib takes a second

            figure = canvas.blank(5, 5, dpi=90)
            scores.draw_confusion(figure, answers)
            pixels = canvas.pixels(figure)
            writer.add_image("confusion matrix of validation", pixels, trainer.global_step - 1, dataformats="HWC")
