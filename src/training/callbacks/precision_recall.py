"""Curves of precision and recall, of the test."""

from __future__ import annotations

from typing import Any

import lightning as L

from src.training.callbacks.pictures import tensorboard
from src.training.callbacks.recorder import recorded


class PrecisionRecall(L.Callback):
    """Shows those of the first 20 classes in TensorBoard when a test ends."""

    def on_test_end(self, trainer: L.Trainer, *_: Any) -> None:
        if (writer := tensorboard(trainer)) and (answers := recorded(trainer)):
            for number, name in enumerate(answers.classes[:20]):
                true, held = answers.labels == number, answers.probabilities[:, number]
                writer.add_pr_curve(f"precision and recall/{name}", true, held, trainer.global_step - 1)
