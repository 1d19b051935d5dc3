"""The wrong answers of each validation that the network is surest of."""

from __future__ import annotations

from typing import Any

import lightning as L

from src.config.schema import PositiveInt
from src.results.figures import canvas, tiles
from src.training.callbacks.pictures import tensorboard
from src.training.callbacks.recorder import recorded


class Mistakes(L.Callback):
    """Draws `count` of them for TensorBoard when a validation ends, each with its answer and the true class."""

    def __init__(self, count: PositiveInt = 16) -> None:
        self._count = count

    def on_validation_end(self, trainer: L.Trainer, *_: Any) -> None:
        writer, answers = tensorboard(trainer), recorded(trainer)
        if writer and answers and len(worst := answers.mistakes(self._count)):
            figure = canvas.blank(6, 1.35 * -(-len(worst) // 6), dpi=90)
            tiles.draw_answers(figure, answers, worst, columns=6, sure=True)
            writer.add_figure("most confident mistakes in validation", figure, trainer.global_step - 1)
