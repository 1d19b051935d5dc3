"""A sweep at a glance."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from src.results.figures.canvas import BLUE, COLOURS, GREY, ORANGE, blank, save, shorten
from src.results.figures.curves import read_curves

if TYPE_CHECKING:
    from src.results.table import Summary


def save_sweep(summary: Summary) -> None:
    """Write `curves.png` and, where a value was varied, `values.png` into the sweep's folder."""
    figure = blank(8, 4.5)
    draw_sweep_curves(figure, summary)
    save(figure, summary.folder / "curves.png")
    if summary.varied and summary.best:
        columns = min(len(summary.varied), 3)
        rows = -(-len(summary.varied) // columns)
        figure = blank(1 + 3.2 * columns, 3.4 * rows)
        draw_values(figure, summary, rows, columns)
        save(figure, summary.folder / "values.png")


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
            range(len(values)), [shorten(value) for value in values], rotation=30 if long else 0, fontsize=8
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
