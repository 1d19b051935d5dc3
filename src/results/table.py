"""Many runs as one table: a row for each run, read from its folder, and what came of each setting over its seeds."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from src.config.errors import UserError
from src.config.files import write_text
from src.config.folder import CONFIG, ERROR, PRUNED, RESULTS, is_alive
from src.config.groups import command
from src.config.paths import for_shell
from src.results.cells import markdown, score_cells, short, show_rows
from src.results.intervals import percent
from src.results.outcome import Outcome, Validation, duration
from src.results.standing import Right, Standing, of_luck, right_answers

pd.set_option("mode.string_storage", "python")  # a file's name may be no UTF-8, which Arrow takes alone
TRAINING = {"epochs": "Int64", "seconds": float}
RERUN = "-seed-"  # between the name of a trial and the seed of another run of it
ENDS = (".low", ".high")  # of the columns of a 95 % interval
SHOWN = 20  # rows on the screen
NOTE = """Accuracy: mean ± standard deviation over runs that differ in their seed alone. 95 %: the interval of that mean
(Student), and of one run's accuracy for other images of the same kind (Wilson). Training: mean wall time."""


class Table:
    """What the runs in `folder`, of a sweep or a `search` that `command` began, have come to so far.

    `overrides` are by the name of a run's folder, `runs` has a row a run, and `best` is the first finished run of the
    best setting, by the mean of what they monitor over its seeds. Each trial of a search is a setting, whose runs are
    TRIAL and TRIAL-seed-N; those of more runs come first.
    """

    def __init__(self, folder: Path, overrides: Mapping[str, Sequence[str]], command: str, search: bool) -> None:
        self.folder, self._command, self._search = folder, command, search
        options = [dict(text.lstrip("+").partition("=")[::2] for text in texts) for texts in overrides.values()]
        every = dict.fromkeys(chain.from_iterable(options))  # in the order of the command
        self.varied = [key for key in every if search or len({texts.get(key) for texts in options}) > 1]
        # what tells one setting from another
        self._keys = ["trial", *self.varied] if search else [key for key in self.varied if key != "seed"]
        read = [_read(folder / name) for name in overrides]
        monitors: list[Any] = [row.pop("monitor") for row in read if "monitor" in row]
        self.monitor: str
        self.monitor, mode = monitors[0] if monitors else ("val/acc", "max")
        self._sign = -1 if mode == "min" else 1
        found = dict.fromkeys(key for row in read for key in row if key.startswith(("val_", "test_")))
        scores = list(dict.fromkeys(["val_accuracy", "test_accuracy", *found]))
        self._measured = [key for key in scores if not key.endswith(ENDS)]
        measured: Any = dict.fromkeys([*scores, "chance", "held_out"], float) | TRAINING | {"guessing": "boolean"}
        rows = [{"run": name, **texts, **row} for name, texts, row in zip(overrides, options, read, strict=True)]
        columns = ["run", "state", *self.varied, *measured, "seed", "validated_on", "command", "error"]
        runs = pd.DataFrame(rows, columns=list(dict.fromkeys(columns)))
        self.runs = runs.fillna(dict.fromkeys(set(runs) - set(measured), "")).astype(measured)
        if search:
            self.runs["trial"] = self.runs.run.str.partition(RERUN)[0]
        scored = self.runs[self.runs.state.isin(["finished", "pruned"])].assign(score=self.score)
        groups = scored.assign(finished=scored.state == "finished").groupby(self._keys or "state", sort=False)
        scored["mean"] = self._sign * groups.score.transform("mean")
        scored["known"] = groups.finished.transform("sum") if search else 0
        scored = scored.sort_values(["known", "mean"], ascending=False)
        self._groups = scored.groupby(self._keys or "state", sort=False)  # the best first
        finished = [runs[runs.state == "finished"].dropna(subset="score") for _, runs in self._groups]
        self._finished = [runs for runs in finished if len(runs)]
        self.best = self._finished[0].iloc[0] if self._finished else None

    @property
    def score(self) -> pd.Series:
        """What each run came to of what they monitor."""
        return self.runs[_column(self.monitor)]

    @cached_property
    def _right(self) -> Right:
        known = pd.concat(self._finished) if self.monitor == "val/acc" and self._finished else None
        return {} if known is None else right_answers(self.folder, known)

    @cached_property
    def _standing(self) -> Standing | None:
        if len(self._finished) < 2 or self.runs.guessing.all():
            return None
        return Standing.of(self._finished, self._right, self._sign)

    @cached_property
    def _marks(self) -> dict[str, str]:
        """Of each run, how its setting stands to the best."""
        marks = self._standing.marks if self._standing else []
        return {run: mark for runs, mark in zip(self._finished, marks, strict=False) for run in runs.run}

    def _save(self) -> None:
        """Write the runs as CSV, the settings as Markdown, and the pictures into the folder."""
        rows = self.runs.assign(against_best=self.runs.run.map(self._marks).fillna(""))
        write_text(self.folder / ("trials.csv" if self._search else "summary.csv"), rows.to_csv(index=False))
        if not self._search and (self.runs.state != "waiting").any():  # a search has Optuna's pictures
            from src.results.figures.runs import save_curves, save_values  # draw with matplotlib

            scored = self.runs.assign(score=self.score, better=self._sign * self.score)
            save_curves(self.folder, scored, self.monitor, self._keys)
            save_values(self.folder, scored, self.monitor, self.varied)
        unfinished = self.runs[~self.runs.state.isin(["finished", "pruned"])]
        parts = [
            f"# {self.folder.name}",
            f"    {self._command}",
            f"{self._counted()}.",
            markdown(self._settings()),
            NOTE,
            "\n".join(f"    {line}" for line in self._verdict()),
            markdown(unfinished[["run", "state", "error"]]),
            *(f"![{path.stem}]({path.name})" for path in sorted(self.folder.glob("*.png"))),
        ]
        write_text(self.folder / "summary.md", "\n\n".join(filter(None, parts)) + "\n")

    def show(self) -> None:
        """Save the table, and print the settings, what failed, and what to make of the best."""
        self._save()
        print(f"\n{self._counted()}")
        cells = self._settings()
        if not cells.empty:
            show_rows(cells.head(SHOWN))
        if len(cells) > SHOWN:
            print(f"and {len(cells) - SHOWN} more in {self.folder / 'summary.md'}")
        for run in self.runs[self.runs.error != ""].itertuples():
            print(f"failed: {run.run}: {run.error}")
        print(*self._verdict(), f"table and pictures: {for_shell(str(self.folder))}", sep="\n")

    def _verdict(self) -> list[str]:
        """What guessing comes to, which settings can't be told from the best one, how much of its score is luck, and
        the command that trains it."""
        lines, chances = list[str](), self.runs.chance.dropna()
        if not chances.empty:
            low, high = percent(chances.min()), percent(chances.max())
            chance = f"{low}{f' to {high}' if low != high else ''}"
            if self.runs.guessing.all():
                lines.append(f"all runs are no better than guessing ({chance})")
                lines.append("to try: a lower optimizer.lr, scheduler=one_cycle (a warm-up), more epochs")
            else:
                lines.append(f"guessing: {chance}")
        if self._standing:
            named, more = (["trial"], "n_seeds=3") if self._search else (self._keys, "-m seed=1,2,3")
            lines += self._standing.in_words(named, self.monitor == "val/acc", more)
            if self._search and (luck := of_luck(self._finished, self._right)):
                lines.append(luck)
        if (self.folder / "experiment/best.yaml").exists():  # of a search, whose own trials leave out the test
            lines += ["train with the best:", f"  {experiment_command(self.folder)}"]
        elif self.best is not None:
            seedless = re.sub(r" seed=\d+", "", self.best.command) if "seed" in self.varied else self.best.command
            lines += ["train the best setting:", f"  {seedless}"]
        return lines

    def _counted(self) -> str:
        words = ", ".join(f"{count} {state}" for state, count in self.runs.state.value_counts(sort=False).items())
        return f"{len(self.runs)} runs: {words}; {duration(self.runs.seconds.sum())} of training"

    def _settings(self) -> pd.DataFrame:
        """A row of text for each setting, the best first."""
        groups = self._groups
        if not len(groups):
            return pd.DataFrame()
        columns = {"runs": groups.size().map(str)}
        for key in self._measured:
            split, _, name = key.partition("_")
            ends = [key, *(f"{key}{end}" for end in ENDS)]
            cells = groups[[column for column in ends if column in self.runs]].apply(score_cells, name == "accuracy")
            columns[f"{split} {'acc' if name == 'accuracy' else name}"] = cells.str[0]
            columns[f"{split} {'' if name == 'accuracy' else f'{name} '}95 %"] = cells.str[1]
        columns["training"] = groups.seconds.mean().map(duration)
        columns["note"] = groups[["run", "state", "guessing"]].apply(self._note)
        cells = pd.concat(columns, axis=1).reset_index()[[*self._keys, *columns]]
        return cells.loc[:, (cells != "-").any()].map(short)  # without the test where none was done

    def _note(self, runs: pd.DataFrame) -> str:
        notes = ["pruned"] if (runs.state == "pruned").all() else [self._marks.get(runs.run.iloc[0], "")]
        notes += [f"{runs.guessing.sum()} of {len(runs)} guess"] if runs.guessing.any() else []
        return ", ".join(filter(None, notes)) or "-"


def experiment_command(folder: Path) -> str:
    """Trains with the best options of the search in `folder`."""
    return command("train", "experiment=best", also=(folder,))


def state_of(folder: Path) -> str:
    """What became of a run so far, as its files say."""
    if is_alive(folder):
        return "running"
    states = {ERROR: "failed", RESULTS: "finished", PRUNED: "pruned", CONFIG: "interrupted"}
    return next((state for name, state in states.items() if (folder / name).exists()), "waiting")


def _read(folder: Path) -> dict[str, object]:
    """A run's state, and as much of its results as there is."""
    state = state_of(folder)
    if state == "failed":
        return {"state": state, "error": " ".join((folder / ERROR).read_text(encoding="utf-8").split())}
    try:
        if state == "finished":
            outcome = Outcome.read(folder)
            monitor, scores = outcome.monitor, dict[str, object]()
            for split, score in (("val", outcome.val), ("test", outcome.test)):
                if score:
                    scores |= _scores(split, score)
            scores[_column(monitor.name)] = monitor.value
            scored = outcome.test or outcome.val
            scores |= {"chance": scored.chance, "guessing": scored.is_guessing}
            scores |= {"validated_on": outcome.val.sha256, "held_out": outcome.val.images / outcome.train.images}
            train = {"epochs": outcome.train.epochs, "seconds": outcome.train.seconds, "command": outcome.command}
            known = {"state": state, "monitor": (monitor.name, monitor.mode), "seed": str(outcome.seed)}
            return known | scores | train
        if state == "pruned":
            config = yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8"))
            name, mode = config["monitor"], config["monitor_mode"]
            curve = pd.read_csv(folder / "metrics.csv").dropna(subset=name)
            best = {_column(name): curve[name].agg(mode), "epochs": curve.epoch.max() + 1}
            return {"state": state, "monitor": (name, mode), **best}
    except (UserError, OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        name = RESULTS if state == "finished" else "metrics.csv"
        return {"state": "failed", "error": f"{name} can't be read: {error}"}
    return {"state": state}


def _scores(split: str, score: Validation) -> dict[str, object]:
    """The accuracy and the metrics, with the ends of the intervals that are known."""
    known = {"accuracy": score.accuracy_interval} | getattr(score, "intervals", {})
    found = dict[str, object]()
    for name, value in ({"accuracy": score.accuracy} | score.metrics).items():
        ends = dict(zip(ENDS, known.get(name) or (None, None), strict=True))
        found |= {f"{split}_{name}{end}": number for end, number in ({"": value} | ends).items()}
    return found


def _column(monitor: str) -> str:
    """Of a table, for what a run calls `val/acc` and so on."""
    return "val_accuracy" if monitor == "val/acc" else monitor.replace("/", "_")
