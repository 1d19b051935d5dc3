"""The runs of a sweep as one table: each with its state and scores, and what came of each setting over the seeds."""

from __future__ import annotations

import csv
import io
import shlex
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

from rich import box
from rich.console import Console
from rich.table import Table

from src.config import folder as runs
from src.config.errors import UserError
from src.config.files import write_text
from src.results.outcome import Outcome
from src.sweeps.grid import Definition

STATES = ("finished", "failed", "running", "interrupted", "waiting")
Setting = tuple[str, ...]


@dataclass(frozen=True)
class Row:
    """One run: its folder's name, its varied options, and as much of its results as there is."""

    folder: Path
    options: dict[str, str]
    state: str
    val_accuracy: float | None = None
    test_accuracy: float | None = None
    epochs: int | None = None
    seconds: float | None = None
    command: str = ""
    error: str = ""


@dataclass(frozen=True)
class Group:
    """The finished runs of one setting, which differ in their seed alone."""

    setting: Setting
    rows: list[Row]

    def scores(self, name: str) -> list[float]:
        found = (getattr(row, name) for row in self.rows)
        return [score for score in found if score is not None]


class Summary:
    """What the sweep in `folder` has come to so far.

    Raises:
        UserError: there is no sweep, or its definition is damaged.
    """

    def __init__(self, folder: Path) -> None:
        definition = Definition.read(folder)
        self.folder, self.command = folder, definition.command
        options = definition.options
        every = dict.fromkeys(key for found in options.values() for key in found)  # in the order of the command
        self.varied = [key for key in every if len({found.get(key) for found in options.values()}) > 1]
        self.keys = [key for key in self.varied if key != "seed"]
        self.rows = [
            _row(folder / name, {key: found.get(key, "") for key in self.varied}) for name, found in options.items()
        ]

    def setting(self, row: Row) -> Setting:
        """A run's options without its seed."""
        return tuple(row.options[key] for key in self.keys)

    @property
    def counts(self) -> dict[str, int]:
        found = Counter(row.state for row in self.rows)
        return {state: found[state] for state in STATES if found[state]}

    @property
    def groups(self) -> list[Group]:
        """The best mean validation accuracy first."""
        settings: dict[Setting, list[Row]] = {}
        for row in self.rows:
            if row.state == "finished":
                settings.setdefault(self.setting(row), []).append(row)
        groups = [Group(setting, rows) for setting, rows in settings.items()]
        return sorted(groups, key=lambda group: fmean(group.scores("val_accuracy") or [-1]), reverse=True)

    @property
    def best(self) -> Row | None:
        """The run of the best validation accuracy."""
        scored = [row for row in self.rows if row.state == "finished" and row.val_accuracy is not None]
        return max(scored, key=lambda row: row.val_accuracy or 0, default=None)

    def save(self) -> None:
        """Write summary.csv, summary.md and the pictures into the sweep's folder."""
        write_text(self.folder / "summary.csv", self._csv())
        write_text(self.folder / "summary.md", self._markdown())
        if any(row.state != "waiting" for row in self.rows):
            from src.results.figures import runs as figures  # draws with matplotlib

            figures.save_sweep(self)

    def show(self) -> None:
        """Print the table, what failed, and the best run's command."""
        out = Console(highlight=False)
        table = Table(box=box.SIMPLE, title=self._counted())
        for number, title in enumerate(self._titles()):
            numeric = number >= len(self.keys)
            table.add_column(title, justify="right" if numeric else "left", no_wrap=numeric)
        for group in self.groups:
            table.add_row(*self._cells(group))
        if self.groups:
            out.print(table)
        else:
            out.print(self._counted())
        for row in self.rows:
            if row.error:
                out.print(f"failed: {row.folder.name}: {row.error}", markup=False, soft_wrap=True)
        if self.best:
            out.print(f"best run: {self.best.command}", markup=False, soft_wrap=True)
        out.print(f"table and pictures: {shlex.quote(str(self.folder))}", markup=False, soft_wrap=True)

    def _counted(self) -> str:
        seconds = sum(row.seconds or 0 for row in self.rows)
        words = ", ".join(f"{count} {state}" for state, count in self.counts.items())
        return f"{len(self.rows)} runs: {words}; {_time(seconds)} of training"

    def _titles(self) -> list[str]:
        return [*self.keys, "runs", "val acc, %", "test acc, %", "training"]

    def _cells(self, group: Group) -> list[str]:
        return [
            *group.setting,
            str(len(group.rows)),
            spread(group.scores("val_accuracy")),
            spread(group.scores("test_accuracy")),
            _time(fmean(group.scores("seconds"))),
        ]

    def _markdown(self) -> str:
        lines = [f"# {self.folder.name}", "", f"    {self.command}", "", f"{self._counted()}.", ""]
        lines += [_line(self._titles()), _line(["---"] * len(self.keys) + ["---:"] * 4)]
        lines += [_line(self._cells(group)) for group in self.groups]
        lines += [
            "",
            "Accuracy: mean ± standard deviation over runs that differ in their seed alone. Training: mean wall time.",
        ]
        if self.best:
            lines += ["", "The best run by validation accuracy:", "", f"    {self.best.command}"]
        if any(row.state != "finished" for row in self.rows):
            lines += ["", _line(["run", "state", "error"]), _line(["---"] * 3)]
            lines += [_line([row.folder.name, row.state, row.error]) for row in self.rows if row.state != "finished"]
        lines += ["", "![validation accuracy over the epochs](curves.png)"]
        lines += ["", "![validation accuracy by each value](values.png)"] if self.varied else []
        return "\n".join(lines) + "\n"

    def _csv(self) -> str:
        names = ["val_accuracy", "test_accuracy", "epochs", "seconds", "command", "error"]
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["run", "state", *self.varied, *names])
        for row in self.rows:
            values = ["" if (value := getattr(row, name)) is None else value for name in names]
            writer.writerow([row.folder.name, row.state, *row.options.values(), *values])
        return text.getvalue()


def _row(folder: Path, options: dict[str, str]) -> Row:
    if runs.is_alive(folder):
        return Row(folder, options, "running")
    if (folder / runs.ERROR).exists():
        return Row(folder, options, "failed", error=" ".join((folder / runs.ERROR).read_text(encoding="utf-8").split()))
    if not runs.is_finished(folder):
        return Row(folder, options, "interrupted" if (folder / "config.yaml").exists() else "waiting")
    try:
        outcome = Outcome.read(folder)
    except UserError as error:
        return Row(folder, options, "failed", error=f"results.json can't be read: {error}")
    tested = outcome.test.accuracy if outcome.test else None
    return Row(
        folder,
        options,
        "finished",
        outcome.val.accuracy,
        tested,
        outcome.train.epochs,
        outcome.train.seconds,
        outcome.command,
    )


def spread(scores: list[float]) -> str:
    """Mean and sample standard deviation, in per cent."""
    if not scores:
        return "-"
    mean = f"{100 * fmean(scores):.2f}"
    return mean if len(scores) == 1 else f"{mean} ± {100 * stdev(scores):.2f}"


def _time(seconds: float) -> str:
    if seconds < 600:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 36000 else f"{seconds / 3600:.1f} h"


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
