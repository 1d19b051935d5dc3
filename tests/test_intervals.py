"""How sure a score is, and which difference is real: against published values, and made experiments."""

from __future__ import annotations

import numpy as np
import pytest

from src.results import intervals
from src.results.intervals import bootstrap, decimals, percent, proportion, shown
from src.results.pairs import compare, holm

EXPERIMENTS = 2000
ERROR = 3.3 * (0.95 * 0.05 / EXPERIMENTS) ** 0.5  # of a share of them: one in a thousand is further off


@pytest.mark.parametrize(
    ("right", "images", "low", "high"),
    [  # Newcombe 1998, Statistics in Medicine 17, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_interval_is_the_published_one(right: int, images: int, low: float, high: float) -> None:
    assert proportion(right, images) == pytest.approx((low, high), abs=5e-5)


def test_interval_of_a_mean_is_students() -> None:
    # Student 1908, Biometrika 6, table of the hours of sleep gained: 1.58 +- 1.2300 * 2.262 / sqrt(10)
    gained = [1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4]
    assert intervals.mean(gained) == pytest.approx((0.7001, 2.4599), abs=1e-3)
    assert intervals.mean([0.5]) is None


def test_wilson_interval_covers_what_it_says() -> None:
    rng, share = np.random.default_rng(1), 0.9
    right = rng.binomial(500, share, EXPERIMENTS)
    held = [low <= share <= high for low, high in (proportion(count, 500) for count in right)]
    assert abs(np.mean(held) - 0.95) < ERROR


class TestBootstrap:
    def test_of_a_mean_covers_what_it_says_and_is_always_the_same(self) -> None:
        values = np.random.default_rng(2).exponential(1.0, 400)
        found = bootstrap(lambda drawn: values[drawn].mean(), len(values))
        assert found == bootstrap(lambda drawn: values[drawn].mean(), len(values))
        half = 1.96 * values.std() / 20
        assert found == pytest.approx((values.mean() - half, values.mean() + half), abs=0.15 * half)

    def test_without_a_number_there_is_none(self) -> None:
        assert bootstrap(lambda drawn: float("nan"), 10) is None

    def test_draws_without_a_number_are_passed_over(self) -> None:
        found = bootstrap(lambda drawn: float("nan") if 0 in drawn else 0.5, 10)
        assert found == (0.5, 0.5)


@pytest.mark.parametrize(
    ("share", "interval", "text"),
    [
        (0.978, (0.9609, 0.9877), "97.8 % (96.1 to 98.8)"),
        (0.9965, (0.9951, 0.9975), "99.65 % (99.51 to 99.75)"),
        (0.8, (0.49, 0.943), "80 % (49 to 94)"),
        (0.978, None, "97.80 %"),
        (1.0, (1.0, 1.0), "100.00 % (100.00 to 100.00)"),
    ],
)
def test_a_score_has_the_digits_that_its_interval_leaves(
    share: float, interval: intervals.Interval | None, text: str
) -> None:
    assert percent(share, interval=interval) == text


def test_other_numbers_too() -> None:
    assert shown(0.07134, (0.0521, 0.0902)) == "0.071 (0.052 to 0.090)"
    assert decimals((0, float("inf"))) == 4
    assert percent(0.8, interval=intervals.mean([0.1 + 0.7, 0.8, 0.8])) == "80.00 % (80.00 to 80.00)"


def setting(rng: np.random.Generator, seeds: int, images: np.ndarray, gain: float, spread: float) -> np.ndarray:
    """Made answers: images are hard or easy, for all and for this setting, and seeds are good or bad."""
    logits = 3 + gain + images + rng.normal(0, 0.5, len(images)) + rng.normal(0, spread, (seeds, 1))
    return rng.random((seeds, len(images))) < 1 / (1 + np.exp(-logits))


def true_difference(gain: float, spread: float) -> float:
    rng = np.random.default_rng(0)
    logits = 3 + rng.normal(0, (2**2 + 0.5**2 + spread**2) ** 0.5, 1_000_000)
    return float((1 / (1 + np.exp(-logits - gain)) - 1 / (1 + np.exp(-logits))).mean())


class TestCompare:
    def test_mcnemar_is_exact(self) -> None:
        # 10 to 2 of 12: 2 * (1 + 12 + 66) / 4096; the accuracy of both is beside the point
        first, second = np.ones((1, 100), bool), np.ones((1, 100), bool)
        first[0, :10] = second[0, 10:12] = False
        found = compare(first, second)
        assert found.p == pytest.approx(2 * 79 / 4096)
        assert found.value == pytest.approx(0.08)

    @pytest.mark.parametrize("seeds", [1, 3])
    def test_the_same_answers_differ_by_nothing(self, seeds: int) -> None:
        right = np.random.default_rng(0).random((seeds, 50)) < 0.9
        found = compare(right, right)
        assert (found.value, found.p, found.images, found.seeds) == (0, 1, None, None)
        assert found.interval[0] <= 0 <= found.interval[1]

    @pytest.mark.parametrize("seeds", [(1, 1), (3, 3), (1, 3)])
    def test_turned_round_it_is_the_same(self, seeds: tuple[int, int]) -> None:
        rng = np.random.default_rng(3)
        images = rng.normal(0, 2, 300)
        first, second = (setting(rng, count, images, gain, 0.1) for count, gain in zip(seeds, (0, 1), strict=True))
        there, back = compare(first, second), compare(second, first)
        assert (there.value, there.p) == pytest.approx((-back.value, back.p))
        assert there.interval == pytest.approx((-back.interval[1], -back.interval[0]), abs=0.005)

    def test_one_seed_is_compared_with_one_of_several(self) -> None:
        rng = np.random.default_rng(3)
        images = rng.normal(0, 2, 300)
        several, one = setting(rng, 3, images, 0, 0.1), setting(rng, 1, images, 1, 0.1)
        assert compare(several, one) == compare(several[:1], one)
        assert compare(one, several) == compare(one, several[:1])

    def test_seeds_that_all_answer_alike_leave_the_doubt_of_two_networks(self) -> None:
        right = np.random.default_rng(0).random((1, 500)) < 0.95
        found = compare(right.repeat(2, 0), right.repeat(3, 0))
        assert found == compare(right, right)
        assert found.interval[0] < 0 < found.interval[1]

    @pytest.mark.parametrize(("seeds", "gain", "spread"), [(1, 0.3, 0.0), (3, 0.3, 0.2)])
    def test_interval_covers_what_it_says(self, seeds: int, gain: float, spread: float) -> None:
        rng, truth = np.random.default_rng(4), true_difference(gain, spread)
        covered = []
        for _ in range(EXPERIMENTS):
            images = rng.normal(0, 2, 500)
            found = compare(setting(rng, seeds, images, 0, spread), setting(rng, seeds, images, gain, spread))
            covered.append(found.interval[0] <= truth <= found.interval[1])
        assert abs(np.mean(covered) - 0.95) < ERROR

    def test_as_many_images_as_it_says_tell_the_difference(self) -> None:
        rng = np.random.default_rng(5)
        both = np.array([0.90, 0.04, 0.02, 0.04])  # both right, the second alone, the first alone, none

        def drawn(count: int) -> tuple[np.ndarray, np.ndarray]:
            outcome = rng.choice(4, count, p=both)
            return np.isin(outcome, [0, 2])[None], np.isin(outcome, [0, 1])[None]

        outcome = np.repeat(np.arange(4), (both * 1000).astype(int))
        enough = compare(np.isin(outcome, [0, 2])[None], np.isin(outcome, [0, 1])[None]).images
        assert enough is not None
        told = np.mean([compare(*drawn(enough)).p < 0.05 for _ in range(1000)])
        assert told == pytest.approx(0.8, abs=0.045)

    def test_as_many_seeds_as_it_says_tell_the_difference(self) -> None:
        # seeds alone differ: of 1,000 images the first ones are wrong, by 5 or so in each seed
        rng = np.random.default_rng(6)

        def drawn(seeds: int, wrong: int) -> np.ndarray:
            counts = (wrong + 5 * rng.normal(0, 1, seeds)).round().astype(int)
            return np.arange(1000) >= counts[:, None]

        first, second = (np.arange(1000) >= np.array([[low], [low + 5], [low + 10]]) for low in (45, 38))
        enough = compare(first, second).seeds
        assert enough is not None
        told = np.mean([compare(drawn(enough, 50), drawn(enough, 43)).p < 0.05 for _ in range(500)])
        assert told == pytest.approx(0.8, abs=0.12)

    @pytest.mark.parametrize(("seeds", "kind"), [(1, "images"), (3, "seeds")])
    def test_one_of_many_pairs_needs_more_than_a_single_one(self, seeds: int, kind: str) -> None:
        rng = np.random.default_rng(7)
        images = rng.normal(0, 2, 500)
        first, second = (setting(rng, seeds, images, gain, 0.1) for gain in (0, 0.5))
        needed = [getattr(compare(first, second, pairs), kind) for pairs in (1, 10, 66)]
        assert needed[0] < needed[1] < needed[2] < 5 * needed[0]


def test_holm_corrects_the_least_the_most() -> None:
    # Holm 1979, Scandinavian Journal of Statistics 6: by 4, 3, 2 and 1, and never less than a smaller one's
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
