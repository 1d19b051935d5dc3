"""Many runs at a glance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, NullFormatter

from src.results.figures.canvas import BLUE, COLOURS, GREY, ORANGE, blank, save, shorten
from src.results.figures.curves import read_curves

MANY = 8  # values beyond which numbers have an axis to scale


def save_curves(folder: Path, runs: pd.DataFrame, keys: list[str]) -> None:
    """Write `curves.png`: validation accuracy of each run over its epochs; one colour a setting, the best one first.

    Args:
        runs: results.table.Table's.
        keys: the columns that tell settings apart.
    """
    figure = blank(8, 4.5)
    axes = figure.subplots()
    labels = [" ".join(f"{key}={shorten(run[key])}" for key in keys) or "all runs" for _, run in runs.iterrows()]
    settings = runs.groupby(labels).val_accuracy.mean().sort_values(ascending=False).index
    for rank, label in enumerate(settings):
        named = rank < len(COLOURS)
        style: dict[str, Any] = {"color": COLOURS[rank] if named else "#CCCCCC", "zorder": 3 if named else 1}
        for run in runs[np.equal(labels, label)].itertuples():
            curve = read_curves(folder / run.run / "metrics.csv", "epoch").get("val/acc")
            if curve is not None:
                style |= {"linestyle": "-" if run.state == "finished" else ":"}
                axes.plot(*curve, "o", markersize=3, linewidth=1.2, alpha=0.8, label=label if named else None, **style)
                named = False  # once in the legend
    axes.set_title("validation accuracy of each run", fontsize=10)
    axes.set_xlabel("epoch")
    axes.set_ylabel("accuracy")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    if axes.lines:
        figure.legend(loc="outside lower center", fontsize=8, ncols=2)
    save(figure, folder / "curves.png")


def save_values(folder: Path, runs: pd.DataFrame, varied: list[str]) -> None:
    """Write `values.png`: validation accuracy by each value of the `varied` columns; every scored run is a point."""
    columns = min(len(varied), 3)
    rows = -(-len(varied) // columns)
    figure = blank(1 + 3.2 * columns, 3.4 * rows)
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for axes in grid.flat[len(varied) :]:
        axes.axis("off")
    scored = runs.dropna(subset="val_accuracy")
    for axes, key in zip(grid.flat, varied, strict=False):
        numbers = pd.to_numeric(scored[key], errors="coerce")
        axes.xaxis.set_minor_formatter(NullFormatter())
        if numbers.notna().all() and numbers.nunique() > MANY:
            axes.scatter(numbers, scored.val_accuracy, s=22, color=BLUE, alpha=0.6, linewidths=0)
            axes.set_xscale("log" if numbers.min() > 0 and numbers.max() >= 30 * numbers.min() else "linear")
        else:
            _draw_choices(axes, scored.val_accuracy.groupby([numbers.fillna(np.inf), scored[key]]))
        axes.set_title(key, fontsize=10)
        axes.grid(alpha=0.3, axis="y")
    for axes in grid[:, 0]:
        axes.set_ylabel("validation accuracy")
    figure.suptitle("every run a point, the bar at their mean", fontsize=9, color=GREY)
    save(figure, folder / "values.png")


def _draw_choices(axes: Axes, scores: pd.api.typing.SeriesGroupBy) -> None:
    """The `scores` of each value side by side, with a bar at their mean."""
    values = [shorten(value) for (_, value), _ in scores]
    for position, (_, group) in enumerate(scores):
        shifts = 0.3 * np.linspace(-0.5, 0.5, len(group)) if len(group) > 1 else np.zeros(1)
        axes.scatter(position + shifts, group, s=22, color=BLUE, alpha=0.6, linewidths=0)
        axes.hlines(group.mean(), position - 0.3, position + 0.3, color=ORANGE, linewidth=2)
    long = max(map(len, values), default=0) * len(values) > 24
    axes.set_xticks(range(len(values)), values, rotation=30 if long else 0, fontsize=8)
