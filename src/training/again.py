"""A finished run trained anew from its folder: whether every digit comes again, and what may have changed it."""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.config.check import plain
from src.config.errors import RunError, UserError
from src.config.folder import read_config
from src.config.naming import run_of
from src.config.schema import TrainConfig, Values
from src.model.provenance import Revision, machine
from src.results.outcome import Outcome

if TYPE_CHECKING:
    from src.model.hardware import Hardware
    from src.model.saved import About

MAY_DIFFER = ("data_dir", "device")  # where it runs; hydra.run.dir says where it writes
TIMES = re.compile(r"time|second|speed|per_sec")  # columns that no two runs share


class Again:
    """The finished run in `origin`, anew in `folder` with the same `config`; UserError if that can't be."""

    def __init__(self, config: TrainConfig, folder: Path, named: Sequence[str]) -> None:
        self.origin, self.folder = run_of(str(config.again)), folder
        keys = {text.lstrip("+~").partition("=")[0]: text for text in named}
        if other := [text for key, text in keys.items() if key not in ("again", *MAY_DIFFER)]:
            most = f"the same run anew takes no option but {', '.join(MAY_DIFFER)} and hydra.run.dir"
            raise UserError(f"{other[0]}: {most}. resume= goes on with a run; another one has a command of its own.")
        if folder.resolve() == self.origin.resolve():
            raise UserError(f"hydra.run.dir={folder}: the run itself lies there. Choose another folder.")
        self._outcome, self._rows = Outcome.read(self.origin), _read(self.origin)
        self.command, self._differing = self._outcome.command, list[str]()
        changed = {key: getattr(config, key) for key in MAY_DIFFER if key in keys}
        self.config = read_config(self.origin).model_copy(update=changed | {"again": None, "resume": None})

    def show_notes(self, about: About, hardware: Hardware) -> None:
        """Show what is not as it was, of all that the digits may depend on."""
        from src.results.screen import show_note  # with torch

        was, weights = self._outcome, self.config.init.weights
        named: Values = {"images": was.dataset.sha256, "precision": was.precision, "device": was.device}
        then = {**was.versions, "code": _code(was.git), **named, **plain(was.machine)}
        named = {"images": about.images.sha256, "precision": about.precision, "device": hardware.accelerator}
        now = {**about.versions, "code": _code(about.git), **named, **plain(machine())}
        if weights and was.init_sha256:
            then["init.weights"] = was.init_sha256
            now["init.weights"] = hashlib.sha256(Path(weights).read_bytes()).hexdigest()
        self._differing = [key for key, value in now.items() if then.get(key) != value]
        for key in self._differing:
            advice = f" OMP_NUM_THREADS={then[key]} brings them back." if key == "threads" else ""
            show_note(f"{key}: {_short(then.get(key))} then, {_short(now[key])} now.{advice}")
        if was.git and was.git.modified and then["code"] == now["code"]:
            show_note("The code has changes that no revision has, then and now: whether the same ones, nobody knows.")
        if hardware.accelerator != "cpu" and not self.config.trainer.deterministic:
            show_note("Without trainer.deterministic=true a GPU may add in another order each time.")

    def compare(self) -> None:
        """Say that every digit of metrics.csv came again; raises RunError if not, which says where they parted."""
        parted, table = _parted(self._rows, _read(self.folder)), self.origin / "metrics.csv"
        if parted:
            differing = f" What differs: {', '.join(self._differing)}." if self._differing else ""
            raise RunError(f"{table} did not come again: {parted}.{differing}")
        print(f"Every digit of {table} came again, in all rows ({len(self._rows)}).")


def _read(folder: Path) -> list[dict[str, str]]:
    """The rows of its metrics.csv, without times; UserError if it is missing or damaged."""
    path = folder / "metrics.csv"
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file, strict=True))
        if not rows or not {"epoch", "step"} <= rows[0].keys():
            raise ValueError("it has no epochs or steps")
        return [{key: value for key, value in row.items() if not TIMES.search(str(key))} for row in rows]
    except (OSError, ValueError, csv.Error) as error:
        reason = getattr(error, "strerror", "") or error
        raise UserError(f"{path} can't be read, so there is nothing to compare: {reason}.") from error


def _parted(then: list[dict[str, str]], now: list[dict[str, str]]) -> str:
    """Where two tables part first, in words; nothing where they don't."""
    for before, after in zip_longest(then, now, fillvalue=dict[str, str]()):
        row = before or after
        for key in dict.fromkeys([*row, *after]):
            was, is_ = before.get(key) or "nothing", after.get(key) or "nothing"
            if was != is_:
                return f"in epoch {row['epoch']}, step {row['step']}, {key} was {was}, and is {is_} now"
    return ""


def _code(git: Revision | None) -> Any:
    return git and f"revision {git.revision[:12]}{', with changes' if git.modified else ''}"


def _short(value: Any) -> str:
    """A checksum by its beginning; other values as they are."""
    text = "unknown" if value is None else str(value)
    return f"checksum {text[:12]}" if re.fullmatch("[0-9a-f]{64}", text) else text
