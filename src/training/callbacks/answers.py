"""What the network answers in validation and test, for the pictures of them."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from torch import Tensor

from src.data.datamodule import DataModule
from src.model.answers import Answers

SPLITS = {"test": "test", "val": "validation", "train": "training"}  # in words


class RecordAnswers(L.Callback):
    """Keeps, in `answers`, those of the last test, of all processes, in the order of the images.

    Also those of the last validation, if any callback has a method `wants_validation_answers(trainer)` that says so.
    """

    def __init__(self) -> None:
        self.answers: Answers | None = None
        self._validation = False
        self._logits: list[Tensor] = []

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        asked = [getattr(callback, "wants_validation_answers", None) for callback in trainer.callbacks]  # type: ignore[attr-defined]
        self._validation = any(ask(trainer) for ask in asked if ask)
        self._logits = []

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if self._validation:
            self._logits.append(outputs["logits"].clone())  # the next replay of a CUDA graph writes there

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._validation:
            self.answers = self._gather(trainer)

    def on_test_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._validation, self._logits = True, []

    on_test_batch_end = on_validation_batch_end
    on_test_epoch_end = on_validation_epoch_end

    def _gather(self, trainer: L.Trainer) -> Answers:
        datamodule = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(datamodule, DataModule)
        classes = datamodule.splits.classes
        # a process of many may have no image
        logits = torch.cat(self._logits).float().cpu() if self._logits else torch.empty(0, len(classes))
        indices = torch.cat([torch.empty(0, dtype=torch.int64), *batch_indices(trainer)])[: len(logits)]
        self._logits = []
        if trainer.world_size > 1:
            gathered: list[Any] = [None] * trainer.world_size
            torch.distributed.all_gather_object(gathered, (indices, logits))
            indices, logits = (torch.cat(tensors) for tensors in zip(*gathered, strict=True))
            order = indices.argsort()
            indices, logits = indices[order], logits[order]
        images = datamodule.scored_images if trainer.testing else datamodule.splits.valid
        images = images if len(indices) == len(images) else images[indices]
        return Answers(images, logits.softmax(1), classes, SPLITS[datamodule.scored if trainer.testing else "val"])


def batch_indices(trainer: L.Trainer) -> list[Tensor]:
    """Of each batch of this process's validation or test, which images it holds, int64 (B,)."""
    loaders: Any = trainer.test_dataloaders if trainer.testing else trainer.val_dataloaders
    return [indices.cpu() for indices in loaders.sampler]


def recorded(trainer: L.Trainer) -> Answers | None:
    """What RecordAnswers has of the validation or test that has just ended."""
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    return next((callback.answers for callback in callbacks if isinstance(callback, RecordAnswers)), None)
