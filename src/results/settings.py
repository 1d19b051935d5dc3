"""The settings that are compared: runs of folders, sweeps and patterns, and what they answered to the same images."""

from __future__ import annotations

import glob
import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from itertools import chain
from pathlib import Path
from string import ascii_uppercase
from typing import Any

import numpy as np
import pandas as pd

from src.config.check import flat, plain
from src.config.errors import UserError
from src.config.folder import CONFIG, check_finished, finished_runs, is_finished, is_free, read_config
from src.config.groups import command
from src.config.paths import for_shell
from src.config.schema import Values
from src.results import predictions
from src.results.intervals import Interval, percent, proportion
from src.results.outcome import Outcome
from src.results.pairs import compare

PAGE = "comparison.html"
LETTERS = [first + second for first in ("", "A", "B") for second in ascii_uppercase]
LENGTHS = ("trainer.max_epochs", "trainer.max_time")  # free, so that a run can go on; but another setting
BY_SEED = ("dataset.mean", "dataset.std")  # measured in the training images, where no command names them


@dataclass(frozen=True)
class Run:
    """`argument` is the word of the command line that it was found by, `config` the run's, nested."""

    folder: Path
    argument: str
    outcome: Outcome
    config: Values
    answers: pd.DataFrame

    def value(self, key: str) -> Any:
        """Of the config, or as the command has it; of a group its name."""
        value: Any = self.config
        for part in re.split("[./]", key):
            value = value.get(part) if isinstance(value, dict) else None
        value = value.get("name", value) if isinstance(value, dict) else value
        return self.outcome.options.get(key) if value is None else value


@dataclass(frozen=True)
class Setting:
    """One config with S seeds: its `runs`, and what they answered to the N images of `labels`.

    `predicted` and `labels` are names, (S, N) and (N,); `sure` and `probability`, float (S, N), are the probabilities
    of the label and of the answer.
    """

    letter: str
    name: str
    runs: Sequence[Run]
    labels: np.ndarray
    predicted: np.ndarray
    sure: np.ndarray
    probability: np.ndarray

    @cached_property
    def right(self) -> np.ndarray:  # bool (S, N)
        return self.predicted == self.labels

    @property
    def interval(self) -> Interval:
        """Of the accuracy: of one seed over images, of several over seeds and images."""
        if len(self.runs) == 1:
            return proportion(self.right.sum(), self.right.size)
        low, high = compare(np.zeros_like(self.right), self.right).interval
        return max(low, 0.0), min(high, 1.0)

    @property
    def folders(self) -> str:
        more = f" and {len(self.runs) - 1} more" if len(self.runs) > 1 else ""
        return f"{self.runs[0].folder}{more}"


@dataclass(frozen=True)
class Settings:
    """What is compared, on which `images` (their names) of a split."""

    every: list[Setting]
    split: str
    images: pd.Index
    notes: list[str]

    @classmethod
    def of(cls, arguments: Sequence[str]) -> Settings:
        """Raises UserError if a run can't be compared, or nothing is there to compare it with."""
        found, notes = _found(arguments)
        if len(found) < 2:
            alone = f"{found[0][0]} is one run, which nothing is there to compare with. Name another one"
            raise UserError(f"{alone}, or see it alone: {command('report', for_shell(str(found[0][0])))}")
        runs = [_read(*run) for run in found]
        split, untested = _split(runs)
        for run in runs:
            _check(run, split)
        if untested:
            notes.append(f"{untested.folder} left the test out: validation is compared, which chose the checkpoints")
        rows = [run.answers[run.answers.split == split].drop_duplicates("image").set_index("image") for run in runs]
        images = reduce(lambda some, others: some.intersection(others, sort=False), (part.index for part in rows))
        if len(images) < 2:
            raise UserError(f"{runs[0].folder} and the others have no {split} images in common that each has answered.")
        answers = {run.folder: part.loc[images] for run, part in zip(runs, rows, strict=True)}
        groups = _groups(runs)
        if len(groups) > len(LETTERS):
            raise UserError(
                f"{len(groups)} settings are too many to compare each with each. Name {len(LETTERS)} or less."
            )
        labels, every = answers[runs[0].folder].label.to_numpy(str), []
        for letter, name, group in zip(LETTERS, _names(groups), groups, strict=False):
            parts = [answers[run.folder] for run in group]
            predicted = np.stack([part.predicted.to_numpy(str) for part in parts])
            sure, probability = (
                np.stack([part[column].fillna(0).to_numpy() for part in parts])
                for column in ("probability_of_label", "probability")
            )
            every.append(Setting(letter, name, group, labels, predicted, sure, probability))
        return cls(every, split, images, notes)


def _found(arguments: Iterable[str]) -> tuple[list[tuple[Path, str]], list[str]]:
    """The folder of each run with the argument that means it, and what was left out, in words."""
    found, names, left_out = list[tuple[Path, str]](), dict[Path, str](), 0
    for argument in arguments:
        if Path(argument, PAGE).exists():  # of an earlier comparison, among logs/*
            continue
        path = finished_runs()[0] if argument == "last" else Path(argument)
        is_pattern = not path.exists() and glob.has_magic(argument)
        paths = [path]
        if is_pattern:
            paths = sorted(map(Path, glob.glob(argument)))  # noqa: PTH207 - it takes absolute patterns
        runs = [run for path in paths for run in _runs_in(path)]
        if not runs and is_pattern:
            raise UserError(f"{argument}: no run's folder has such a name. Quote the pattern, as 'logs/*mnist*'.")
        if runs == [path] or not runs:
            check_finished(path)
        finished = [run for run in runs if is_finished(run)]
        left_out += len(runs) - len(finished)
        if not finished:
            raise UserError(f"{argument}: none of its runs ({len(runs)}) is finished.")
        for run in finished:
            if before := names.get(run.resolve()):
                raise UserError(f"{before} and {argument} both name the run {run}. Name it once.")
            found.append((run, argument))
        names |= {run.resolve(): argument for run in finished}
    if not found:
        raise UserError(f"{argument} holds a comparison, not a run. Name the runs that are to be compared.")
    return found, [f"left out: runs that are not finished ({left_out})"] if left_out else []


def _runs_in(path: Path) -> list[Path]:
    """A run itself; of a sweep, or another folder, those that lie in it."""
    is_run = (path / CONFIG).exists() or is_finished(path)
    return [path] if is_run else sorted(file.parent for file in path.glob(f"*/{CONFIG}"))


def _read(folder: Path, argument: str) -> Run:
    return Run(folder, argument, Outcome.read(folder), plain(read_config(folder)), predictions.read(folder))


def _check(run: Run, split: str) -> None:
    """Raises UserError if what was answered is not what was scored."""
    answers, score = run.answers[run.answers.split == split], run.outcome.test if split == "test" else run.outcome.val
    share = float((answers.label == answers.predicted).mean()) if len(answers) else 0.0
    assert score
    if len(answers) != score.images or not math.isclose(share, score.accuracy or 0.0, abs_tol=1e-4):
        scored = f"{score.images:,} {split} images with {percent(score.accuracy or 0)}"
        found = f"its predictions are {len(answers):,} with {percent(share)}"
        raise UserError(f"{run.folder} was scored on {scored}, and {found}: they are damaged. {predictions.AGAIN}")


def _split(runs: Sequence[Run]) -> tuple[str, Run | None]:
    """Which one all were scored on: test, unless a run has left that out, and which. UserError if images differ."""
    untested = next((run for run in runs if not run.outcome.test), None)
    split, first = "validation" if untested else "test", runs[0]

    def images(run: Run) -> tuple[str, ...]:
        score = run.outcome.val if untested else run.outcome.test
        assert score
        return run.outcome.dataset.name, run.outcome.dataset.test_set, str(score.sha256)

    for run in runs[1:]:
        ours, theirs = images(first), images(run)
        if theirs == ours:
            continue
        seeds = first.outcome.seed, run.outcome.seed
        which = f"{ours[1]} and {theirs[1]}" if theirs[:2] != ours[:2] else f"two versions or cuts of {ours[1]}"
        advice = "Compare runs that were scored on the same."
        if untested and theirs[:2] == ours[:2] and len(set(seeds)) > 1:
            which = f"seeds {seeds[0]} and {seeds[1]} cut them, and {untested.folder} left the test out"
            advice = "Compare runs with test=true, or of one seed."
        raise UserError(f"{first.folder} and {run.folder} have other {split} images: {which}. {advice}")
    return split, untested


def _groups(runs: Sequence[Run]) -> list[list[Run]]:
    """Runs that differ in their seed alone. Where a seed is there twice, as of a changed source, each argument is a
    setting of its own; so is each run if all are of one. Raises UserError if even an argument has a seed twice."""
    configs = [flat(run.config) for run in runs]
    free = {key for key in set().union(*configs) if is_free(key, *configs)} - set(LENGTHS) | {"seed", "test"}
    rows = []
    for run, config in zip(runs, configs, strict=True):
        measured = {key for key in BY_SEED if key not in run.outcome.options}
        kept = {key: value for key, value in config.items() if key not in free | measured}
        rows.append((json.dumps(kept, sort_keys=True, default=str), run.outcome.seed, run.argument, run))
    table = pd.DataFrame(rows, columns=["config", "seed", "argument", "run"])
    twice = table.duplicated(["config", "seed"], keep=False)
    table["own"] = table.argument.where(table.config.isin(table.config[twice]), "")
    if again := table[table.duplicated(["config", "own", "seed"], keep=False)].run.tolist():
        both = f"{again[0].folder} and {again[1].folder} have one config and one seed"
        raise UserError(f"{both}. Leave one of them out, or name them one by one.")
    by_seed = [group.sort_values("seed", kind="stable") for _, group in table.groupby(["config", "own"], sort=False)]
    groups = [group.run.tolist() for group in by_seed]
    return [[run] for run in groups[0]] if len(groups) == 1 else groups


def _names(groups: Sequence[Sequence[Run]]) -> list[str]:
    """By what differs between their commands, else between their configs, else by their seeds."""
    firsts, names = [group[0] for group in groups], list[str]()
    seed = ["seed"] if all(len(group) == 1 for group in groups) else []
    asked = dict.fromkeys(chain.from_iterable(run.outcome.options for run in firsts))
    every = dict.fromkeys(chain.from_iterable(flat(run.config) for run in firsts))
    for keys in (asked, every):
        told = [key for key in keys if key != "seed" and len({str(run.value(key)) for run in firsts}) > 1]
        names = [_name(run, told or seed, run.outcome.options if keys is asked else {}) for run in firsts]
        if len(set(names)) == len(names):
            break
    return names


def _name(run: Run, keys: Iterable[str], options: Values) -> str:
    words = {key: options.get(key, run.value(key)) for key in keys}
    return ", ".join(f"{key}={word}" for key, word in words.items() if not isinstance(word, dict | None)) or "defaults"
