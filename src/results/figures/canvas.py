"""What all pictures share: colours, sizes, and how they become files or pixels."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure, SubFigure

from src.config.files import whole

# told apart by colour-blind readers (Okabe, Ito 2008)
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#666666"
COLOURS = (BLUE, ORANGE, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")

Drawing = Figure | SubFigure


def blank(width: float, height: float, dpi: int = 110) -> Figure:  # in inches
    return Figure(figsize=(width, height), dpi=dpi, layout="constrained")


def save(figure: Figure, path: Path) -> None:
    with whole(path) as temporary:
        figure.savefig(temporary, format="png")


def shorten(text: str, length: int = 18) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"
