"""What a run logs, in files that can be cut back to the moment of a checkpoint."""

from __future__ import annotations

import csv
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from src.config.files import whole
from src.config.schema import Components
from src.training.saving import Saved

# what the network, loss and metrics log in training; timings and counters of a device differ from run to run
_OURS, _MACHINE = re.compile("train/|val/"), re.compile("/time$|_per_sec|/device/|/mfu$")


class CSVLogger(Logger):
    """A table of what is logged by epoch, a row for each step at which that is; or of what is logged `by_step`, a row
    for each time. It has a column for each name, sorted, and no timings, so that the same run writes the same bytes.

    Lightning's removes the file of an interrupted run.
    """

    name, version, save_dir = "", "", ""

    def __init__(self, path: Path, by_step: bool = False) -> None:
        super().__init__()
        self.path, self.save_dir, self._by_step = path, str(path.parent), by_step
        self.rows = 0
        self._columns: list[str] = []
        self._last = ("", "")  # epoch and step of the last row

    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        """The config lies beside the table."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        row = {key: value for key, value in metrics.items() if _OURS.match(key) and not _MACHINE.search(key)}
        if not row or self._by_step == ("epoch" in metrics):
            return
        row |= {"step": step} | ({} if self._by_step else {"epoch": metrics["epoch"]})
        now = str(row.get("epoch")), str(step)
        if not self._by_step and now == self._last:  # what a killed run has written there already is written again
            *rows, begun = self._read()
            self._write([*rows, begun | row])
            return
        if row.keys() <= set(self._columns):
            with self.path.open("r+", newline="", encoding="utf-8") as file:  # not "a": it would make a lost file anew
                file.seek(0, os.SEEK_END)
                csv.DictWriter(file, self._columns).writerow(row)
        else:
            self._write([*(self._read() if self.rows else []), row])
        self.rows, self._last = self.rows + 1, now

    def cut(self, rows: int) -> None:
        """Keep the first `rows` rows, and go on after them."""
        kept = self._read()[:rows] if self.path.exists() else []
        if lost := rows - len(kept):
            print(f"warning: {self.path} has lost {lost} rows from before the interruption.", file=sys.stderr)
        self.rows = len(kept)
        if kept:
            self._write(kept)
            self._last = kept[-1].get("epoch", ""), kept[-1].get("step", "")
        else:
            self.path.unlink(missing_ok=True)

    def _read(self) -> list[dict[str, Any]]:
        with self.path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    def _write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self._columns = sorted(set().union(*rows))
        with whole(self.path) as temporary, temporary.open("x", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self._columns)
            writer.writeheader()
            writer.writerows(rows)


class RunLogs:
    """The loggers of a run; what they have logged after the checkpoint that it goes on from is removed."""

    def __init__(self, folder: Path, loggers: Components, resumed: Saved | None = None) -> None:
        self.tables = [CSVLogger(folder / "metrics.csv"), CSVLogger(folder / "steps.csv", by_step=True)]
        self.loggers: list[Logger] = [*self.tables]
        self._events, self._lengths = folder / "tensorboard", resumed.logs if resumed else {}
        self.tensorboard: TensorBoardLogger | None = None
        for component in loggers.components().values():
            if component.target.endswith(".TensorBoardLogger"):
                purge = resumed.position.steps if resumed else None  # for a TensorBoard that runs and has read more
                options = component.arguments() | {"default_hp_metric": False, "purge_step": purge}
                self.tensorboard = TensorBoardLogger(folder, "", "tensorboard", **options)
                self.loggers.append(self.tensorboard)

    def cut(self) -> None:
        """Bring the files to where they were at the checkpoint; before anything is logged, and by one process."""
        for table in self.tables:
            table.cut(self._lengths.get(table.path.name, 0))
        for file in self._event_files():
            if (length := self._lengths.get(file.name)) is None or file.is_symlink():
                file.unlink()
            elif file.stat().st_size > length:
                os.truncate(file, length)

    def lengths(self) -> dict[str, int]:
        """Rows of the tables and bytes of each of TensorBoard's files, which are on the disk then."""
        if self.tensorboard is not None:
            self.tensorboard.experiment.flush()
        events = self._event_files()
        for path in [*events, *(table.path for table in self.tables if table.rows)]:
            with path.open("rb") as file:
                os.fsync(file.fileno())
        rows = {table.path.name: table.rows for table in self.tables}
        return rows | {path.name: path.stat().st_size for path in events}

    def _event_files(self) -> list[Path]:
        return list(self._events.glob("events.out.tfevents.*"))
