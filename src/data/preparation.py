"""From pixels to what a network sees, the same in training, scoring, prediction and exported graphs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.config.schema import DatasetConfig


class Preparation(nn.Module):
    """Pixels 0..255 of any dtype (B, C, H, W) -> float32 (B, C, size, size), normalized by `mean` and `std` in 0..1."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: list[float], std: list[float], size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("std", torch.tensor(std))
        self.size = size

    @classmethod
    def of(cls, dataset: DatasetConfig) -> Preparation:
        assert dataset.mean  # build.resolved sets all three
        assert dataset.std
        assert dataset.image_size
        return cls(dataset.mean, dataset.std, dataset.image_size)

    def forward(self, images: Tensor) -> Tensor:
        # both are linear, so their order is free: normalized at native size, pixels are few, and of NCHW images
        # torch resizes three channels five times as fast as of channels_last
        return batch_resize(batch_normalize(images.float().contiguous(), self.mean, self.std), self.size)


def batch_resize(images: Tensor, size: int) -> Tensor:
    """Bilinear resize of float images to `size` x `size`, smoothed first where they shrink."""
    if images.shape[-2:] == (size, size):
        return images
    shrinks = max(images.shape[-2:]) > size
    return F.interpolate(images, size=(size, size), mode="bilinear", align_corners=False, antialias=shrinks)


def batch_normalize(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """(pixel / 255 - mean) / std for float pixels 0..255; `mean` and `std` float (C,), of pixels in 0..1."""
    scale = 1 / (255 * std)
    return images * scale[:, None, None] - (mean / std)[:, None, None]
