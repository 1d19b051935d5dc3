"""Many runs as one table: a row for each run, read from its folder, and what came of each setting over its seeds."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from src.config.errors import UserError
from src.config.files import write_text
from src.config.folder import CONFIG, ERROR, PRUNED, is_alive, is_finished
from src.results.outcome import Outcome

TRIALS = "trials.csv"  # of a search
SCORES = {"val_accuracy": float, "test_accuracy": float, "epochs": "Int64", "seconds": float}
NUMBERS = ("runs", "val acc, %", "test acc, %", "training")  # columns of what is shown
SHOWN = 20  # rows on the screen

Options = Mapping[str, Mapping[str, str]]


class Table:
    """What the runs in `folder` have come to so far.

    Args:
        options: name of each run's folder -> its options as key: value.
        command: what began them.
        search: the runs are trials, each of which is shown in a row of its own with all of its options. Without it,
            runs that differ in their seed alone are shown in one row, and options of one value are left out.

    Attributes:
        runs: a row a run: run, state, the `varied` options, scores, epochs, seconds, command, error.
    """

    def __init__(self, folder: Path, options: Options, command: str = "", search: bool = False) -> None:
        self.folder, self._command, self._search = folder, command, search
        every = dict.fromkeys(key for found in options.values() for key in found)  # in the order of the command
        self.varied = [key for key in every if search or len({found.get(key) for found in options.values()}) > 1]
        self.keys = ["run", *self.varied] if search else [key for key in self.varied if key != "seed"]
        rows = [{"run": name, **found, **_read(folder / name)} for name, found in options.items()]
        runs = pd.DataFrame(rows, columns=["run", "state", *self.varied, *SCORES, "command", "error"])
        texts = dict.fromkeys(set(runs) - set(SCORES), "")
        self.runs = runs.fillna(texts).astype(SCORES)

    @classmethod
    def of_search(cls, folder: Path) -> Table:
        """The table of a search, from the options of its trials in trials.csv; their folders say the rest.

        Raises:
            UserError: that file is damaged.
        """
        try:
            trials = pd.read_csv(folder / TRIALS, dtype=str, keep_default_na=False).set_index("run")
            options = trials.loc[:, "state":"val_accuracy"].iloc[:, 1:-1].to_dict("index")
        except (ValueError, KeyError) as error:
            raise UserError(f"{folder / TRIALS} can't be read: {' '.join(str(error).split())}.") from error
        return cls(folder, options, search=True)

    @property
    def unfinished(self) -> list[str]:
        return list(self.runs.run[self.runs.state != "finished"])

    @property
    def best(self) -> pd.Series | None:
        """The finished run of the best validation accuracy, of equal ones the first."""
        scores = self.runs.val_accuracy[self.runs.state == "finished"].dropna()
        return None if scores.empty else self.runs.loc[scores.idxmax()]

    @property
    def best_command(self) -> str:
        """What trains with the best options; a search's trials leave out the test."""
        words = ["python", "-m", "src.train", "--config-dir", str(self.folder), "experiment=best"]
        return "" if self.best is None else shlex.join(words) if self._search else self.best.command

    @property
    def groups(self) -> pd.DataFrame:
        """A row for each setting or trial, the best first: means and sample standard deviations."""
        scored = self.runs[self.runs.state.isin(["finished", "pruned"])]
        columns = {key: (key, "first") for key in ("state", *self.keys)}
        columns |= {"runs": ("run", "size"), "seconds": ("seconds", "mean")}
        for split in ("val", "test"):
            columns |= {split: (f"{split}_accuracy", "mean"), f"{split}_std": (f"{split}_accuracy", "std")}
        groups = scored.groupby(self.keys or scored.state, sort=False).agg(**columns).reset_index(drop=True)
        return groups.sort_values("val", ascending=False, kind="stable")

    def save(self) -> None:
        """Write the runs as CSV, the groups as Markdown, and the pictures into the folder."""
        self.save_runs()
        if (self.runs.state != "waiting").any():
            from src.results.figures.runs import save_curves, save_values  # draw with matplotlib

            save_curves(self.folder, self.runs, self.keys[:1] if self._search else self.keys)
            if self.varied and self.best is not None:
                save_values(self.folder, self.runs, self.varied)
        write_text(self.folder / "summary.md", self._document())

    def save_runs(self) -> None:
        write_text(self.folder / (TRIALS if self._search else "summary.csv"), self.runs.to_csv(index=False))

    def show(self) -> None:
        """Print the groups, what failed, and the command of the best."""
        out = Console(highlight=False)
        say = partial(out.print, markup=False, soft_wrap=True)
        say(f"\n{self._counted()}")
        cells = self._cells()
        if not cells.empty:
            out.print(_grid(cells.head(SHOWN)))
        if len(cells) > SHOWN:
            say(f"and {len(cells) - SHOWN} more in {self.folder / 'summary.md'}")
        for run in self.runs[self.runs.error != ""].itertuples():
            say(f"failed: {run.run}: {run.error}")
        if self.best_command:
            say(f"{'train with the best' if self._search else 'best run'}: {self.best_command}")
        say(f"table and pictures: {shlex.quote(str(self.folder))}")

    def _counted(self) -> str:
        words = ", ".join(f"{count} {state}" for state, count in self.runs.state.value_counts(sort=False).items())
        return f"{len(self.runs)} runs: {words}; {_time(self.runs.seconds.sum())} of training"

    def _cells(self) -> pd.DataFrame:
        """The groups as text."""
        groups = self.groups
        columns = {key: groups[key].map(_short) if self._search else groups[key] for key in self.keys}
        columns |= {"state": groups.state} if self._search else {"runs": groups.runs.astype(str)}
        for split in ["val"] if self._search else ["val", "test"]:
            columns[f"{split} acc, %"] = list(map(_spread, groups[split], groups[f"{split}_std"]))
        return pd.DataFrame(columns if self._search else columns | {"training": groups.seconds.map(_time)})

    def _document(self) -> str:
        lines = [f"# {self.folder.name}", "", *([f"    {self._command}", ""] if self._command else [])]
        lines += [f"{self._counted()}.", "", *_markdown(self._cells())]
        if not self._search:
            words = "mean ± standard deviation over runs that differ in their seed alone. Training: mean wall time."
            lines += ["", f"Accuracy: {words}"]
        if self.best_command:
            words = "Train with the best options, and test" if self._search else "The best run by validation accuracy"
            lines += ["", f"{words}:", "", f"    {self.best_command}"]
        rest = self.runs[~self.runs.state.isin(["finished", "pruned"])]
        if not rest.empty:
            lines += ["", *_markdown(rest[["run", "state", "error"]])]
        for path in sorted(self.folder.glob("*.png")):
            lines += ["", f"![{path.stem}]({path.name})"]
        return "\n".join(lines) + "\n"


def _read(folder: Path) -> dict[str, Any]:
    """A run's state, and as much of its results as there is."""
    if is_alive(folder):
        return {"state": "running"}
    if (folder / ERROR).exists():
        return {"state": "failed", "error": " ".join((folder / ERROR).read_text(encoding="utf-8").split())}
    try:
        if is_finished(folder):
            outcome = Outcome.read(folder)
            scores = {"val_accuracy": outcome.val.accuracy, "test_accuracy": outcome.test and outcome.test.accuracy}
            train = {"epochs": outcome.train.epochs, "seconds": outcome.train.seconds, "command": outcome.command}
            return {"state": "finished", **scores, **train}
        if (folder / PRUNED).exists():
            curve = pd.read_csv(folder / "metrics.csv").dropna(subset="val/acc")
            return {"state": "pruned", "val_accuracy": curve["val/acc"].max(), "epochs": curve.epoch.max() + 1}
    except (UserError, OSError, ValueError, KeyError, TypeError) as error:
        name = "results.json" if is_finished(folder) else "metrics.csv"
        return {"state": "failed", "error": f"{name} can't be read: {error}"}
    return {"state": "interrupted" if (folder / CONFIG).exists() else "waiting"}


def _grid(cells: pd.DataFrame) -> Grid:
    """For the screen; text in square brackets is no markup."""
    grid = Grid(box=box.SIMPLE)
    leaves = Counter(title.rpartition(".")[2] for title in cells)
    for title in cells:
        leaf = title.rpartition(".")[2]
        grid.add_column(
            Text(leaf if leaves[leaf] == 1 else title),
            justify="right" if title in NUMBERS else "left",
            min_width=min(cells[title].str.len().max(), 30),  # where it is narrow, headings are folded before cells
            overflow="fold",
        )
    for row in cells.itertuples(index=False):
        grid.add_row(*map(Text, row))
    return grid


def _markdown(cells: pd.DataFrame) -> list[str]:
    """The lines of a table; pandas would need the package tabulate for it."""
    rows = [list(cells), ["---:" if title in NUMBERS else "---" for title in cells], *cells.to_numpy().tolist()]
    return [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]


def _spread(mean: float, deviation: float) -> str:
    """In per cent."""
    if pd.isna(mean):
        return "-"
    return f"{100 * mean:.2f}" + ("" if pd.isna(deviation) else f" ± {100 * deviation:.2f}")


def _time(seconds: float) -> str:
    if seconds < 600:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 36000 else f"{seconds / 3600:.1f} h"


def _short(value: str) -> str:
    """Three digits of a number that a sampler has drawn; other values as they are."""
    try:
        return f"{float(value):.3g}" if len(value) > 8 and "." in value else value
    except ValueError:
        return value
