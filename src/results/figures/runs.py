"""Many runs at a glance: rows of results.table.Table with their `score`, of which more `better` is better."""

from __future__ import annotations

from contextlib import suppress
from math import inf
from pathlib import Path

import pandas as pd

from src.results.figures.canvas import BLUE, COLOURS, GREY, ORANGE, blank, form, save, shorten
from src.results.figures.curves import read_curves
from src.results.outcome import described


def save_curves(folder: Path, runs: pd.DataFrame, monitor: str, keys: list[str]) -> None:
    """Write `curves.png`: what is monitored over the epochs, one colour a setting, which `keys` tell apart."""
    figure = blank(8, 4.5)
    axes = figure.subplots()
    labels = [" ".join(f"{key}={shorten(run[key])}" for key in keys) or "all runs" for _, run in runs.iterrows()]
    settings = sorted(runs.groupby(labels), key=lambda item: item[1].better.fillna(-inf).mean(), reverse=True)
    for rank, (label, group) in enumerate(settings):
        colour, name = (COLOURS[rank], label) if rank < len(COLOURS) else ("#CCCCCC", None)
        for run in group.itertuples():
            curve = None
            with suppress(ValueError, KeyError):  # a damaged table is told by the run's own page
                curve = read_curves(folder / run.run / "metrics.csv", "epoch").get(monitor)
            if curve is not None:
                style = "o-" if run.state == "finished" else "o:"
                axes.plot(*curve, style, color=colour, markersize=3, zorder=3 - rank / 1000, label=name)
                name = None  # the legend has each setting once
    axes.set_title(f"{described(monitor)} of each run", fontsize=10)
    axes.set(xlabel="epoch")
    axes.locator_params("x", integer=True, min_n_ticks=1)
    axes.yaxis.set_major_formatter(form(monitor))
    axes.grid(alpha=0.3)
    if axes.lines:
        figure.legend(loc="outside lower center", fontsize=8, ncols=2)
    save(figure, folder / "curves.png")


def save_values(folder: Path, runs: pd.DataFrame, monitor: str, varied: list[str]) -> None:
    """Write `values.png`: what is monitored by each value of the `varied` columns, if any run has been scored."""
    scored = runs.dropna(subset="score")
    if scored.empty or not varied:
        return
    columns = min(len(varied), 3)
    rows = -(-len(varied) // columns)
    figure = blank(1 + 3.2 * columns, 3.4 * rows)
    for number, key in enumerate(varied, start=1):
        axes = figure.add_subplot(rows, columns, number, sharey=figure.axes[0] if figure.axes else None)
        order = pd.to_numeric(scored[key], errors="coerce").sort_values(kind="stable").index
        values, scores = scored[key].loc[order].map(shorten), scored.score.loc[order]
        axes.plot(values, scores, "o", color=BLUE, alpha=0.6)
        means = scores.groupby(values, sort=False).mean()
        axes.plot(means.index, means, "_", color=ORANGE, markersize=24, markeredgewidth=2)
        axes.margins(x=0.3)
        axes.tick_params("x", rotation=30 if sum(map(len, means.index)) > 24 else 0)
        axes.yaxis.set_major_formatter(form(monitor))
        axes.set_title(key, fontsize=10)
        axes.grid(alpha=0.3, axis="y")
    figure.supylabel(described(monitor))
    figure.suptitle("each point a run, the bar at their mean", fontsize=9, color=GREY)
    save(figure, folder / "values.png")
