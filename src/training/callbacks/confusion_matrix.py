"""Which classes each validation took for which."""

from __future__ import annotations

import lightning as L

from src.training.callbacks.answers import recorded
from src.training.callbacks.pictures import has_tensorboard, last_step, tensorboard


class ConfusionMatrix(L.Callback):
    """Draws it for TensorBoard when a validation ends."""

    def wants_validation_answers(self, trainer: L.Trainer) -> bool:
        return has_tensorboard(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        writer, answers = tensorboard(trainer), recorded(trainer)
        if writer and answers:
            from src.results.figures import canvas, scores  # not before the first picture: matplotlib takes a second

            figure = canvas.blank(5, 5, dpi=90)
            scores.draw_confusion(figure, answers)
            pixels = canvas.pixels(figure)
            writer.add_image("confusion matrix of validation", pixels, last_step(trainer), dataformats="HWC")
