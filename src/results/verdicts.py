"""Each pair of settings, and in words which is better or what would tell."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from src.results.intervals import LEVEL, shown
from src.results.pairs import Difference, about, compare, holm
from src.results.settings import Setting


@dataclass(frozen=True)
class Pair:
    """`difference` is the second's less the first's, `p` its probability after Holm's correction over all pairs, and
    `agreement` the share of images to which both gave one answer."""

    first: Setting
    second: Setting
    difference: Difference
    p: float
    agreement: float

    @property
    def name(self) -> str:
        return f"{self.second.letter} - {self.first.letter}"

    @property
    def is_told(self) -> bool:
        return self.p < 1 - LEVEL

    @property
    def verdict(self) -> str:
        """Which is better, or that it can't be told, and what would tell it."""
        found, (low, high), images = self.difference, self.difference.interval, len(self.first.labels)
        if self.is_told:
            better, ends = (self.second, (low, high)) if found.value > 0 else (self.first, (-high, -low))
            return f"{better.letter} is better by {shown(abs(found.value), ends, unit=' points', times=100)}"
        seeds = min(len(self.first.runs), len(self.second.runs))
        enough = [f"{about(found.images):,}"] if found.images and found.images > images else []
        enough += [f"{found.seeds} seeds each"] if found.seeds and found.seeds > seeds else []
        would = f"; about {' or '.join(enough)} would" if enough else ""
        return f"can't be told apart with these {images:,} images{would}"


def compared(settings: Sequence[Setting]) -> list[Pair]:
    """Each pair, of the first with all others first."""
    pairs = list(combinations(settings, 2))
    found = [compare(first.right, second.right, len(pairs)) for first, second in pairs]
    corrected = holm([difference.p for difference in found])
    return [
        Pair(*pair, difference, p, agreement(*pair))
        for pair, difference, p in zip(pairs, found, corrected, strict=True)
    ]


def agreement(first: Setting, second: Setting) -> float:
    """The share of images with one answer, of each seed with each; of a setting with itself, with its other seeds."""
    same = (first.predicted[:, None] == second.predicted).mean(2)
    others = ~np.eye(len(same), dtype=bool)
    return float(same.mean()) if first is not second else float(same[others].mean()) if len(same) > 1 else math.nan
