"""What the callbacks that draw for TensorBoard share."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch.nn.functional as F
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor


def has_tensorboard(trainer: L.Trainer) -> bool:
    return any(isinstance(logger, TensorBoardLogger) for logger in trainer.loggers)


def tensorboard(trainer: L.Trainer) -> Any:
    """TensorBoard's SummaryWriter; None where there is none, and in all processes but the first."""
    loggers = [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
    return loggers[0].experiment if loggers and trainer.is_global_zero else None


def last_step(trainer: L.Trainer) -> int:
    """The number under which Lightning logs a validation or test that comes now."""
    return trainer.global_step - 1


def viewable(images: Tensor) -> Tensor:
    """What TensorBoard can show of images (..., C, H, W): three channels or one."""
    return images if images.shape[-3] in (1, 3) else images.mean(-3, keepdim=True)


def shrunk(images: Tensor, side: int, square: bool = False) -> Tensor:
    """Float images (B, C, H, W) in at most `side` pixels."""
    height, width = images.shape[-2:]
    scale = min(1.0, side / max(height, width))
    size = (max(round(height * scale), 1), max(round(width * scale), 1))
    size = (max(size), max(size)) if square else size
    return images if size == (height, width) else F.interpolate(images, size, mode="bilinear", antialias=True)
