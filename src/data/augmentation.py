"""What is done to a training batch on its device: (images, labels, generator, its arguments) -> (images, labels).

Images are uint8 or float32 in 0..255 (B, C, H, W), labels int64 (B,), or float (B, classes) once images are mixed.
Before all that, a function of (width, height, generator, its arguments) may say what is cut out of an image when it is
read.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Generator, Tensor

from src.config.schema import Fraction, NonNegativeInt, Share, Values
from src.data.batches import Augment, Batch, step_seed
from src.data.decoding import Box


def batch_flip(images: Tensor, labels: Tensor, generator: Generator) -> Batch:
    """Mirror each image left to right with probability one half."""
    chosen = torch.rand(len(images), generator=generator, device=images.device) < 0.5
    return torch.where(chosen[:, None, None, None], images.flip(-1), images), labels


def batch_crop(images: Tensor, labels: Tensor, generator: Generator, padding: NonNegativeInt) -> Batch:
    """Cut a window of the same size out of each image, reflected by `padding` pixels at each edge."""
    height, width = images.shape[-2:]
    if padding >= min(height, width):
        raise ValueError(f"padding={padding} needs images of more than {padding} pixels a side. Take less.")
    shifts = torch.randint(-padding, padding + 1, (2, len(images), 1), generator=generator, device=images.device)
    rows = _reflect(torch.arange(height, device=images.device) + shifts[0], height)  # (B, H)
    columns = _reflect(torch.arange(width, device=images.device) + shifts[1], width)  # (B, W)
    batch = torch.arange(len(images), device=images.device)[:, None, None]
    # indices around a slice put it last: (B, H, W, C)
    return images[batch, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2), labels


def batch_affine(
    images: Tensor,
    labels: Tensor,
    generator: Generator,
    degrees: Annotated[float, Field(ge=0, le=180)],
    translate: Fraction,
    scale: Annotated[float, Field(ge=0, lt=1)],
) -> Batch:
    """Rotate by up to `degrees`, shift by up to `translate` of the side, scale by up to `scale`; 0 comes in."""
    draws = torch.rand((4, len(images)), generator=generator, device=images.device) * 2 - 1
    angle = draws[0] * math.radians(degrees)
    size = 1 + draws[1] * scale
    cosine, sine = angle.cos() / size, angle.sin() / size
    # affine_grid measures from -1 to 1, so a shift by the whole side is 2
    shift_x, shift_y = draws[2] * 2 * translate, draws[3] * 2 * translate
    matrix = torch.stack([cosine, -sine, shift_x, sine, cosine, shift_y], dim=1)
    grid = F.affine_grid(matrix.view(-1, 2, 3), list(images.shape), align_corners=False)
    images = images.float().contiguous()
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False), labels


def random_resized_crop(
    width: int,
    height: int,
    generator: Generator,
    scale: Annotated[list[Share], Field(min_length=2, max_length=2)],
    ratio: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=2, max_length=2)],
) -> Box:
    """A window of a share of the area within `scale` and of a width by height within `ratio`, which is then resized.

    That of GoogLeNet (Szegedy et al. 2015), drawn as torchvision's RandomResizedCrop does: the middle after ten misses.
    """
    low, high = (math.log(shape) for shape in ratio)
    for share, shape, left, top in torch.rand(10, 4, generator=generator).tolist():
        area = width * height * (scale[0] + share * (scale[1] - scale[0]))
        aspect = math.exp(low + shape * (high - low))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return int(left * (width - w + 1)), int(top * (height - h + 1)), w, h
    w, h = min(width, round(height * max(ratio))), min(height, round(width / min(ratio)))
    return (width - w) // 2, (height - h) // 2, w, h


def is_cut(function: Callable[..., Any]) -> bool:
    """Whether it says what is cut out of an image, rather than what becomes of a batch."""
    return not isinstance(function, type) and list(inspect.signature(function).parameters)[:2] == ["width", "height"]


def _reflect(index: Tensor, length: int) -> Tensor:
    """Indices outside 0..length-1 mirrored at the edge pixel, which is not repeated."""
    return (length - 1) - ((length - 1) - index.abs()).abs()


@dataclass(frozen=True)
class Augmentation:
    """Components one after the other."""

    components: Sequence[Augment]

    def __call__(self, images: Tensor, labels: Tensor, generator: Generator) -> Batch:
        for component in self.components:
            images, labels = component(images, labels, generator)
        return images, labels


def build_component(target: Callable[..., Any], arguments: Values, place: int, num_classes: int) -> Augment:
    """A function on batches with its arguments, or a class, such as torchvision's, whose object takes single images.

    What declares `num_classes` is given it; a class that does mixes images, and its object takes a batch with labels.
    `place` in the order makes the draws of two such objects differ.
    """
    mixes = "num_classes" in inspect.signature(target).parameters
    made = partial(target, **arguments, **({"num_classes": num_classes} if mixes else {}))
    return partial(_transformed, made(), mixes, place) if isinstance(target, type) else made


def _transformed(
    transform: Callable[..., Any], mixes: bool, place: int, images: Tensor, labels: Tensor, generator: Generator
) -> Batch:
    """Drawn by torch's global generators, for torchvision takes no other; they are then as before."""
    seed = step_seed(generator.initial_seed(), place, 0, "transform")
    with torch.random.fork_rng([images.device] if images.is_cuda else []):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed seeds all GPUs, and fork_rng restores this one
        if images.is_cuda:
            torch.cuda.manual_seed(seed)
        if mixes:
            return transform(images.float(), labels)
        pixels = images if images.dtype == torch.uint8 else images.round().clamp(0, 255).byte()
        return torch.stack([transform(image) for image in pixels]), labels
