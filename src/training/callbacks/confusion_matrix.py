"""Which classes each validation took for which."""

from __future__ import annotations

from typing import Any

import lightning as L

from src.results.figures import canvas, scores
from src.training.callbacks.pictures import tensorboard
from src.training.callbacks.recorder import recorded


class ConfusionMatrix(L.Callback):
    """Draws it for TensorBoard when a validation ends."""

    def on_validation_end(self, trainer: L.Trainer, *_: Any) -> None:
        if (writer := tensorboard(trainer)) and (answers := recorded(trainer)):
            figure = canvas.blank(5, 5, dpi=90)
            scores.draw_confusion(figure, answers)
            writer.add_figure("confusion matrix of validation", figure, trainer.global_step - 1)
