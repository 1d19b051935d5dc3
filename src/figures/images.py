"""Images with what the network made of them, and what its first layer looks for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from torch import Tensor

from src.answers import Answers
from src.figures.canvas import BLUE, GREY, ORANGE, Drawing, grid, shorten
from src.predictor import Predictor


def show(axes: Axes, image: Tensor) -> None:
    """uint8 (C, H, W), one channel as grey."""
    axes.imshow(as_rows(image), cmap="gray", vmin=0, vmax=255)


def as_rows(image: Tensor) -> np.ndarray:
    """(C, H, W) as (H, W, 3), or (H, W) of one channel."""
    return image.permute(1, 2, 0).squeeze(-1).numpy()


def draw_answers(figure: Drawing, answers: Answers, places: Tensor, columns: int = 8, sure: bool = False) -> None:
    """Images with the predicted class above each, and the true one where they differ; `sure` adds
    how probable the network holds both."""
    chosen = answers.images[places].images
    for axes, place, image in zip(grid(figure, len(places), columns), places.tolist(), chosen, strict=True):
        show(axes, image)
        label, guess = int(answers.labels[place]), int(answers.predicted[place])
        said, true = answers.classes[guess], answers.classes[label]
        if sure:
            said, true = (f"{name} {answers.probabilities[place, n]:.0%}" for name, n in ((said, guess), (true, label)))
        caption(axes, said, None if label == guess else true)


def caption(axes: Axes, predicted: str, true: str | None, size: int = 7) -> None:
    """What was answered, and the true class if it is another: in words, so that no colour is needed."""
    predicted = shorten(predicted, 22)
    between = "\n" if true and len(predicted) + len(true) > 4 else ", "
    axes.set_title(
        predicted if true is None else f"{predicted}{between}not {shorten(true)}",
        fontsize=size,
        color=GREY if true is None else ORANGE,
        fontweight="normal" if true is None else "bold",
        parse_math=False,
    )


def draw_contact_sheet(figure: Drawing, images: Sequence[np.ndarray], titles: Sequence[tuple[str, str | None]]) -> None:
    """uint8 images (C, H, W), each with the predicted and, if it differs, the true class."""
    for axes, image, (predicted, true) in zip(grid(figure, len(images), 8), images, titles, strict=True):
        axes.imshow(image.transpose(1, 2, 0).squeeze(-1) if len(image) == 1 else image.transpose(1, 2, 0), cmap="gray")
        caption(axes, predicted, true)


def draw_filters(figure: Drawing, filters: Tensor, columns: int = 16) -> None:
    """Up to three rows of kernels, each brought to 0..1 by itself; in colour where they have three channels."""
    shown = filters[: 3 * columns]
    for axes, kernel in zip(grid(figure, len(shown), columns), shown, strict=True):
        axes.imshow(as_rows(to_unit(kernel)), cmap="gray")


def to_unit(kernel: Tensor) -> Tensor:
    """A kernel (C, h, w) as a picture of 3 channels or 1, from 0 to 1."""
    kernel = kernel if len(kernel) == 3 else kernel.mean(0, keepdim=True)
    return (kernel - kernel.min()) / (kernel.max() - kernel.min()).clamp(min=1e-8)


def draw_saliency(figure: Drawing, predictor: Predictor, answers: Answers, places: Tensor, columns: int = 2) -> None:
    """Pairs of an image and the same with the places (Grad-CAM) that spoke for the class answered."""
    images = answers.images[places].images
    maps = predictor.saliency(images, answers.predicted[places])
    assert maps is not None
    cells = grid(figure, 2 * len(places), 2 * columns)
    for number, place in enumerate(places.tolist()):
        label, guess = int(answers.labels[place]), int(answers.predicted[place])
        left, right = cells[2 * number], cells[2 * number + 1]
        show(left, images[number])
        right.imshow(overlay(images[number], maps[number]))
        caption(left, answers.classes[guess], None if label == guess else answers.classes[label], 8)
        right.set_title("for this", fontsize=8, color=BLUE)


def overlay(image: Tensor, heat: Tensor) -> np.ndarray:
    """uint8 (C, H, W) in grey with `heat` (H, W) of 0..1 as orange light on it, uint8 (H, W, 3)."""
    grey = image.float().mean(0)[..., None].numpy() / 255
    light = heat[..., None].numpy()
    orange = np.array([0xFF, 0x9E, 0x2C]) / 255
    return ((grey * 0.7 * (1 - 0.75 * light) + orange * 0.75 * light).clip(0, 1) * 255).astype(np.uint8)
