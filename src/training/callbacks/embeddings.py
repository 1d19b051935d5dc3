"""Test images in TensorBoard's projector, where those lie together that the network finds alike."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from src.config.schema import PositiveInt
from src.training.callbacks.pictures import square, tensorboard, viewable
from src.training.callbacks.recorder import batch_indices


class Embeddings(L.Callback):
    """Shows what the last linear layer saw of `count` images from all over the test set, those of the first process."""

    def __init__(self, count: PositiveInt = 1000) -> None:
        self._count = count
        self._inputs: list[Tensor] = []  # of the last linear layer, of the batch at hand
        self._hook: Any = None
        self._kept: list[tuple[Tensor, ...]] = []  # of each batch: indices, features, classes answered

    def on_test_epoch_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        last = [layer for layer in module.modules() if isinstance(layer, nn.Linear)][-1:]
        compiled = getattr(module.network, "_compiled_call_impl", None) is not None  # calls no hook that came later
        if tensorboard(trainer) and last and not compiled:
            total = len(trainer.datamodule.splits.test)  # type: ignore[attr-defined]
            count = min(self._count, total)
            self._wanted, self._batches = torch.arange(count) * total // count, batch_indices(trainer)
            self._hook = last[0].register_forward_pre_hook(lambda layer, inputs: self._inputs.append(inputs[0]))

    def on_test_batch_end(self, _: Any, module: Any, outputs: Any, batch: Any, batch_idx: int, *more: Any) -> None:
        if self._inputs and len(features := self._inputs[-1]) == len(batch[1]):  # it may see parts of images
            chosen = torch.isin(indices := self._batches[batch_idx], self._wanted)
            answered = outputs["logits"].argmax(1)[chosen].cpu()
            self._kept.append((indices[chosen], features.flatten(1)[chosen].float().cpu(), answered))
        self._inputs.clear()

    def on_test_end(self, trainer: L.Trainer, *_: Any) -> None:
        if self._hook:
            self._hook.remove()
        if self._kept and (writer := tensorboard(trainer)):
            folder = Path(writer.log_dir)  # of a run that goes on, it has those of its first end
            (folder / "projector_config.pbtxt").unlink(missing_ok=True)
            shutil.rmtree(folder / "embeddings", ignore_errors=True)
            data = trainer.datamodule  # type: ignore[attr-defined]
            indices, features, answered = (torch.cat(tensors) for tensors in zip(*self._kept, strict=True))
            images, names = data.splits.test[indices], data.splits.classes
            words = [[names[label], names[answer]] for label, answer in zip(images.labels, answered, strict=True)]
            left, sizes, _directions = torch.pca_lowrank(features, min(50, *features.shape))
            pictures, header = viewable(square(images.images / 255, 48)), ["true", "answered"]
            writer.add_embedding(left * sizes, words, pictures, "embeddings", "test images", header)
