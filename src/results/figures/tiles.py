"""Images with what the network made of them, and what its first layer looks for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.utils import make_grid

from src.model.answers import Answers
from src.model.predictor import Predictor
from src.results.figures.canvas import GREY, ORANGE, Drawing, shorten
from src.results.intervals import percent

LIGHT = torch.tensor([0xFF, 0x9E, 0x2C])[:, None, None] / 255  # orange, of where a network looked
Caption = tuple[str, bool]  # and whether it tells of a mistake


def caption(answered: str, true: str | None = None, shares: Sequence[str] = ("", "")) -> Caption:
    """What was answered, and the true class if it is another, with a share of each: no colour is needed, nor room."""
    text = shorten(answered, 16 - len(shares[0])) + shares[0]
    if true is None or true == answered:
        return text, False
    between = ", " if len(text) + len(true) <= 4 else "\n"
    return f"{text}{between}not {shorten(true, 12 - len(shares[1]))}{shares[1]}", True


def as_colour(images: Tensor) -> Tensor:
    """(..., C, H, W) as (..., 3, H, W), grey where there are not three channels: their mean."""
    grey = images if images.shape[-3] in (1, 3) else images.float().mean(-3, keepdim=True).to(images.dtype)
    return grey.expand(*images.shape[:-3], 3, -1, -1)


def overlay(images: Tensor, heat: Tensor) -> Tensor:
    """uint8 (..., C, H, W) in grey with `heat` (..., H, W) of 0..1 as orange light on it, uint8 (..., 3, H, W)."""
    grey, heat = images.float().mean(-3, keepdim=True) / 255, heat.unsqueeze(-3)
    return ((grey * 0.7 * (1 - 0.75 * heat) + LIGHT * 0.75 * heat).clamp(0, 1) * 255).byte()


def draw_tiles(figure: Drawing, images: Tensor, captions: Sequence[Caption], columns: int) -> None:
    """Images uint8 (N, C, H, W), row by row, each below its caption."""
    height, width = images.shape[2:]
    gap, above = -(-width // 12), round(0.42 * width)
    tiles = F.pad(as_colour(images), (0, 0, above, 0, 0, 0, 0, -len(images) % columns), value=255)
    axes = figure.subplots()  # for all, as one image: it is drawn ten times as fast as axes for each
    longest = max(len(line) for text, _ in captions for line in text.splitlines())
    size = min(7, 72 * figure.bbox.width / figure.dpi / columns / longest / 0.76)  # a bold letter's width in heights
    for index, (text, wrong) in enumerate(captions):
        row, column = divmod(index, columns)
        centre, top = gap + column * (width + gap) + width / 2, (row + 1) * (gap + above) + row * height
        style: Any = {"color": ORANGE, "fontweight": "bold"} if wrong else {"color": GREY}
        axes.text(centre, top - 0.06 * width, text, ha="center", va="bottom", fontsize=size, parse_math=False, **style)
    axes.imshow(make_grid(tiles, columns, gap, pad_value=255).permute(1, 2, 0).numpy(), interpolation="nearest")
    axes.axis("off")
    axes.set_anchor("N")


def draw_answers(figure: Drawing, answers: Answers, indices: Tensor, columns: int = 8, sure: bool = False) -> None:
    """Images with the answer above each, and the true class where it differs; `sure` adds the probability of both."""
    rows, captions = answers.images[indices], []
    for shares, *labels in zip(answers.probabilities[indices], answers.predicted[indices], rows.labels, strict=True):
        answered, true = (answers.classes[label] for label in labels)
        captions.append(caption(answered, true, [f" ({percent(float(shares[label]), 0)})" * sure for label in labels]))
    draw_tiles(figure, rows.images, captions, columns)


def draw_saliency(figure: Drawing, predictor: Predictor, answers: Answers, indices: Tensor, columns: int = 2) -> None:
    """Pairs of an image and the same with Grad-CAM: where the network looked for the class answered."""
    rows, predicted = answers.images[indices], answers.predicted[indices]
    maps = predictor.saliency(rows.images, predicted)
    assert maps is not None
    captions = []
    for labels in zip(predicted, rows.labels, strict=True):
        answered, true = (answers.classes[label] for label in labels)
        captions += [caption(answered, true), caption(f"why {answered}")]
    pairs = torch.stack([as_colour(rows.images), overlay(rows.images, maps)], 1)  # (N, 2, 3, H, W)
    draw_tiles(figure, pairs.flatten(0, 1), captions, 2 * columns)


def filter_grid(filters: Tensor, columns: int) -> Tensor:
    """Kernels (N, C, h, w) as one picture (3, H, W), each brought to 0..1 by itself; in colour where C is 3."""
    return make_grid(as_colour(filters), columns, padding=1, normalize=True, scale_each=True, pad_value=1)


def draw_filters(figure: Drawing, filters: Tensor, columns: int = 16) -> None:
    """Up to three rows of kernels."""
    axes = figure.subplots()
    axes.imshow(filter_grid(filters[: 3 * columns], columns).permute(1, 2, 0).numpy(), interpolation="nearest")
    axes.axis("off")
