"""Metrics over the course of a run."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from src.results.figures.canvas import BLUE, GREY, ORANGE, Drawing, form

Curves = dict[str, tuple[list[float], list[float]]]
PHASES = (("train", BLUE, "o", "training"), ("val", ORANGE, "s", "validation"))


def read_curves(path: Path, over: str = "step") -> Curves:
    """Metric name -> (steps or epochs, values), without the rows that lack it; nothing if there is no file."""
    if not path.exists():
        return {}
    rows = pd.read_csv(path, float_precision="round_trip").astype(float).dropna(subset=over).set_index(over)
    metrics = {name: values.dropna() for name, values in rows.items() if name not in ("step", "epoch")}
    return {name: ((values.index + 1).tolist(), values.tolist()) for name, values in metrics.items() if len(values)}


def draw_learning(figure: Drawing, curves: Curves, note: str = "") -> None:
    """Accuracy above loss, in training and validation, over the steps, and a note below."""
    both = figure.subplots(2, 1, sharex=True)
    for axes, (metric, title) in zip(both, (("acc", "accuracy"), ("loss", "loss")), strict=True):
        for phase, colour, marker, label in PHASES:
            if f"{phase}/{metric}" in curves:
                axes.plot(*curves[f"{phase}/{metric}"], color=colour, marker=marker, markersize=4, label=label)
        axes.set_ylabel(title, fontsize=10)
        axes.yaxis.set_major_formatter(form(f"val/{metric}"))
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(fontsize=8)
    both[-1].set_xlabel("step")
    figure.supxlabel(note, fontsize=8, color=GREY)
