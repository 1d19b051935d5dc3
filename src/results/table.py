"""Many runs as one table: a row for each run, read from its folder, and what came of each setting over its seeds."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from src.config.errors import UserError
from src.config.files import write_text
from src.config.folder import CONFIG, ERROR, PRUNED, RESULTS, is_alive
from src.config.groups import command
from src.config.paths import for_shell
from src.results.intervals import percent
from src.results.outcome import Outcome, duration

pd.set_option("mode.string_storage", "python")  # a file's name may be no UTF-8, which Arrow takes alone
TRAINING = {"epochs": "Int64", "seconds": float}
NUMBERS = re.compile(r"runs|training|(val|test) \w+")  # columns of what is shown
SHOWN = 20  # rows on the screen
NOTE = "Accuracy: mean ± standard deviation over runs that differ in their seed alone. Training: mean wall time."


class Table:
    """What the runs in `folder`, of a sweep or a `search` that `command` began, have come to so far.

    `overrides` are by the name of a run's folder, `runs` has a row a run, and `best` is the first finished run of the
    best setting, by the mean of what they monitor over its seeds; each trial of a search is a setting.
    """

    def __init__(self, folder: Path, overrides: Mapping[str, Sequence[str]], command: str, search: bool) -> None:
        self.folder, self._command, self._search = folder, command, search
        options = [dict(text.lstrip("+").partition("=")[::2] for text in texts) for texts in overrides.values()]
        every = dict.fromkeys(chain.from_iterable(options))  # in the order of the command
        self.varied = [key for key in every if search or len({texts.get(key) for texts in options}) > 1]
        # what tells one setting from another
        self._keys = ["run", *self.varied] if search else [key for key in self.varied if key != "seed"]
        read = [_read(folder / name) for name in overrides]
        monitors: list[Any] = [row.pop("monitor") for row in read if "monitor" in row]
        self.monitor: str
        self.monitor, mode = monitors[0] if monitors else ("val/acc", "max")
        self._sign = -1 if mode == "min" else 1
        found = dict.fromkeys(key for row in read for key in row if key.startswith(("val_", "test_")))
        self._measured = list(dict.fromkeys(["val_accuracy", "test_accuracy", *found]))
        measured: Any = dict.fromkeys([*self._measured, "chance"], float) | TRAINING | {"guessing": "boolean"}
        rows = [{"run": name, **texts, **row} for name, texts, row in zip(overrides, options, read, strict=True)]
        runs = pd.DataFrame(rows, columns=["run", "state", *self.varied, *measured, "command", "error"])
        self.runs = runs.fillna(dict.fromkeys(set(runs) - set(measured), "")).astype(measured)
        scored = self.runs[self.runs.state.isin(["finished", "pruned"])].assign(score=self.score)
        self._groups = scored.groupby(self._keys or "state", sort=False)
        best_first: Any = {"by": "mean", "key": lambda means: -self._sign * means, "kind": "stable"}
        self._ranked = self._groups.score.agg(["mean", "std"]).sort_values(**best_first)
        means = self._sign * self._groups.score.transform("mean")[scored.state == "finished"].dropna()
        self.best = None if means.empty else self.runs.loc[means.idxmax()]

    @property
    def score(self) -> pd.Series:
        """What each run came to of what they monitor."""
        return self.runs[_column(self.monitor)]

    def _save(self) -> None:
        """Write the runs as CSV, the settings as Markdown, and the pictures into the folder."""
        write_text(self.folder / ("trials.csv" if self._search else "summary.csv"), self.runs.to_csv(index=False))
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
        """What guessing comes to, whether the best two settings differ by more than their seeds do, and the command
        that trains the best one."""
        lines, chances = list[str](), self.runs.chance.dropna()
        if not chances.empty:
            low, high = percent(chances.min()), percent(chances.max())
            chance = f"{low}{f' to {high}' if low != high else ''}"
            if self.runs.guessing.all():
                lines.append(f"all runs are no better than guessing ({chance})")
                lines.append("to try: a lower optimizer.lr, scheduler=one_cycle (a warm-up), more epochs")
            else:
                lines.append(f"guessing: {chance}")
        if self._ranked["mean"].count() > 1 and not self.runs.guessing.all():
            lines.append(self._compared())
        if (self.folder / "experiment/best.yaml").exists():  # of a search, whose own trials leave out the test
            lines += ["train with the best:", f"  {experiment_command(self.folder)}"]
        elif self.best is not None:
            seedless = re.sub(r" seed=\d+", "", self.best.command) if "seed" in self.varied else self.best.command
            lines += ["train the best setting:", f"  {seedless}"]
        return lines

    def _compared(self) -> str:
        """Whether the best two settings differ by more than their seeds do."""
        best, spread = self._ranked["mean"].iloc[:2], self._ranked["std"].iloc[:2].max()
        if pd.isna(spread):
            return "one seed each: undecided until more seeds are run, with -m seed=1,2,3"
        form = percent if self.monitor == "val/acc" else "{:.4f}".format
        names = (name if isinstance(name, str) else ", ".join(map(short, name)) for name in best.index)
        both = " and ".join(f"{name} {form(mean)}" for name, mean in zip(names, best, strict=True))
        is_more = best.max() - best.min() > spread
        return f"{both}: {'more than' if is_more else 'undecided, for'} their seeds differ by {form(spread)}"

    def _counted(self) -> str:
        words = ", ".join(f"{count} {state}" for state, count in self.runs.state.value_counts(sort=False).items())
        return f"{len(self.runs)} runs: {words}; {duration(self.runs.seconds.sum())} of training"

    def _settings(self) -> pd.DataFrame:
        """A row of text for each setting, the best first."""
        groups = self._groups
        columns = {"runs": groups.size().map(str)}
        for key in self._measured:
            split, _, name = key.partition("_")
            form = percent if name == "accuracy" else "{:.4f}".format
            columns[f"{split} {'acc' if name == 'accuracy' else name}"] = groups[key].agg(_spread, form)
        columns["training"] = groups.seconds.mean().map(duration)
        columns["note"] = groups.guessing.agg(lambda runs: f"{runs.sum()} of {len(runs)} guess" if runs.any() else "-")
        cells = pd.concat(columns, axis=1).loc[self._ranked.index].reset_index()[[*self._keys, *columns]]
        return cells.loc[:, (cells != "-").any()].map(short)  # without the test where none was done


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
                    scores[f"{split}_accuracy"] = score.accuracy
                    scores |= {f"{split}_{name}": value for name, value in score.metrics.items()}
            scores[_column(monitor.name)] = monitor.value
            scored = outcome.test or outcome.val
            scores |= {"chance": scored.chance, "guessing": scored.is_guessing}
            train = {"epochs": outcome.train.epochs, "seconds": outcome.train.seconds, "command": outcome.command}
            return {"state": state, "monitor": (monitor.name, monitor.mode), **scores, **train}
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


def is_number(cells: pd.Series) -> bool:
    """Whether a column's cells are numbers, which are never cut."""
    return bool(NUMBERS.fullmatch(str(cells.name)) or pd.to_numeric(cells, errors="coerce").notna().all())


def least_width(cells: pd.Series) -> int:
    """Of a column on a screen: of numbers whole, of words 12 letters, of a run's name its date and time."""
    longest = int(cells.map(len).max())
    return longest if is_number(cells) else min(longest, 20 if cells.name == "run" else 12)


def show_rows(cells: pd.DataFrame) -> None:
    """Print a line for each row; where a terminal is too narrow, long words are cut and titles folded, no numbers."""
    grid, leaves = Grid(box=None, pad_edge=False), [title.rpartition(".")[2] for title in cells]
    for title, leaf in zip(cells, leaves, strict=True):
        name = Text(leaf if leaves.count(leaf) == 1 else title, overflow="fold")
        side: Any = "right" if is_number(cells[title]) else "left"
        grid.add_column(name, justify=side, min_width=least_width(cells[title]))
    for row in cells.to_numpy().tolist():
        grid.add_row(*(Text(cell, no_wrap=True, overflow="ellipsis") for cell in row))
    Console(width=None if sys.stdout.isatty() else 1000).print("", grid, "", sep="\n", crop=False)


def markdown(cells: pd.DataFrame) -> str:
    """pandas would need the package tabulate for it."""
    if cells.empty:
        return ""
    rows = [list(cells), ["---:" if NUMBERS.fullmatch(title) else "---" for title in cells], *cells.to_numpy().tolist()]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows)


def _column(monitor: str) -> str:
    """Of a table, for what a run calls `val/acc` and so on."""
    return "val_accuracy" if monitor == "val/acc" else monitor.replace("/", "_")


def _spread(scores: pd.Series, form: Callable[[float], str]) -> str:
    """Mean and sample standard deviation, with a unit behind the second alone."""
    numbers = [form(number) for number in (scores.mean(), scores.std()) if pd.notna(number)]
    return " ± ".join(numbers).replace(" % ±", " ±") or "-"


def short(value: str) -> str:
    """Three digits of a number that a sampler has drawn; other values as they are."""
    try:
        return f"{float(value):.3g}" if len(value) > 8 and "." in value else value
    except ValueError:
        return value
