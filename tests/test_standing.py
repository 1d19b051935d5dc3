"""Which settings can't be told from the best one, and how much of the best score of a search is luck."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm, ttest_rel

from src.results.standing import Standing, _over_seeds, luck
from src.results.table import Table
from tests.conftest import write_results

IMAGES = 500


def answers(rng: np.random.Generator, accuracies: Any, images: int = IMAGES) -> np.ndarray:
    """Which images settings of these accuracies answer right, bool (T, N): some images are hard for all of them."""
    hard = rng.normal(0, 1, images)
    return rng.normal(0, 0.5, (len(accuracies), images)) + hard < (norm.ppf(accuracies) * 1.25**0.5)[:, None]


def first(count: int, images: int = IMAGES) -> np.ndarray:
    """Right of the first so many images alone."""
    return np.arange(images) < count


def made(root: Path, right: dict[str, np.ndarray], cut: str = "same", **options: Any) -> dict[str, list[str]]:
    """Runs named MODEL-SEED, and the overrides of each."""
    for name, row in right.items():
        seed = name.partition("-")[2]
        sha256 = f"{cut} {seed}" if cut == "by seed" else cut
        write_results(root / name, float(row.mean()), sha256=sha256, right=row, seed=int(seed), **options)
    return {name: [f"model={name.partition('-')[0]}", f"seed={name.partition('-')[2]}"] for name in right}


def shown(
    root: Path, runs: dict[str, list[str]], capsys: pytest.CaptureFixture[str], search: bool = False
) -> list[str]:
    Table(root, runs, "c", search).show()
    return capsys.readouterr().out.splitlines()


def marks(root: Path, runs: dict[str, list[str]]) -> dict[str, str]:
    return Table(root, runs, "c", search=False)._marks


class TestMarks:
    def test_of_one_seed_the_answers_to_the_same_images_tell_and_80_columns_hold_all(
        self, in_tmp: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        runs = made(in_tmp, {"a-1": first(480), "b-1": first(478), "c-1": first(450)})
        monkeypatch.setenv("TERM", "dumb")
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        lines = shown(in_tmp, runs, capsys)
        assert all(len(line) <= 80 for line in lines if not line.startswith("table and pictures"))
        rows = {line[0]: line for line in lines if line.startswith(("a ", "b ", "c "))}
        assert [rows[name].rstrip().split("  ")[-1] for name in "abc"] == ["best", "~ best", "worse"]
        assert "96.0 %  93.9 to 97.4" in rows["a"], "Wilson's of 480 of 500"
        assert "~ best: can't be told from the best over the same images" in lines
        assert "b: 0.40 points from the best; about 2,400 images would tell" in lines
        assert "one seed each: runs are compared, not settings. For settings: -m seed=1,2,3" in lines
        summary = (in_tmp / "summary.md").read_text()
        assert "| 96.0 % | 93.9 to 97.4 |" in summary
        assert "    ~ best: can't be told from the best over the same images" in summary
        csv = pd.read_csv(in_tmp / "summary.csv").set_index("run")
        assert csv.against_best.tolist() == ["best", "~ best", "worse"]
        assert csv.loc["a-1", ["val_accuracy.low", "val_accuracy.high"]].tolist() == pytest.approx(
            [0.939, 0.974], abs=1e-3
        )

    def test_of_several_seeds_on_the_same_images_seeds_and_images_tell(
        self, in_tmp: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        counts = {"a": (480, 478), "b": (479, 475), "c": (420, 424)}
        right = {f"{name}-{seed}": first(row[seed]) for name, row in counts.items() for seed in (0, 1)}
        runs = made(in_tmp, right)
        assert list(marks(in_tmp, runs).values()) == ["best", "best", "~ best", "~ best", "worse", "worse"]
        lines = shown(in_tmp, runs, capsys)
        assert any("95.80 ± 0.28 %   93.3 to 98.3" in line for line in lines), "Student's of two"
        assert any(line.startswith("b: 0.40 points from the best; about 25 seeds each would tell") for line in lines)
        assert not any(line.startswith("one seed each") for line in lines)

    def test_where_each_seed_validates_on_other_images_its_scores_tell(
        self, in_tmp: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        counts = {"a": (480, 470, 490, 475), "b": (478, 471, 485, 474), "c": (430, 422, 441, 424)}
        right = {f"{name}-{seed}": first(row[seed]) for name, row in counts.items() for seed in range(4)}
        runs = made(in_tmp, right, cut="by seed")
        found = marks(in_tmp, runs)
        assert [found[f"{name}-0"] for name in "abc"] == ["best", "~ best", "worse"]
        assert "~ best: can't be told from the best over the same seeds" in shown(in_tmp, runs, capsys)

    def test_one_seed_in_common_is_compared_by_its_images_and_none_is_undecided(
        self, in_tmp: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        right = {"a-1": first(480), "a-2": first(482), "b-1": first(430), "c-1": first(479), "d-3": first(430)}
        runs = made(in_tmp, right, cut="by seed")
        found = marks(in_tmp, runs)
        assert [found[name] for name in right] == ["best", "best", "worse", "~ best", "undecided"]
        words = "undecided: fewer than two seeds, and no known answers, in common with the best"
        assert words in shown(in_tmp, runs, capsys)

    @pytest.mark.parametrize("damage", ["older", "fewer images", "others", "no table", "gone"])
    def test_a_run_whose_answers_are_not_known_is_undecided_and_stops_nothing(self, in_tmp: Path, damage: str) -> None:
        runs = made(in_tmp, {"a-1": first(480), "b-1": first(478), "c-1": first(440)})
        path = in_tmp / "b-1/predictions.csv"
        if damage == "older":
            write_results(in_tmp / "b-1", 0.956)
        elif damage == "gone":
            path.unlink()
        else:
            lines = path.read_text().splitlines()
            last = lines[-1].replace("499", "999")
            found = {"fewer images": lines[:-10], "others": [*lines[:-1], last], "no table": ["x"]}
            path.write_text("\n".join(found[damage]))
        assert marks(in_tmp, runs) == {"a-1": "best", "b-1": "undecided", "c-1": "worse"}

    @pytest.mark.parametrize("mode", ["min", "max"])
    def test_of_another_metric_the_seeds_tell(self, in_tmp: Path, mode: str) -> None:
        values = {"a": (0.10, 0.11, 0.12), "b": (0.11, 0.10, 0.13), "c": (0.50, 0.52, 0.51)}
        runs = {}
        for name, row in values.items():
            for seed, value in enumerate(row):
                value = value if mode == "min" else 1 - value
                write_results(in_tmp / f"{name}-{seed}", value, monitor="val/x", mode=mode, seed=seed, sha256="same")
                runs[f"{name}-{seed}"] = [f"model={name}", f"seed={seed}"]
        found = marks(in_tmp, runs)
        assert [found[f"{name}-0"] for name in "abc"] == ["best", "~ best", "worse"]

    def test_it_is_corrected_for_being_one_of_many(self, in_tmp: Path) -> None:
        right = {"a-1": first(480), "b-1": first(474)}  # p = 0.031
        assert marks(in_tmp, made(in_tmp, right))["b-1"] == "worse"
        right |= {f"{name}-1": first(474) for name in "cd"}
        assert set(marks(in_tmp, made(in_tmp, right)).values()) == {"best", "~ best"}

    def test_they_hold_the_one_that_is_really_the_best(self) -> None:
        rng, missed, tables = np.random.default_rng(3), 0, 50
        for _ in range(tables):
            accuracies = 0.95 + rng.normal(0, 0.01, 6)
            rows = answers(rng, accuracies)
            order = rows.mean(1).argsort()[::-1]
            runs = [setting(f"{number}", [rows[number].mean()]) for number in order]
            standing = Standing.of(runs, {f"{number}-0": row for number, row in enumerate(rows)}, sign=1)
            missed += standing.marks[order.tolist().index(int(accuracies.argmax()))] == "worse"
        assert missed <= 0.05 * tables


def setting(name: str, scores: Sequence[float], cut: str = "same") -> pd.DataFrame:
    rows = [
        {"run": f"{name}-{seed}", "seed": f"{seed}", "score": score, "held_out": 1 / 9}
        | {"validated_on": f"{seed}" if cut == "by seed" else cut}
        for seed, score in enumerate(scores)
    ]
    return pd.DataFrame(rows)


class TestSeeds:
    def test_on_the_same_images_it_is_students_in_pairs(self) -> None:
        a, b = [0.95, 0.96, 0.97, 0.96], [0.94, 0.956, 0.967, 0.94]
        standing = Standing.of([setting("a", a), setting("b", b)], {}, sign=1)
        assert standing.nearest is not None
        assert standing.nearest[1].p == pytest.approx(ttest_rel(a, b).pvalue)

    def test_of_images_that_are_cut_anew_it_errs_in_one_of_twenty(self) -> None:
        rng, told = np.random.default_rng(4), []
        both = setting("a", [0.0] * 5, "by seed").merge(setting("b", [0.0] * 5, "by seed"), on="seed")
        for _ in range(600):
            pool = rng.choice([-1, 0, 1], p=[0.05, 0.9, 0.05], size=1000)  # who is right on which of all images
            change = [pool[rng.permutation(1000)[:100]].mean() + rng.normal(0, 0.01) for _ in range(5)]
            told.append(_over_seeds(both.assign(score_y=change), pairs=1).p < 0.05)
        assert 0.02 < np.mean(told) < 0.07

    def test_scores_that_differ_alike_tell_nothing(self) -> None:
        runs = [setting("a", [0.96, 0.97], "by seed"), setting("b", [0.94, 0.95], "by seed")]
        assert Standing.of(runs, {}, sign=1).marks == ["best", "~ best"]


class TestLuck:
    @pytest.mark.parametrize("tail", [0.0, 0.05, 0.3])
    def test_of_the_best_is_what_the_known_accuracy_lacks(self, tail: float) -> None:
        rng, told, real = np.random.default_rng(5), [], []
        for _ in range(300):
            accuracies = 0.97 - rng.exponential(tail, 20).clip(0, 0.8) + rng.normal(0, 0.003, 20)
            right = answers(rng, accuracies)
            scores = right.mean(1)
            real.append(scores.max() - accuracies[scores.argmax()] - np.median(scores - accuracies))
            told.append(luck(right))
        assert np.mean(told) == pytest.approx(np.mean(real), rel=0.35 if tail else 0.1)
        assert np.mean(told) > 0.001

    def test_of_few_or_equal_trials_there_is_none(self) -> None:
        assert luck(answers(np.random.default_rng(0), [0.9, 0.8])) == 0
        assert luck(np.ones((5, 20), bool)) == 0

    def test_a_search_says_it_in_a_line_and_a_sweep_does_not(
        self, in_tmp: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        rows = answers(np.random.default_rng(6), [0.95] * 6)
        for number, row in enumerate(rows):
            write_results(in_tmp / f"trial-{number:03}", float(row.mean()), sha256="x", right=row, test=False)
        runs = {f"trial-{number:03}": [f"optimizer.lr={number}"] for number in range(6)}
        best = rows.mean(1).argmax()
        words = f"about {100 * luck(rows):.2f} points of its {100 * rows[best].mean():.2f} % are luck"
        line = f"the best of 6: {words} (trial-00{best})"
        assert line in shown(in_tmp, runs, capsys, search=True)
        assert f"    {line}" in (in_tmp / "summary.md").read_text()
        assert (
            "one seed each: runs are compared, not settings. For settings: n_seeds=3"
            in (in_tmp / "summary.md").read_text()
        )
        assert line not in shown(in_tmp, runs, capsys)


def test_a_trial_of_more_seeds_stands_before_one_that_may_be_lucky(in_tmp: Path) -> None:
    scores = {"trial-000": 0.9, "trial-001": 0.8, "trial-002": 0.85, "trial-000-seed-2": 0.5, "trial-001-seed-2": 0.8}
    for name, score in scores.items():
        write_results(in_tmp / name, score, seed=2 if "seed" in name else 1, chance=0.1)
    table = Table(in_tmp, {name: [f"optimizer.lr={name[:9]}"] for name in scores}, "c", search=True)
    assert table.best is not None
    assert table.best.run == "trial-001"
    cells = table._settings()
    assert cells.trial.tolist() == ["trial-001", "trial-000", "trial-002"]
    assert cells.runs.tolist() == ["2", "2", "1"]
    assert cells["val 95 %"].tolist()[0] == "-", "two that are alike don't make it certain"
    assert cells["val acc"].tolist()[:2] == ["80.00 ± 0.00 %", "70.00 ± 28.28 %"]
