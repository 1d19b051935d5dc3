"""Which settings can't be told from the best one by validation, and how much of the best score of a search is luck."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from src.config.errors import UserError
from src.results import predictions
from src.results.cells import short
from src.results.intervals import DRAWS, LEVEL, percent

if TYPE_CHECKING:
    from src.results.pairs import Difference

BEST, SAME, WORSE, UNDECIDED = "best", "~ best", "worse", "undecided"
IMAGES, SEEDS = "over the same images", "over the same seeds"
Right = Mapping[str, np.ndarray]


def right_answers(folder: Path, runs: pd.DataFrame) -> Right:
    """By the name of each run which images of its validation it answered right, bool (N,), in one order for all runs
    that validated on the same images; without those of which it isn't known, or that left out some."""
    right, order = dict[str, np.ndarray](), dict[str, pd.Index]()
    for run in runs[runs.validated_on != ""].itertuples():
        with suppress(UserError):  # a run of before, or damaged
            rows = predictions.read(folder / run.run)
            rows = rows[rows.split == "validation"].drop_duplicates("image").set_index("image")
            images = order.setdefault(run.validated_on, rows.index)
            if len(images) == len(rows) > 1 and images.isin(rows.index).all():
                right[run.run] = (rows.label == rows.predicted)[images].to_numpy()
    return right


@dataclass(frozen=True)
class Standing:
    """How each of the settings stands to the first, the best: `marks` in their order, the `tests` that were made, and
    the `nearest` that can't be told from it, by its rank, with how much it differs."""

    settings: Sequence[pd.DataFrame]
    marks: list[str]
    tests: list[str]
    nearest: tuple[int, Difference] | None

    @classmethod
    def of(cls, settings: Sequence[pd.DataFrame], right: Right, sign: int) -> Standing:
        """Of the runs of each, the best first, where `sign` times their `score` is better if it is greater.

        The marks hold the setting that is really the best in 95 of 100 tables (Gupta 1965), by Holm's correction.
        """
        from src.results.pairs import holm

        found = [_compared(settings[0], other, right, len(settings) - 1) for other in settings[1:]]
        corrected = iter(holm([one[0].p for one in found if one]))
        marks, nearest = [BEST], None
        for rank, one in enumerate(found, start=1):
            is_worse = one is not None and next(corrected) < 1 - LEVEL and sign * one[0].value < 0
            marks.append(UNDECIDED if one is None else WORSE if is_worse else SAME)
            if one and not is_worse and not nearest:
                nearest = rank, one[0]
        return cls(settings, marks, list(dict.fromkeys(one[1] for one in found if one)), nearest)

    def in_words(self, keys: Sequence[str], is_share: bool, more: str) -> list[str]:
        """What the marks mean, and what would tell more; `keys` name a setting, and the option `more` runs seeds."""
        from src.results.pairs import about

        lines = list[str]()
        if SAME in self.marks:
            lines.append(f"{SAME}: can't be told from the best {' or '.join(self.tests)}")
        if UNDECIDED in self.marks:
            lines.append(f"{UNDECIDED}: fewer than two seeds, and no known answers, in common with the best")
        if self.nearest:
            rank, change = self.nearest
            counts = {"images": change.images, "seeds each": change.seeds}
            if ways := " or ".join(f"{about(count):,} {what}" for what, count in counts.items() if count):
                name = " ".join(short(str(self.settings[rank].iloc[0][key])) for key in keys)
                size = f"{100 * abs(change.value):.2f} points" if is_share else f"{abs(change.value):.4f}"
                lines.append(f"{name}: {size} from the best; about {ways} would tell")
        if all(len(runs) == 1 for runs in self.settings):
            lines.append(f"one seed each: runs are compared, not settings. For settings: {more}")
        return lines


def _compared(best: pd.DataFrame, other: pd.DataFrame, right: Right, pairs: int) -> tuple[Difference, str] | None:
    """How much the other setting differs and by which test; None where neither is possible."""
    from src.results.pairs import compare

    both = best.merge(other, on="seed")  # each seed may cut another validation set
    both = both[both.validated_on_x == both.validated_on_y]
    first, second = best.run, other.run
    if len({*best.validated_on, *other.validated_on}) > 1:
        if len(both) > 1:
            return _over_seeds(both, pairs), SEEDS
        first, second = both.run_x, both.run_y
    if len(first) and right.keys() >= {*first, *second}:
        answers, others = (np.stack([right[run] for run in runs]) for runs in (first, second))
        return compare(answers, others, pairs), IMAGES
    return (_over_seeds(both, pairs), SEEDS) if len(both) > 1 else None


def _over_seeds(both: pd.DataFrame, pairs: int) -> Difference:
    """A t-test in pairs; where each seed cuts the images anew, its validation is of images that others train on, which
    it is corrected for (Nadeau, Bengio 2003)."""
    from scipy.stats import norm, t

    from src.results.pairs import MOST, POWER, Difference

    change, seeds = both.score_y - both.score_x, np.arange(2, MOST)
    value, spread, count = float(change.mean()), float(change.std()), len(both)
    is_fixed = both.validated_on_x.nunique() == 1 and both.validated_on_x.iloc[0] != ""
    shared = 0.0 if is_fixed else float(both.held_out_x.mean())
    error = spread * math.sqrt(1 / count + shared)
    half = float(t.ppf((1 + LEVEL) / 2, count - 1)) * error
    # scores of few images may differ alike by chance
    p = float(2 * t.sf(abs(value) / error, count - 1)) if error > 1e-9 else 1.0
    margins = t.isf((1 - LEVEL) / 2 / pairs, seeds - 1) + norm.ppf(POWER)
    enough = seeds[margins * spread * np.sqrt(1 / seeds + shared) <= abs(value)]
    return Difference(value, (value - half, value + half), p, None, int(enough[0]) if p < 1 and len(enough) else None)


def luck(right: np.ndarray) -> float:
    """How much of the best accuracy of T trials is chance, from which of N images each answered right, bool (T, N).

    By a parametric bootstrap (Efron 1979): how much the best one gains by the images that are drawn, where the trials'
    accuracies are as far apart as they are without that chance (James, Stein 1961); 0 of fewer than three trials.
    """
    scores, (trials, images) = right.mean(1), right.shape
    if trials < 3 or not (spread := scores.var(ddof=1)):
        return 0.0
    chance = np.cov(right) / images
    noise = (chance.trace() - chance.sum() / trials) / (trials - 1)  # without what an image is to all of them
    kept = math.sqrt(max(0.0, 1 - (trials - 3) / (trials - 1) * noise / spread))
    drawn = np.random.default_rng(0).multivariate_normal(np.zeros(trials), chance, DRAWS, method="svd")
    best = (kept * scores + drawn).argmax(1)
    return float((drawn[np.arange(DRAWS), best] - drawn.mean(1)).mean())


def of_luck(settings: Sequence[pd.DataFrame], right: Right) -> str | None:
    """In words, of the first run of each trial; None where too few validated on the same images."""
    runs = pd.concat(settings)
    known = runs[runs.run.isin(right)].sort_values("run").drop_duplicates("trial")
    if len(known) < 3 or known.validated_on.nunique() > 1:
        return None
    best = known.loc[known.score.idxmax()]
    points = 100 * luck(np.stack([right[run] for run in known.run]))
    return f"the best of {len(known)}: about {points:.2f} points of its {percent(best.score)} are luck ({best.run})"
