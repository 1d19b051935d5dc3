"""Metrics over the course of a run."""

from __future__ import annotations

import csv
from pathlib import Path

from src.results.figures.canvas import BLUE, ORANGE, Drawing

Curves = dict[str, tuple[list[float], list[float]]]
PHASES = (("train", BLUE, "o", "training, augmented"), ("val", ORANGE, "s", "validation"))
METRICS = (("acc", "accuracy", "part of images right"), ("loss", "cross-entropy", "nats an image"))


def read_curves(path: Path, over: str = "step") -> Curves:
    """Metric name -> (steps or epochs, values), without the rows that lack it; nothing if there is no file."""
    curves: Curves = {}
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


def draw_learning(figure: Drawing, curves: Curves) -> None:
    """Accuracy above loss, in training and validation, over the steps."""
    both = figure.subplots(2, 1, sharex=True)
    for axes, (metric, title, unit) in zip(both, METRICS, strict=True):
        for phase, colour, marker, label in PHASES:
            if f"{phase}/{metric}" in curves:
                axes.plot(*curves[f"{phase}/{metric}"], color=colour, marker=marker, markersize=4, label=label)
        axes.set_title(title, fontsize=10)
        axes.set_ylabel(unit, fontsize=9)
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(fontsize=8)
    both[-1].set_xlabel("step")
