"""What the callbacks that draw for TensorBoard share.

A validation's stand at the step under which Lightning logs it, `trainer.global_step - 1`.
"""

from __future__ import annotations

from typing import Any

import lightning as L
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor
from torchvision.transforms.v2.functional import resize


def tensorboard(trainer: L.Trainer) -> Any:
    """TensorBoard's SummaryWriter; None where there is none, and in all processes but the first."""
    loggers = [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
    return loggers[0].experiment if loggers and trainer.is_global_zero else None


def square(images: Tensor, side: int) -> Tensor:
    """Float images (B, C, H, W) as squares of `side` pixels, or fewer if they have fewer."""
    return resize(images, [min(side, max(images.shape[-2:]))] * 2)
