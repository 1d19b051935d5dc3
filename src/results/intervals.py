"""How sure a score is: 95 % intervals of one run's, and of the mean over seeds."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence

import numpy as np

Interval = tuple[float, float]  # lowest and highest
LEVEL = 0.95
DRAWS = 1000


def proportion(right: float, images: int) -> Interval:
    """Of an accuracy in 0..1, from how many of so many images were `right` (Wilson 1927)."""
    from scipy.stats import binomtest  # half a second, here and below

    found = binomtest(round(right), images).proportion_ci(LEVEL, method="wilson")
    return float(found.low), float(found.high)


def mean(values: Sequence[float]) -> Interval | None:
    """Of the mean over seeds (Student 1908); None where one or none is known."""
    from scipy.stats import sem, t

    if len(values) < 2:
        return None
    half = float(t.ppf((1 + LEVEL) / 2, len(values) - 1) * sem(values))
    return float(np.mean(values)) - half, float(np.mean(values)) + half


def bootstrap(score: Callable[[np.ndarray], float], images: int, draws: int = DRAWS) -> Interval | None:
    """Of what `score` gives for int64 (N,) indices of `images`, by drawing them with replacement (Efron 1979), always
    the same; None where it gives no number. A draw without one, as of a class that it lacks, is passed over."""
    from scipy.stats import bootstrap as draw

    parts = {"vectorized": False, "n_resamples": draws, "method": "percentile", "rng": np.random.default_rng(0)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of draws that are all alike
        drawn = draw((np.arange(images),), score, **parts).bootstrap_distribution
    if not np.isfinite(drawn).any():
        return None
    low, high = np.nanquantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def decimals(interval: Interval, otherwise: int = 4) -> int:
    """How many an interval leaves: its width has two significant digits; `otherwise`, if it has none or no end."""
    width = interval[1] - interval[0]
    return max(0, 1 - math.floor(math.log10(width))) if 1e-9 < width < math.inf else otherwise  # below it is rounding


def percent(share: float, digits: int = 2, interval: Interval | None = None) -> str:
    """The one form of a share in 0..1 on screens, pages and in tables: 97.80 %, or 97.8 % (96.1 to 98.8)."""
    return shown(share, interval, digits, " %", 100)


def shown(value: float, interval: Interval | None, digits: int = 4, unit: str = "", times: float = 1) -> str:
    """A number so often as it is, with as many digits as its interval leaves; 0.071 (0.052 to 0.090)."""
    if interval is None:
        return f"{times * value:.{digits}f}{unit}"
    low, high = (times * end for end in interval)
    kept = decimals((low, high), digits)
    return f"{times * value:.{kept}f}{unit} ({low:.{kept}f} to {high:.{kept}f})"
