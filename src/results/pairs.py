"""Whether one setting is better than another, from which of the same images their runs answered right.

A setting's answers are bool (S, N): for each of S seeds, whether each of N images was answered right.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.stats import binomtest, norm, t

from src.results.intervals import LEVEL, Interval, proportion

POWER = 0.8  # how often as many images or seeds as are said to be enough would tell such a difference
MOST = 1000  # seeds that are looked at


@dataclass(frozen=True)
class Difference:
    """The second setting's accuracy less the first's, in -1..1, with its 95 % interval, and the probability `p` of one
    as great if there were none; how many `images` or `seeds` of each would tell it, None where none would, or it is 0.
    """

    value: float
    interval: Interval
    p: float
    images: int | None
    seeds: int | None


def compare(first: np.ndarray, second: np.ndarray, pairs: int = 1) -> Difference:
    """Of one seed each, McNemar's exact test (1947) and Newcombe's interval (1998): a bootstrap's has no width where
    few answers differ. Of several, seeds and images are both drawn at random: a random-effects analysis of variance
    (Searle, Casella, McCulloch 1992) with Satterthwaite's degrees of freedom (1946). Of one seed against several, the
    first of these: how much the seeds of both differ can't be known. What would be enough is so after Holm's correction
    over so many `pairs` too."""
    level = (1 - LEVEL) / 2 / pairs
    if 1 in (len(first), len(second)):
        first, second = first[:1], second[:1]
    change = second.mean(0) - first.mean(0)
    value, images = float(change.mean()), len(change)
    if len(first) == 1:
        lost, won = int((change < 0).sum()), int((change > 0).sum())
        p = float(binomtest(won, won + lost).pvalue) if won + lost else 1.0
        enough = _images((won + lost) / images, value, level)
        return Difference(value, _paired(first[0], second[0]), p, enough, None)
    parts = [_Parts.of(first), _Parts.of(second)]
    by_images = float(change.var(ddof=1)) / images
    by_seeds = sum(part.seeds / part.count for part in parts)
    error = math.sqrt(by_images + by_seeds)
    if error < 1e-9:  # of rounding: all seeds of both gave the same answers
        return compare(first[:1], second[:1], pairs)
    free = error**4 / (by_images**2 / (images - 1) + sum(part.freedom for part in parts))
    half = float(t.ppf((1 + LEVEL) / 2, free)) * error
    ends = max(value - half, -1.0), min(value + half, 1.0)
    p = float(2 * t.sf(abs(value) / error, free))
    return Difference(value, ends, p, *_enough(value, by_images * images, images, parts, level))


@dataclass(frozen=True)
class _Parts:
    """Of the variance of one setting: what each seed adds, and what is the chance of each single answer."""

    seeds: float
    answers: float
    count: int

    @classmethod
    def of(cls, right: np.ndarray) -> _Parts:
        count, images = right.shape
        left = right - right.mean(0) - right.mean(1, keepdims=True) + right.mean()
        answers = float((left**2).sum()) / (count - 1) / max(images - 1, 1)
        return cls(max(float(right.mean(1).var(ddof=1)) - answers / images, 0.0), answers, count)

    @property
    def freedom(self) -> float:
        return (self.seeds / self.count) ** 2 / (self.count - 1)


def _paired(first: np.ndarray, second: np.ndarray) -> Interval:
    """Of the second's accuracy less the first's, from the intervals of both and how much they go together (Newcombe
    1998, Statistics in Medicine 17, 2635, method 10)."""
    count, one, two = len(first), float(first.mean()), float(second.mean())
    (low, high), (other_low, other_high) = (proportion(right.sum(), count) for right in (first, second))
    both, neither = int((first & second).sum()), int((~first & ~second).sum())
    cross = both * neither - int((first & ~second).sum()) * int((second & ~first).sum())
    product = count**4 * one * (1 - one) * two * (1 - two)
    together = (cross - min(max(cross, 0), count / 2)) / math.sqrt(product) if product > 0 else 0.0

    def reach(down: float, up: float) -> float:
        return math.sqrt(down**2 - 2 * together * down * up + up**2)

    return two - one - reach(two - other_low, high - one), two - one + reach(one - low, other_high - two)


def _images(discordant: float, value: float, level: float) -> int | None:
    """How many McNemar's test needs (Connor 1987), where this share is answered right by one of the two alone."""
    if not value:
        return None
    tail, power = norm.isf(level), norm.ppf(POWER)
    return math.ceil((tail * math.sqrt(discordant) + power * math.sqrt(discordant - value**2)) ** 2 / value**2)


def _enough(
    value: float, by_image: float, images: int, parts: Sequence[_Parts], level: float
) -> tuple[int | None, int | None]:
    """How many images with these seeds, and how many seeds of each with these images, would tell such a difference."""
    if not value:
        return None, None
    margin = norm.isf(level) + norm.ppf(POWER)
    left = (value / margin) ** 2 - sum(part.seeds / part.count for part in parts)
    enough = math.ceil(by_image / left) if left > 0 else None
    of_image = by_image - sum(part.answers / part.count for part in parts)  # what more seeds leave
    of_seed = sum(part.seeds + part.answers / images for part in parts)
    seeds = np.arange(2, MOST)
    is_enough = _margins(level) ** 2 * (max(of_image, 0) / images + of_seed / seeds) <= value**2
    return enough, int(seeds[is_enough.argmax()]) if is_enough.any() else None


@cache
def _margins(level: float) -> np.ndarray:
    """How many standard errors a difference needs, by the number of seeds, from two."""
    return t.isf(level, 2 * np.arange(2, MOST) - 2) + norm.ppf(POWER)


def holm(values: Sequence[float]) -> list[float]:
    """Each probability as Holm (1979) corrects it for being one of several."""
    order, corrected, greatest = np.argsort(values, kind="stable"), [0.0] * len(values), 0.0
    for rank, place in enumerate(order):
        greatest = max(greatest, min(1.0, (len(values) - rank) * values[place]))
        corrected[place] = greatest
    return corrected


def about(count: int) -> int:
    """Two digits of it."""
    return round(count, 2 - len(str(count)))
