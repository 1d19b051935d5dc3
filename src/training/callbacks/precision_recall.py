"""Curves of precision and recall, of the test."""

from __future__ import annotations

from typing import Any

import lightning as L

from src.config.schema import PositiveInt
from src.training.callbacks.pictures import tensorboard
from src.training.callbacks.recorder import recorded


class PrecisionRecall(L.Callback):
    """Shows those of the first `classes` classes in TensorBoard when a test ends."""

    def __init__(self, classes: PositiveInt = 20) -> None:
        self._classes = classes

    def on_test_end(self, trainer: L.Trainer, *_: Any) -> None:
        if (writer := tensorboard(trainer)) and (answers := recorded(trainer)):
            for number, name in enumerate(answers.classes[: self._classes]):
                true, held = answers.labels == number, answers.probabilities[:, number]
                writer.add_pr_curve(f"precision and recall/{name}", true, held, trainer.global_step - 1)
