"""What all pictures share: colours, sizes, and how they become files or pixels."""

from __future__ import annotations

import sys
import warnings
from functools import cache
from pathlib import Path
from typing import Any

from matplotlib import rcParams
from matplotlib.figure import Figure, SubFigure
from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font
from matplotlib.text import Text
from matplotlib.ticker import Formatter, PercentFormatter, ScalarFormatter

from src.config.files import whole

# told apart by colour-blind readers (Okabe, Ito 2008)
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#666666"
COLOURS = (BLUE, ORANGE, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")

Drawing = Figure | SubFigure


class _Page(Figure):
    """A figure whose words, such as names of classes, may be of any alphabet."""

    def draw(self, renderer: Any) -> None:
        words: Any = self.findobj(Text)
        families = list(_families("".join(sorted(set().union(*(word.get_text() for word in words))))))
        for word in words:
            word.set_fontfamily(families)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing from")  # said once
            super().draw(renderer)


@cache
def _families(letters: str) -> tuple[str, ...]:
    """matplotlib's own fonts, and of the installed ones those that have what these lack."""
    lacking, families = _lacking(letters, findfont(FontProperties())), list(rcParams["font.family"])
    for entry in fontManager.ttflist if lacking else ():
        left = _lacking(lacking, entry.fname)
        if left != lacking and not entry.name.startswith("Last Resort"):  # which has boxes
            lacking = left
            families.append(entry.name)
    _say(lacking)
    return tuple(dict.fromkeys(families))


def _lacking(letters: str, font: str) -> str:
    return "".join(letter for letter in letters if letter != "\n" and not get_font(font).get_char_index(ord(letter)))


@cache
def _say(letters: str) -> None:
    if letters:
        print(f"warning: no font here has {letters}: pictures show boxes. Install one, such as Noto.", file=sys.stderr)


def blank(width: float, height: float, dpi: int = 110) -> Figure:  # in inches
    return _Page(figsize=(width, height), dpi=dpi, layout="constrained")


def save(figure: Figure, path: Path) -> None:
    with whole(path) as temporary:
        figure.savefig(temporary, format="png")


def shorten(text: str, length: int = 18) -> str:
    text = text.encode(errors="replace").decode()  # the bytes of a name may be no text
    return text if len(text) <= length else f"{text[: length - 1]}…"


def form(monitor: str) -> Formatter:
    """Of the ticks of an axis for what is monitored."""
    return PercentFormatter(1, symbol=" %") if monitor == "val/acc" else ScalarFormatter()
