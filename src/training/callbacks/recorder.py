"""What callbacks read: the epoch's training metrics, and the network's answers in validation and test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor

from src.model.answers import Answers
from src.results import predictions
from src.training.checkpoints import Checkpoints


class RecordAnswers(L.Callback):
    """Keeps, in `answers`, those of the last validation or test, of all processes, in the order of the images, and the
    last epoch's `accuracy` in training; writes what was answered when the weights were best, as `checkpoints` says."""

    def __init__(self, folder: Path, checkpoints: Checkpoints) -> None:
        self.answers: Answers | None = None
        self.accuracy: float | None = None
        self._folder, self._checkpoints = folder, checkpoints
        self._logits: list[Tensor] = []

    def on_train_epoch_end(self, trainer: L.Trainer, module: Any) -> None:
        module.log_epoch()  # Lightning calls a module's own hook after those of callbacks
        self.accuracy = float(trainer.callback_metrics["train/acc"])

    def on_validation_batch_end(self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, *_: Any) -> None:
        self._logits.append(outputs["logits"].clone())  # the next replay of a CUDA graph writes there

    def on_validation_epoch_end(self, trainer: L.Trainer, *_: Any) -> None:
        splits = trainer.datamodule.splits  # type: ignore[attr-defined]
        split, images = ("test", splits.test) if trainer.testing else ("validation", splits.valid)
        none = torch.empty(0, len(splits.classes))  # a process of many may have no image
        logits = torch.cat([none, *(logits.float().cpu() for logits in self._logits)])
        self._logits = []
        loaders: Any = trainer.test_dataloaders if trainer.testing else trainer.val_dataloaders
        batches = (indices.cpu() for _, indices in loaders.sampler)
        indices = torch.cat([torch.empty(0, dtype=torch.int64), *batches])[: len(logits)]
        if trainer.world_size > 1:
            gathered: list[Any] = [None] * trainer.world_size
            torch.distributed.all_gather_object(gathered, (indices, logits))
            indices, logits = (torch.cat(tensors) for tensors in zip(*gathered, strict=True))
            logits, indices = logits[indices.argsort()], indices.sort().values
        self.answers = Answers(images[indices], logits, splits.classes, split)
        best = not trainer.testing and self._checkpoints.best_step == trainer.global_step
        if best and trainer.is_global_zero:  # after the weights: a run that was killed in between does both anew
            predictions.write(self._folder, [predictions.table(self.answers)])

    on_test_batch_end = on_validation_batch_end  # type: ignore[assignment]
    on_test_epoch_end = on_validation_epoch_end  # type: ignore[assignment]


def recorded(trainer: L.Trainer) -> Answers | None:
    """What RecordAnswers has of the validation that has just ended."""
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    return next((callback.answers for callback in callbacks if isinstance(callback, RecordAnswers)), None)
