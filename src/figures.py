"""Every picture, drawn once."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor, nn

if TYPE_CHECKING:  # importing Lightning takes seconds
    from src.data.datamodule import DataModule
    from src.data.images import ImageSet
    from src.model.classifier import Classifier
    from src.summary import Summary

# told apart by colour-blind readers (Okabe, Ito 2008)
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#666666"
COLOURS = (BLUE, ORANGE, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
DIGITS = 24  # test images shown


def save_summary(folder: Path, classifier: Classifier, datamodule: DataModule, outcome: dict[str, Any]) -> None:
    """Write `summary.png`: the curves, test images with what was answered, the first layer's filters."""
    figure = Figure(figsize=(11, 6.2), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    tested = outcome["test"] is not None
    score, name = (outcome["test"], "test") if tested else (outcome["val"], "validation")
    right = "" if score["accuracy"] is None else f": {score['accuracy']:.2%} of {score['images']:,} {name} images right"
    figure.suptitle(f"{outcome['model']} on {outcome['dataset']['test_set']}{right}", fontsize=13)
    left, right = figure.subfigures(1, 2, width_ratios=(1, 1.25))  # type: ignore[misc]
    upper, lower = left.subplots(2, 1, sharex=True)
    curves = read_curves(folder / "metrics.csv")
    draw_curves(upper, curves, "acc", "accuracy")
    draw_curves(lower, curves, "loss", "cross-entropy")
    lower.set_xlabel("step")
    top, bottom = right.subfigures(2, 1, height_ratios=(1.6, 1))
    shown = datamodule.splits.test if tested else datamodule.splits.valid
    images, labels, answers = answer(classifier, datamodule, shown, DIGITS)
    top.suptitle(f"{name} images and answers", fontsize=10)
    draw_answers(top, images, labels, answers, datamodule.splits.classes)
    filters = first_filters(classifier.network)
    if filters is not None:
        draw_filters(bottom, filters)
    _save(figure, folder / "summary.png")


def save_sweep(summary: Summary) -> None:
    """Write `curves.png` and, where a value was varied, `values.png` into the sweep's folder."""
    figure = Figure(figsize=(8, 4.5), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    draw_sweep_curves(figure, summary)
    _save(figure, summary.folder / "curves.png")
    if summary.varied and summary.best:
        columns = min(len(summary.varied), 3)
        rows = -(-len(summary.varied) // columns)
        figure = Figure(figsize=(1 + 3.2 * columns, 3.4 * rows), dpi=110, layout="constrained")
        FigureCanvasAgg(figure)
        draw_values(figure, summary, rows, columns)
        _save(figure, summary.folder / "values.png")


def _save(figure: Figure, path: Path) -> None:
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.part.png")
    figure.savefig(temporary)
    temporary.replace(path)


def draw_sweep_curves(figure: Figure, summary: Summary) -> None:
    """Validation accuracy of each run over its epochs; one colour a setting, the best one first."""
    axes = figure.subplots()
    settings = [group.setting for group in summary.groups]
    settings += dict.fromkeys(setting for row in summary.rows if (setting := summary.setting(row)) not in settings)
    for row in sorted(summary.rows, key=lambda row: settings.index(summary.setting(row))):
        curve = read_curves(row.folder / "metrics.csv", "epoch").get("val/acc")
        if curve is None:
            continue
        rank = settings.index(summary.setting(row))
        colour = COLOURS[rank] if rank < len(COLOURS) else "#CCCCCC"
        label = (
            " ".join(f"{key}={value}" for key, value in zip(summary.keys, settings[rank], strict=True)) or "all runs"
        )
        known = {line.get_label() for line in axes.lines}
        axes.plot(
            *curve,
            color=colour,
            marker="o",
            markersize=3,
            linewidth=1.2,
            alpha=0.8,
            zorder=3 if rank < len(COLOURS) else 1,
            linestyle="-" if row.state == "finished" else ":",
            label=f"_{label}" if label in known or rank >= len(COLOURS) else label,
        )
    axes.set_title("validation accuracy of each run", fontsize=10)
    axes.set_xlabel("epoch")
    axes.set_ylabel("accuracy")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    if axes.lines:
        figure.legend(loc="outside lower center", fontsize=8, ncols=2)


def draw_values(figure: Figure, summary: Summary, rows: int, columns: int) -> None:
    """Validation accuracy by each value that was varied: every finished run a point, a bar at their mean."""
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for axes in grid.flat[len(summary.varied) :]:
        axes.axis("off")
    finished = [row for row in summary.rows if row.val_accuracy is not None]
    for axes, key in zip(grid.flat, summary.varied, strict=False):
        values = sorted({row.options[key] for row in finished}, key=_order)
        for place, value in enumerate(values):
            scores = [row.val_accuracy or 0 for row in finished if row.options[key] == value]
            shifts = [0.0] if len(scores) == 1 else [0.3 * (n / (len(scores) - 1) - 0.5) for n in range(len(scores))]
            axes.scatter([place + shift for shift in shifts], scores, s=22, color=BLUE, alpha=0.6, linewidths=0)
            axes.hlines(sum(scores) / len(scores), place - 0.3, place + 0.3, color=ORANGE, linewidth=2)
        long = max(map(len, values), default=0) * len(values) > 24
        axes.set_xticks(
            range(len(values)), [_shorten(value) for value in values], rotation=30 if long else 0, fontsize=8
        )
        axes.set_title(key, fontsize=10)
        axes.grid(alpha=0.3, axis="y")
    for axes in grid[:, 0]:
        axes.set_ylabel("validation accuracy")
    figure.suptitle("every run a point, the bar at their mean", fontsize=9, color=GREY)


def _order(value: str) -> tuple[bool, float, str]:
    try:
        return (False, float(value), value)
    except ValueError:
        return (True, 0.0, value)


def _shorten(value: str) -> str:
    return value if len(value) <= 18 else f"{value[:17]}…"


def read_curves(path: Path, over: str = "step") -> dict[str, tuple[list[float], list[float]]]:
    """Metric name -> (steps or epochs, values), without the rows that lack it; nothing if there is no file."""
    curves: dict[str, tuple[list[float], list[float]]] = {}
    if not path.exists():
        return curves
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            for name, value in row.items():
                if value and row[over] and name not in ("step", "epoch"):
                    steps, values = curves.setdefault(name, ([], []))
                    steps.append(float(row[over]) + 1)
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


def answer(
    classifier: Classifier, datamodule: DataModule, among: ImageSet, count: int
) -> tuple[Tensor, Tensor, Tensor]:
    """`count` images from all over a set, uint8 (N, C, H, W), with true and predicted labels (N,)."""
    part = among[torch.linspace(0, len(among) - 1, count).round().long().unique()]
    classifier.eval()
    with torch.inference_mode():
        # the plain forward: a compiled one would be compiled again for this batch size
        logits = classifier.network.forward(datamodule.prepare(part.images.to(classifier.device)))
    return part.images, part.labels, logits.argmax(1).cpu()


def draw_answers(figure: Any, images: Tensor, labels: Tensor, answers: Tensor, classes: list[str]) -> None:
    """Images with the predicted class above each, and the true one where they differ."""
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
