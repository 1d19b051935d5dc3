"""Settings compared in pairs, at a glance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.ticker import PercentFormatter

from src.results.figures.canvas import BLUE, GREY, Drawing, shorten
from src.results.intervals import Interval

NUMBERED = 12  # settings; in a wider matrix no number can be read


def draw_differences(figure: Drawing, rows: Sequence[tuple[str, float, Interval, bool]], names: Sequence[str]) -> None:
    """A forest plot: of each pair its name, difference and interval in points, in blue where it is told from none."""
    axes = figure.subplots()
    axes.axvline(0, color=GREY, linewidth=1, linestyle="--")
    for place, (_, value, (low, high), is_told) in enumerate(rows):
        colour = BLUE if is_told else GREY
        axes.plot([100 * low, 100 * high], [place, place], color=colour, linewidth=1.5)
        axes.plot(100 * value, place, "s", color=colour, markersize=5)
    axes.set_yticks(range(len(rows)), [row[0] for row in rows], fontsize=8)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlabel("points of accuracy, with 95 % intervals")
    axes.grid(alpha=0.3, axis="x")
    figure.supxlabel("\n".join(shorten(name, 80) for name in names), fontsize=7, color=GREY, parse_math=False)


def draw_agreement(figure: Drawing, letters: Sequence[str], shares: np.ndarray) -> None:
    """Of each two settings the share of images that they answered alike, float (K, K), NaN where there is none."""
    axes = figure.subplots()
    picture = axes.imshow(shares, cmap="Blues")
    axes.set_xticks(range(len(letters)), letters, fontsize=8)
    axes.set_yticks(range(len(letters)), letters, fontsize=8)
    if len(letters) > NUMBERED:
        figure.colorbar(picture, shrink=0.7, format=PercentFormatter(1, symbol=" %"))
        return
    middle = (np.nanmin(shares) + np.nanmax(shares)) / 2
    for row, column in zip(*np.nonzero(np.isfinite(shares)), strict=True):
        share = shares[row, column]
        colour, size = ("white" if share > middle else "black"), 9 if len(letters) <= 8 else 6
        axes.text(column, row, f"{100 * share:.1f}", ha="center", va="center", fontsize=size, color=colour)
