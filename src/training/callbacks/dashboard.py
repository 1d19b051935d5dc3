"""What TensorBoard shows besides curves."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor

from src.config.schema import TrainConfig
from src.data.augmentation import batch_denormalize
from src.model.predictor import first_filters
from src.training.callbacks.answers import RecordAnswers

CLASSES = 20  # with a curve of precision and recall each
SIDE = 96  # pixels; of larger samples
SPRITE = 48  # likewise, in the projector
COMPONENTS = 50  # of 4096 features


class Dashboard(L.Callback):
    """Confusion matrix, mistakes and filters at each validation's end, the first batch as the network sees it, and of
    the test, curves of precision and recall and the projector; each as `config.dashboard` says.

    Validations that come so often that their pictures would take more than `share` of the time have none, but the last
    epoch's always has.
    """

    def __init__(self, config: TrainConfig, recorder: RecordAnswers, logger: TensorBoardLogger) -> None:
        self._config, self._shown = config, config.dashboard
        self._recorder, self._logger = recorder, logger
        self._began = self._spent = 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._began = time.perf_counter()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        first = trainer.global_step == 0 and batch_idx == 0
        if first and self._shown.samples and trainer.is_global_zero:
            dataset = self._config.dataset
            assert dataset.mean is not None
            assert dataset.std is not None
            images = batch_denormalize(batch[0][: self._shown.samples].float(), dataset.mean, dataset.std).cpu()
            self._logger.experiment.add_images("training images, augmented", _shown(_at_most(images, SIDE)), 0)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn != "fit" or not trainer.is_global_zero:
            return
        now, last = time.perf_counter(), trainer.current_epoch + 1 == trainer.max_epochs
        if last or self._spent <= self._shown.share * (now - self._began):
            self._show_validation(pl_module, trainer.global_step - 1)  # as Lightning logs validations
            self._spent += time.perf_counter() - now

    def _show_validation(self, pl_module: L.LightningModule, step: int) -> None:
        from src.results.figures import (
            canvas,
            images,
            scores,  # not before the first step: matplotlib takes a second
        )

        writer, answers = self._logger.experiment, self._recorder.answers
        if self._shown.confusion and answers is not None:
            figure = canvas.blank(5, 5, dpi=90)
            scores.draw_confusion(figure, answers)
            writer.add_image("confusion matrix of validation", canvas.pixels(figure), step, dataformats="HWC")
        if answers is not None and len(places := answers.mistakes(self._shown.mistakes)):
            figure = canvas.blank(6, 1.35 * -(-len(places) // 6), dpi=90)
            images.draw_answers(figure, answers, places, columns=6, sure=True)
            writer.add_image("most confident mistakes in validation", canvas.pixels(figure), step, dataformats="HWC")
        if self._shown.filters and (filters := first_filters(pl_module)) is not None:
            pictures = torch.stack([_shown(images.to_unit(kernel)) for kernel in filters[:96]])
            framed = F.pad(F.interpolate(pictures, scale_factor=4.0), (2, 2, 2, 2), value=1.0)
            writer.add_images("filters of the first convolution", framed, step)

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        answers, step = self._recorder.answers, trainer.global_step - 1  # as Lightning logs validations
        if not trainer.is_global_zero or answers is None:
            return
        if self._shown.precision_recall:
            for number, name in enumerate(answers.classes[:CLASSES]):
                self._logger.experiment.add_pr_curve(
                    f"precision and recall/{name}", answers.labels == number, answers.probabilities[:, number], step
                )
        self._project()

    def _project(self) -> None:
        """Write the projector's files anew: another process's, which was killed, may lie there."""
        folder = Path(self._logger.log_dir)
        (folder / "projector_config.pbtxt").unlink(missing_ok=True)
        shutil.rmtree(folder / "embeddings", ignore_errors=True)
        if self._recorder.features is None or self._recorder.answers is None:
            return
        images, features, predicted = self._recorder.features
        classes = self._recorder.answers.classes
        words = [
            [classes[label], classes[guess]]
            for label, guess in zip(images.labels.tolist(), predicted.tolist(), strict=True)
        ]
        self._logger.experiment.add_embedding(
            principal_components(features, COMPONENTS),
            words,
            _shown(_at_most(images.images / 255, SPRITE, square=True)),
            tag="test images",
            metadata_header=["true", "answered"],
            global_step="embeddings",
        )


def principal_components(features: Tensor, count: int) -> Tensor:
    """float (N, D) in the `count` directions in which they vary most, float (N, count); fewer if N is smaller."""
    centred = features.double() - features.double().mean(0)
    if len(centred) <= centred.shape[1]:  # of the two, the smaller product has the same eigenvalues
        values, vectors = torch.linalg.eigh(centred @ centred.T)
        found = vectors * values.clamp(min=0).sqrt()
    else:
        values, vectors = torch.linalg.eigh(centred.T @ centred)
        found = centred @ vectors
    return found.flip(1)[:, :count].float()  # eigh has the smallest first


def _shown(images: Tensor) -> Tensor:
    """What TensorBoard can show of images (..., C, H, W): three channels or one."""
    return images if images.shape[-3] in (1, 3) else images.mean(-3, keepdim=True)


def _at_most(images: Tensor, side: int, square: bool = False) -> Tensor:
    """Float images (B, C, H, W) that fit into `side` pixels."""
    height, width = images.shape[-2:]
    scale = min(1.0, side / max(height, width))
    size = (max(round(height * scale), 1), max(round(width * scale), 1))
    size = (max(size), max(size)) if square else size
    return images if size == (height, width) else F.interpolate(images, size, mode="bilinear", antialias=True)
