"""What is done to a whole batch on its device: plain functions, (B, C, H, W) in and out."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor


def batch_flip(images: Tensor, generator: Generator) -> Tensor:
    """Mirror each image left to right with probability one half; any dtype."""
    chosen = torch.rand(len(images), generator=generator, device=images.device) < 0.5
    return torch.where(chosen[:, None, None, None], images.flip(-1), images)


def batch_crop(images: Tensor, padding: int, generator: Generator) -> Tensor:
    """Cut a window of the same size out of each image, reflected by `padding` pixels at each edge; any dtype."""
    height, width = images.shape[-2:]
    if padding >= min(height, width):
        raise ValueError(f"a crop of {padding} pixels needs images of more than {padding} pixels a side")
    shifts = torch.randint(-padding, padding + 1, (2, len(images), 1), generator=generator, device=images.device)
    rows = _reflect(torch.arange(height, device=images.device) + shifts[0], height)  # (B, H)
    columns = _reflect(torch.arange(width, device=images.device) + shifts[1], width)  # (B, W)
    batch = torch.arange(len(images), device=images.device)[:, None, None]
    # indices around a slice put it last: (B, H, W, C)
    return images[batch, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def batch_affine(images: Tensor, degrees: float, translate: float, scale: float, generator: Generator) -> Tensor:
    """Rotate by up to `degrees`, shift by up to `translate` of the side, scale by up to `scale`; 0 comes in."""
    draws = torch.rand((4, len(images)), generator=generator, device=images.device) * 2 - 1
    angle = draws[0] * math.radians(degrees)
    size = 1 + draws[1] * scale
    cosine, sine = angle.cos() / size, angle.sin() / size
    # affine_grid measures from -1 to 1, so a shift by the whole side is 2
    shift_x, shift_y = draws[2] * 2 * translate, draws[3] * 2 * translate
    matrix = torch.stack([cosine, -sine, shift_x, sine, cosine, shift_y], dim=1)
    grid = F.affine_grid(matrix.view(-1, 2, 3), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


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


def _reflect(index: Tensor, length: int) -> Tensor:
    """Indices outside 0..length-1 mirrored at the edge pixel, which is not repeated."""
    return (length - 1) - ((length - 1) - index.abs()).abs()
