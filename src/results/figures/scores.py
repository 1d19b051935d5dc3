"""How often the network is right, at what, and how well it knows."""

from __future__ import annotations

from typing import Any

import numpy as np

from src.model.answers import Answers
from src.results.figures.canvas import BLUE, GREY, ORANGE, Drawing, shorten
from src.results.intervals import percent

NUMBERED = 20  # classes; in a wider matrix no number can be read


def draw_confusion(figure: Drawing, answers: Answers) -> None:
    """Of each true class, the share that got each answer; the number of images in each cell."""
    counts, names = answers.matrix.numpy(), [shorten(name, 12) for name in answers.classes]
    shares = counts / counts.sum(1, keepdims=True).clip(min=1)
    axes = figure.subplots()
    picture = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_title(f"answers to {len(answers):,} {answers.split} images", fontsize=10)
    axes.set(xlabel="answered", ylabel="true")
    if len(names) > NUMBERED:
        axes.locator_params(integer=True)
        figure.colorbar(picture, label="share of the true class", shrink=0.7)
        return
    size = 8 if len(names) <= 12 else 6
    words: Any = {"fontsize": size + 1, "parse_math": False}  # a name may have dollars in it
    axes.set_xticks(range(len(names)), names, rotation=90 if max(map(len, names)) > 2 else 0, **words)
    axes.set_yticks(range(len(names)), names, **words)
    for row, column in zip(*np.nonzero(counts), strict=True):
        colour = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, f"{counts[row, column]}", ha="center", va="center", fontsize=size, color=colour)


def draw_calibration(figure: Drawing, answers: Answers) -> None:
    """How often answers of each confidence are right, above how many there are of each."""
    found = answers.calibration()
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    upper.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label="perfectly calibrated")
    upper.plot(found.confidence, found.accuracy, color=BLUE, marker="o", markersize=5, label="this network")
    upper.set_title(f"calibration error {percent(found.error)}", fontsize=10)
    upper.set(ylabel="accuracy", xlim=(0, 1), ylim=(0, 1.02))
    upper.grid(alpha=0.3)
    upper.legend(fontsize=8, loc="best")
    bins = len(found.counts)
    lower.bar(np.arange(bins) / bins, found.counts, width=1 / bins, align="edge", color=ORANGE, edgecolor="white")
    lower.set_yscale("symlog", linthresh=1)
    lower.set_ylim(bottom=0)
    lower.set(xlabel="probability of the class answered", ylabel="images")
