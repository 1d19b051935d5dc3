"""Test images in TensorBoard's projector, where those lie together that the network finds alike."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from src.config.schema import PositiveInt
from src.results.figures.tiles import as_colour
from src.training.callbacks.pictures import square, tensorboard
from src.training.callbacks.recorder import recorded


class Embeddings(L.Callback):
    """Shows what the last linear layer sees of `count` images from all over the test."""

    def __init__(self, count: PositiveInt = 1000) -> None:
        self._count = count

    def on_test_end(self, trainer: L.Trainer, module: Any) -> None:
        last = [layer for layer in module.modules() if isinstance(layer, nn.Linear)][-1:]
        if last and (writer := tensorboard(trainer)) and (answers := recorded(trainer)):
            count = min(self._count, len(answers))
            chosen = torch.arange(count) * len(answers) // count
            images, features = answers.images[chosen], list[Tensor]()
            with last[0].register_forward_pre_hook(lambda _, inputs: features.append(inputs[0].float().cpu())):
                for pixels in images.images.split(128):  # the plain forward: a compiled one calls no such hook
                    module.network.forward(trainer.datamodule.prepare(pixels.to(module.device)))  # type: ignore[attr-defined]
            if sum(map(len, features)) != count:  # it sees parts of images
                return
            folder = Path(writer.log_dir)  # of a run that goes on, it has those of its first end
            (folder / "projector_config.pbtxt").unlink(missing_ok=True)
            shutil.rmtree(folder / "embeddings", ignore_errors=True)
            pairs = zip(images.labels, answers.predicted[chosen], strict=True)
            words = [[answers.classes[label] for label in pair] for pair in pairs]
            seen = torch.cat(features).flatten(1)
            left, sizes, _directions = torch.pca_lowrank(seen, min(50, *seen.shape))
            pictures, header = square(as_colour(images.images) / 255, 48), ["true", "answered"]
            writer.add_embedding(left * sizes, words, pictures, "embeddings", "test images", header)
