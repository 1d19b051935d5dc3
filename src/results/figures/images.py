"""Images with what the network made of them, and what its first layer looks for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from torch import Tensor

from src.model.answers import Answers
from src.results.figures.canvas import GREY, ORANGE, Drawing, shorten

if TYPE_CHECKING:
    from src.model.predictor import Predictor


def as_rows(image: Tensor) -> np.ndarray:
    """(C, H, W) as (H, W, 3), or (H, W) where there are not three channels: their mean."""
    image = image if len(image) in (1, 3) else image.float().mean(0, keepdim=True).to(image.dtype)
    return image.permute(1, 2, 0).squeeze(-1).numpy()


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


def draw_tiles(figure: Drawing, pictures: Sequence[np.ndarray], captions: Sequence[Caption], columns: int) -> None:
    """Pictures of one size, uint8 (H, W) or (H, W, 3), row by row in squares, each below its caption if there are any.

    They are one image on one pair of axes, which is drawn ten times as fast as axes for each.
    """
    height = width = max(pictures[0].shape[:2])
    rows, gap = -(-len(pictures) // columns), -(-width // 12)
    above = round(0.42 * height) if captions else gap
    tall, wide = height + above, width + gap
    sheet = np.full((rows * tall, columns * wide, 3), 255, np.uint8)
    axes = figure.subplots()
    for place, picture in enumerate(pictures):
        top, left = place // columns * tall + above, place % columns * wide
        lower, inner = top + height - picture.shape[0], left + (width - picture.shape[1]) // 2
        sheet[lower : lower + picture.shape[0], inner : inner + picture.shape[1]] = (
            picture if picture.ndim == 3 else picture[..., None]
        )
        if captions:
            wrong = captions[place].true is not None
            axes.text(
                left + width / 2,
                lower - 0.06 * height,
                str(captions[place]),
                ha="center",
                va="bottom",
                fontsize=7,
                color=ORANGE if wrong else GREY,
                fontweight="bold" if wrong else "normal",
                parse_math=False,
            )
    axes.imshow(sheet, interpolation="nearest")
    axes.axis("off")
    axes.set_anchor("N")


def draw_answers(figure: Drawing, answers: Answers, places: Tensor, columns: int = 8, sure: bool = False) -> None:
    """Images with the predicted class above each, and the true one where they differ; `sure` adds how probable the
    network holds both."""
    captions = []
    for place in places.tolist():
        label, guess = int(answers.labels[place]), int(answers.predicted[place])
        said, true = answers.classes[guess], answers.classes[label]
        if sure:
            said, true = (f"{name} {answers.probabilities[place, n]:.0%}" for name, n in ((said, guess), (true, label)))
        captions.append(Caption(said, None if label == guess else true))
    draw_tiles(figure, [as_rows(image) for image in answers.images[places].images], captions, columns)


def draw_filters(figure: Drawing, filters: Tensor, columns: int = 16) -> None:
    """Up to three rows of kernels, each brought to 0..1 by itself; in colour where they have three channels."""
    pictures = [as_rows((to_unit(kernel) * 255).byte()) for kernel in filters[: 3 * columns]]
    draw_tiles(figure, pictures, [], columns)


def to_unit(kernel: Tensor) -> Tensor:
    """A kernel (C, h, w) as a picture of 3 channels or 1, from 0 to 1."""
    kernel = kernel if len(kernel) == 3 else kernel.mean(0, keepdim=True)
    return (kernel - kernel.min()) / (kernel.max() - kernel.min()).clamp(min=1e-8)


def draw_saliency(figure: Drawing, predictor: Predictor, answers: Answers, places: Tensor, columns: int = 2) -> None:
    """Pairs of an image and the same with the places (Grad-CAM) that spoke for the class answered."""
    images = answers.images[places].images
    maps = predictor.saliency(images, answers.predicted[places])
    assert maps is not None
    pictures, captions = [], []
    for place, image, heat in zip(places.tolist(), images, maps, strict=True):
        label, guess = int(answers.labels[place]), int(answers.predicted[place])
        pictures += [
            np.broadcast_to(as_rows(image).reshape(*image.shape[1:], -1), (*image.shape[1:], 3)),
            overlay(image, heat),
        ]
        name = answers.classes[guess]
        captions += [Caption(name, None if label == guess else answers.classes[label]), Caption(f"why {name}")]
    draw_tiles(figure, pictures, captions, 2 * columns)


def overlay(image: Tensor, heat: Tensor) -> np.ndarray:
    """uint8 (C, H, W) in grey with `heat` (H, W) of 0..1 as orange light on it, uint8 (H, W, 3)."""
    grey = image.float().mean(0)[..., None].numpy() / 255
    light = heat[..., None].numpy()
    orange = np.array([0xFF, 0x9E, 0x2C]) / 255
    return ((grey * 0.7 * (1 - 0.75 * light) + orange * 0.75 * light).clip(0, 1) * 255).astype(np.uint8)
