"""Every picture, drawn once."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor, nn

from src.data.datamodule import DataModule
from src.model.classifier import Classifier

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#666666"  # told apart by colour-blind readers (Okabe, Ito 2008)
DIGITS = 24  # test images shown


def save_summary(folder: Path, classifier: Classifier, datamodule: DataModule, outcome: dict[str, Any]) -> None:
    """Write `summary.png`: the curves, test images with what was answered, the first layer's filters."""
    figure = Figure(figsize=(11, 6.2), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    test = outcome["test"]
    figure.suptitle(
        f"{outcome['model']} on {outcome['dataset']['test_set']}: "
        f"{test['accuracy']:.2%} of {test['images']:,} test images right",
        fontsize=13,
    )
    left, right = figure.subfigures(1, 2, width_ratios=(1, 1.25))  # type: ignore[misc]
    upper, lower = left.subplots(2, 1, sharex=True)
    curves = read_curves(folder / "metrics.csv")
    draw_curves(upper, curves, "acc", "accuracy")
    draw_curves(lower, curves, "loss", "cross-entropy")
    lower.set_xlabel("step")
    top, bottom = right.subfigures(2, 1, height_ratios=(1.6, 1))
    images, labels, answers = answer(classifier, datamodule, DIGITS)
    draw_answers(top, images, labels, answers, datamodule.splits.classes)
    filters = first_filters(classifier.network)
    if filters is not None:
        draw_filters(bottom, filters)
    temporary = folder / ".summary.part.png"
    figure.savefig(temporary)
    temporary.replace(folder / "summary.png")


def read_curves(path: Path) -> dict[str, tuple[list[float], list[float]]]:
    """Metric name -> (steps, values), without the rows that lack it."""
    curves: dict[str, tuple[list[float], list[float]]] = {}
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            for name, value in row.items():
                if value and name not in ("step", "epoch"):
                    steps, values = curves.setdefault(name, ([], []))
                    steps.append(float(row["step"]) + 1)
                    values.append(float(value))
    return curves


def draw_curves(axes: Axes, curves: dict[str, tuple[list[float], list[float]]], metric: str, title: str) -> None:
    """One metric in training and validation, over the steps."""
    named = (("train", BLUE, "o", "training, augmented"), ("val", ORANGE, "s", "validation"))
    for phase, colour, marker, label in named:
        if f"{phase}/{metric}" in curves:
            axes.plot(*curves[f"{phase}/{metric}"], color=colour, marker=marker, markersize=4, label=label)
    axes.set_title(title, fontsize=10)
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend(fontsize=8)


def answer(classifier: Classifier, datamodule: DataModule, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """`count` images from all over the test set, uint8 (N, C, H, W), with true and predicted labels (N,)."""
    chosen = torch.linspace(0, len(datamodule.splits.test) - 1, count).round().long().unique()
    part = datamodule.splits.test[chosen]
    classifier.eval()
    with torch.inference_mode():
        # the plain forward: a compiled one would be compiled again for this batch size
        logits = classifier.network.forward(datamodule.prepare(part.images.to(classifier.device)))
    return part.images, part.labels, logits.argmax(1).cpu()


def draw_answers(figure: Any, images: Tensor, labels: Tensor, answers: Tensor, classes: list[str]) -> None:
    """Images with the predicted class above each, and the true one where they differ."""
    figure.suptitle("test images and answers", fontsize=10)
    columns = 8
    grid = figure.subplots(-(-DIGITS // columns), columns)
    for axes in grid.flat:
        axes.axis("off")
    for axes, image, label, guess in zip(grid.flat, images, labels.tolist(), answers.tolist(), strict=False):
        axes.imshow(image.permute(1, 2, 0).squeeze(-1).numpy(), cmap="gray", vmin=0, vmax=255)
        right = label == guess
        text = classes[guess] if right else f"{classes[guess]}, not {classes[label]}"
        axes.set_title(
            text,
            fontsize=7,
            color=GREY if right else ORANGE,
            fontweight="normal" if right else "bold",
            parse_math=False,
        )


def first_filters(network: nn.Module) -> Tensor | None:
    """The kernels of the first convolution, float (N, C, h, w); None where there is no such layer."""
    found = next((layer for layer in network.modules() if isinstance(layer, nn.Conv2d)), None)
    return None if found is None else found.weight.detach().float().cpu()


def draw_filters(figure: Any, filters: Tensor) -> None:
    """Up to 48 kernels, each brought to 0..1 by itself; in colour where they have three channels."""
    figure.suptitle("filters of the first convolution", fontsize=10)
    columns = 16
    shown = filters[: 3 * columns]
    grid = figure.subplots(-(-len(shown) // columns), columns, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for axes, kernel in zip(grid.flat, shown, strict=False):
        kernel = kernel if len(kernel) == 3 else kernel.mean(0, keepdim=True)
        low, high = kernel.min(), kernel.max()
        picture = (kernel - low) / (high - low).clamp(min=1e-8)
        axes.imshow(picture.permute(1, 2, 0).squeeze(-1).numpy(), cmap="gray")
