"""Test images in TensorBoard's projector, where those lie together that the network finds alike."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from src.config.schema import PositiveInt
from src.training.callbacks.answers import batch_indices
from src.training.callbacks.pictures import shrunk, tensorboard, viewable


class Embeddings(L.Callback):
    """Shows what the last linear layer saw of `count` images from all over the test set, those of the first process."""

    def __init__(self, count: PositiveInt = 1000) -> None:
        self._count = count
        self._inputs: list[Tensor] = []  # of the last linear layer, of the batch at hand
        self._kept: list[tuple[Tensor, ...]] = []  # of each batch: indices, features, classes answered
        self._hook: Any = None

    def on_test_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        last = [layer for layer in pl_module.modules() if isinstance(layer, nn.Linear)][-1:]
        compiled = getattr(pl_module.network, "_compiled_call_impl", None) is not None  # calls no hook that came later
        if tensorboard(trainer) and last and not compiled:
            total = len(trainer.datamodule.scored_images)  # type: ignore[attr-defined]
            count = min(self._count, total)
            self._wanted, self._batches = torch.arange(count) * total // count, batch_indices(trainer)
            self._hook = last[0].register_forward_pre_hook(lambda layer, inputs: self._inputs.append(inputs[0]))

    def on_test_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        if self._inputs and len(features := self._inputs[-1]) == len(
            batch[1]
        ):  # else a layer that sees parts of images
            indices = self._batches[batch_idx]
            chosen = torch.isin(indices, self._wanted)
            answered = outputs["logits"].argmax(1)[chosen].cpu()
            self._kept.append((indices[chosen], features.flatten(1)[chosen].float().cpu(), answered))
        self._inputs.clear()

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._hook is None:
            return
        self._hook.remove()
        writer, datamodule = tensorboard(trainer), trainer.datamodule  # type: ignore[attr-defined]
        folder = Path(writer.log_dir)  # of a run that goes on, where those of its first end lie
        (folder / "projector_config.pbtxt").unlink(missing_ok=True)
        shutil.rmtree(folder / "embeddings", ignore_errors=True)
        if self._kept:
            indices, features, answered = (torch.cat(tensors) for tensors in zip(*self._kept, strict=True))
            images, classes = datamodule.scored_images[indices], datamodule.splits.classes
            names = zip(images.labels.tolist(), answered.tolist(), strict=True)
            writer.add_embedding(
                principal_components(features, 50),
                [[classes[label], classes[answer]] for label, answer in names],
                viewable(shrunk(images.images / 255, 48, square=True)),
                tag="test images",
                metadata_header=["true", "answered"],
                global_step="embeddings",
            )


def principal_components(features: Tensor, count: int) -> Tensor:
    """float (N, D) in the `count` directions in which they vary most, float (N, count); N if that is fewer."""
    centred = features.double() - features.double().mean(0)
    values, vectors = torch.linalg.eigh(centred @ centred.T)  # smallest first
    return (vectors * values.clamp(min=0).sqrt()).flip(1)[:, :count].float()
