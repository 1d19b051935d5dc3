"""What the network answers in validation and test, for the pictures of them."""

from __future__ import annotations

from typing import Any, Literal

import lightning as L
import torch
from torch import Tensor, nn

from src.data.batches import DataModule
from src.data.images import ImageSet
from src.model.answers import Answers

SPLITS = {"test": "test", "val": "validation", "train": "training"}  # in words


class RecordAnswers(L.Callback):
    """Keeps, in `answers`, the last validation's or test's: those of all processes, in the order of the images.

    Args:
        validation: whether those of validations are kept, too.
        features: of how many test images, from all over the set, `features` keeps what the last linear layer
            saw, with the images and the class answered: those of this process.
    """

    def __init__(self, validation: bool = False, features: int = 0) -> None:
        self.answers: Answers | None = None
        self.features: tuple[ImageSet, Tensor, Tensor] | None = None
        self._validation, self._wanted = validation, features
        self._logits: list[Tensor] = []
        self._seen: list[Tensor] = []  # inputs of the last linear layer, of the batch at hand
        self._kept: list[tuple[Tensor, ...]] = []  # places, features, classes answered
        self._order: list[Tensor] = []  # of the test images, where features are wanted
        self._hook: Any = None

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
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
            self.answers = self._gather(trainer, "val")

    def on_test_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._logits, self._kept = [], []
        last = [layer for layer in pl_module.modules() if isinstance(layer, nn.Linear)][-1:]
        compiled = (
            getattr(pl_module.network, "_compiled_call_impl", None) is not None
        )  # it calls no hook that came later
        if self._wanted and last and not compiled:
            self._order = self._places(trainer)
            self._hook = last[0].register_forward_pre_hook(lambda layer, inputs: self._seen.append(inputs[0]))

    def on_test_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._logits.append(outputs["logits"].clone())  # the next replay of a CUDA graph writes there
        seen = self._seen.pop() if self._seen else None
        self._seen.clear()
        if seen is not None and len(seen) == len(outputs["logits"]):
            places = self._order[batch_idx]
            total = len(self._split(trainer, "test"))
            chosen = (places * self._wanted) // total != ((places - 1) * self._wanted) // total
            if total <= self._wanted:
                chosen = torch.ones_like(chosen)
            answered = outputs["logits"].argmax(1)
            self._kept.append((places[chosen], seen.flatten(1)[chosen].float().cpu(), answered[chosen].cpu()))

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.answers = self._gather(trainer, "test")
        if self._hook is not None:
            self._hook.remove()
            self._hook = None
        if self._kept:
            places, features, predicted = (torch.cat(parts) for parts in zip(*self._kept, strict=True))
            self.features = self._split(trainer, "test")[places], features, predicted

    def _gather(self, trainer: L.Trainer, phase: Literal["val", "test"]) -> Answers:
        classes = self._datamodule(trainer).splits.classes
        # a process of many may have no image
        logits = torch.cat(self._logits).float().cpu() if self._logits else torch.empty(0, len(classes))
        places = torch.cat([torch.empty(0, dtype=torch.int64), *self._places(trainer)])[: len(logits)]
        self._logits = []
        if trainer.world_size > 1:
            parts: list[Any] = [None] * trainer.world_size
            torch.distributed.all_gather_object(parts, (places, logits))
            places, logits = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
            order = places.argsort()
            places, logits = places[order], logits[order]
        datamodule = self._datamodule(trainer)
        scored = datamodule.scored if phase == "test" else "val"
        images = self._split(trainer, phase)
        images = images if len(places) == len(images) else images[places]
        return Answers(images, logits.softmax(1), classes, SPLITS[scored])

    def _places(self, trainer: L.Trainer) -> list[Tensor]:
        """Which images each batch of this process holds."""
        loaders: Any = trainer.test_dataloaders if trainer.testing else trainer.val_dataloaders
        return [places.cpu() for places in loaders.sampler]

    def _split(self, trainer: L.Trainer, phase: Literal["val", "test"]) -> ImageSet:
        datamodule = self._datamodule(trainer)
        return datamodule.scored_images if phase == "test" else datamodule.splits.valid

    @staticmethod
    def _datamodule(trainer: L.Trainer) -> DataModule:
        datamodule = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(datamodule, DataModule)
        return datamodule
