"""Images with what the network made of them, and what its first layer looks for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor

from src.model.answers import Answers
from src.model.predictor import Predictor
from src.results.figures.canvas import GREY, ORANGE, Drawing, shorten


class Caption(NamedTuple):
    """What was answered, and the true class if it is another: in words, so that no colour is needed."""

    predicted: str
    true: str | None = None

    def __str__(self) -> str:
        predicted = shorten(self.predicted, 20)
        if self.true is None:
            return predicted
        between = "\n" if len(predicted) + len(self.true) > 4 else ", "
        return f"{predicted}{between}not {shorten(self.true, 16)}"


def as_rows(image: Tensor) -> np.ndarray:
    """(C, H, W) as (H, W, 3), or (H, W) where there are not three channels: their mean."""
    image = image if len(image) in (1, 3) else image.float().mean(0, keepdim=True).to(image.dtype)
    return image.permute(1, 2, 0).squeeze(-1).numpy()


def to_unit(kernel: Tensor) -> Tensor:
    """A kernel (C, h, w) as a picture of 3 channels or 1, from 0 to 1."""
    kernel = kernel if len(kernel) == 3 else kernel.mean(0, keepdim=True)
    return (kernel - kernel.min()) / (kernel.max() - kernel.min()).clamp(min=1e-8)


def overlay(image: Tensor, heat: Tensor) -> np.ndarray:
    """uint8 (C, H, W) in grey with `heat` (H, W) of 0..1 as orange light on it, uint8 (H, W, 3)."""
    grey = image.float().mean(0)[..., None].numpy() / 255
    light = heat[..., None].numpy()
    orange = np.array([0xFF, 0x9E, 0x2C]) / 255
    return ((grey * 0.7 * (1 - 0.75 * light) + orange * 0.75 * light).clip(0, 1) * 255).astype(np.uint8)


def draw_tiles(figure: Drawing, pictures: Sequence[np.ndarray], captions: Sequence[Caption], columns: int) -> None:
    """Pictures of one size, uint8 (H, W) or (H, W, 3), row by row in squares, each below its caption if there are any.

    They are one image on one pair of axes, which is drawn ten times as fast as axes for each.
    """
    side = max(pictures[0].shape[:2])
    rows, gap = -(-len(pictures) // columns), -(-side // 12)
    above = round(0.42 * side) if captions else gap
    sheet = np.full((rows * (side + above), columns * (side + gap), 3), 255, np.uint8)
    axes = figure.subplots()
    for index, picture in enumerate(pictures):
        height, width = picture.shape[:2]
        left = index % columns * (side + gap)
        top, inner = (index // columns + 1) * (side + above) - height, left + (side - width) // 2
        sheet[top : top + height, inner : inner + width] = picture.reshape(height, width, -1)
        if captions:
            wrong = captions[index].true is not None
            colour, weight = (ORANGE, "bold") if wrong else (GREY, "normal")
            centre, words = left + side / 2, str(captions[index])
            axes.text(centre, top - 0.06 * side, words, ha="center", va="bottom", parse_math=False)
            axes.texts[-1].set(color=colour, fontweight=weight, fontsize=7)
    axes.imshow(sheet, interpolation="nearest")
    axes.axis("off")
    axes.set_anchor("N")


def draw_answers(figure: Drawing, answers: Answers, indices: Tensor, columns: int = 8, sure: bool = False) -> None:
    """Images with the predicted class above each, and the true one where they differ; `sure` adds how probable the
    network holds both."""
    captions = []
    for index in indices.tolist():
        answered, true = (
            f"{answers.classes[label]} {answers.probabilities[index, label]:.0%}" if sure else answers.classes[label]
            for label in (int(answers.predicted[index]), int(answers.labels[index]))
        )
        captions.append(Caption(answered, None if answers.right[index] else true))
    draw_tiles(figure, [as_rows(image) for image in answers.images[indices].images], captions, columns)


def draw_saliency(figure: Drawing, predictor: Predictor, answers: Answers, indices: Tensor, columns: int = 2) -> None:
    """Pairs of an image and the same with the regions (Grad-CAM) that spoke for the class answered."""
    images = answers.images[indices].images
    maps = predictor.saliency(images, answers.predicted[indices])
    assert maps is not None
    pictures, captions = [], []
    for index, image, heat in zip(indices.tolist(), images, maps, strict=True):
        answered, true = (answers.classes[int(labels[index])] for labels in (answers.predicted, answers.labels))
        pictures += [as_rows(image), overlay(image, heat)]
        captions += [Caption(answered, None if answers.right[index] else true), Caption(f"why {answered}")]
    draw_tiles(figure, pictures, captions, 2 * columns)


def draw_filters(figure: Drawing, filters: Tensor, columns: int = 16) -> None:
    """Up to three rows of kernels, each brought to 0..1 by itself; in colour where they have three channels."""
    draw_tiles(figure, [as_rows((to_unit(kernel) * 255).byte()) for kernel in filters[: 3 * columns]], [], columns)
