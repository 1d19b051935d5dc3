"""Scores as the text of a table, and the table on the screen and in Markdown."""

from __future__ import annotations

import re
import sys

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from src.results.intervals import mean, percent, shown

NUMBERS = re.compile(r"runs|training|(val|test) [\w %]+")  # columns of what is shown
SPARED = ["test 95 %", "training", "runs"]  # those that a narrow screen is without, this one first


def is_number(cells: pd.Series) -> bool:
    """Whether a column's cells are numbers, which are never cut."""
    return bool(NUMBERS.fullmatch(str(cells.name)) or pd.to_numeric(cells, errors="coerce").notna().all())


def least_width(cells: pd.Series) -> int:
    """Of a column on a screen: of numbers whole, of words 12 letters, of a run's name its date and time."""
    longest = int(cells.map(len).max())
    return longest if is_number(cells) or cells.name == "note" else min(longest, 20 if cells.name == "run" else 12)


def show_rows(cells: pd.DataFrame) -> None:
    """Print a line for each row; where a terminal is too narrow, some columns are left out, long words cut and titles
    folded, no numbers."""
    console = Console(width=None if sys.stdout.isatty() else 1000)
    least = {title: least_width(cells[title]) for title in cells}
    for spared in SPARED:
        if sum(max(width, min(len(title), 10)) + 2 for title, width in least.items()) - 2 > console.width:
            least.pop(spared, None)
    grid, leaves = Table(box=None, pad_edge=False), [title.rpartition(".")[2] for title in least]
    for (title, width), leaf in zip(least.items(), leaves, strict=True):
        name = Text(leaf if leaves.count(leaf) == 1 else title, overflow="fold")
        grid.add_column(name, justify="right" if is_number(cells[title]) else "left", min_width=width)
    for row in cells[list(least)].to_numpy().tolist():
        grid.add_row(*(Text(cell, no_wrap=True, overflow="ellipsis") for cell in row))
    console.print("", grid, "", sep="\n", crop=False)


def markdown(cells: pd.DataFrame) -> str:
    """pandas would need the package tabulate for it."""
    if cells.empty:
        return ""
    rows = [list(cells), ["---:" if NUMBERS.fullmatch(title) else "---" for title in cells], *cells.to_numpy().tolist()]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows)


def score_cells(scores: pd.DataFrame, is_share: bool) -> tuple[str, str]:
    """What runs came to, of several their mean and sample standard deviation, and its 95 % interval."""
    scores, form = scores.dropna(subset=scores.columns[0]), percent if is_share else shown
    values = scores.iloc[:, 0]
    if values.empty:
        return "-", "-"
    interval = mean(values) if values.nunique() > 1 else None  # seeds that are alike say nothing
    if len(values) == 1 and scores.iloc[0, 1:].count() == 2:
        interval = tuple(scores.iloc[0, 1:])
    if interval and is_share:
        interval = max(interval[0], 0.0), min(interval[1], 1.0)
    value, _, ends = form(values.mean(), interval=interval).partition(" (")
    if len(values) > 1:
        value = f"{form(values.mean(), interval=None)} ± {form(values.std(), interval=None)}".replace(" % ±", " ±")
    return value, ends.rstrip(")") or "-"


def short(value: str) -> str:
    """Three digits of a number that a sampler has drawn; other values as they are."""
    try:
        return f"{float(value):.3g}" if len(value) > 8 and "." in value else value
    except ValueError:
        return value
