"""What holds for all images of a set, measured on all or on a sample."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from src.data.images import FIXED_SEED, ImageSet

SAMPLE = 2000  # photos that are opened for what holds for all: sizes, mean, standard deviation


def sample(length: int) -> Tensor:
    """Indices of some images that stand for all, in their order and always the same."""
    generator = torch.Generator().manual_seed(FIXED_SEED)
    return torch.randperm(length, generator=generator)[:SAMPLE].sort().values


def measure(images: ImageSet) -> tuple[list[float], list[float]]:
    """Mean and standard deviation per channel, of pixels in 0..1."""
    counts = torch.zeros(images.shape[1], 256, dtype=torch.int64)

    def count(indices: Tensor) -> Tensor:
        pixels, _ = images.fetch(indices)
        return torch.stack([torch.bincount(channel.reshape(-1), minlength=256) for channel in pixels.unbind(1)])

    with ThreadPoolExecutor() as pool:
        few = torch.arange(len(images)).split(16)  # bincount makes eight bytes of each pixel
        counts = sum(pool.map(count, few), counts)
    levels = torch.arange(256, dtype=torch.float64) / 255
    weights = counts.double() / counts.sum(1, keepdim=True)
    mean = weights @ levels  # (C,)
    std = (weights @ levels.square() - mean.square()).clamp(min=0).sqrt()
    return [round(value, 4) for value in mean.tolist()], [max(round(value, 4), 1e-4) for value in std.tolist()]


def has_dark_background(images: ImageSet) -> bool:
    """Whether nearly all images are grey with an edge that is black, as MNIST's and Fashion-MNIST's are."""
    if images.shape[1] != 1:
        return False
    few = images[torch.linspace(0, len(images) - 1, min(len(images), 500)).round().long()].images[:, 0]
    edges = torch.cat([few[:, 0], few[:, -1], few[:, :, 0], few[:, :, -1]], dim=1)  # (N, pixels)
    return float((edges.median(1).values < 32).float().mean()) > 0.9
