"""Every run below a folder as one table: what differs between them, and what each has come to."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from rich.console import Console

from src.config.check import flat
from src.config.errors import UserError
from src.config.files import check_target, write_text
from src.config.folder import CONFIG, ERROR, MEASURED, RESULTS, check_finished
from src.config.groups import GROUPS
from src.config.naming import changed
from src.config.problems import keys, nearest, unknown
from src.config.schema import Components, TrainConfig
from src.results.cells import least_width, markdown, short, show_rows
from src.results.html import render
from src.results.intervals import percent
from src.results.outcome import Outcome
from src.results.table import SHOWN, state_of

ORDERS = {"newest": "newest", "best": "best by validation"}
OUTPUTS = (".csv", ".md", ".html")
TOP = re.compile(r"^(?=\w)", re.MULTILINE)  # where a key of a config's begins that is in no section
KEYS = keys(TrainConfig)
Row = dict[str, Any]  # of a run: its folder, state, flat config, scores and time
LOADER = getattr(yaml, "CBaseLoader", yaml.BaseLoader)


def show(folder: Path, words: Sequence[str]) -> None:
    """Show the runs below `folder` that fit `words`, KEY=VALUE of their configs, or write them to `output=FILE`; the
    newest first, or with `order=best` the best by validation. Raises UserError if none fits, or a word is wrong."""
    wanted = _parsed(words)
    order, output = wanted.pop("order", "newest"), wanted.pop("output", None)
    if order not in ORDERS:
        raise UserError(f"order={order}: expected {' or '.join(ORDERS)}.{nearest(order, ORDERS)}")
    if output is not None:
        check_target("output", Path(output), OUTPUTS)
    rows = list(_rows(folder))
    if not rows:
        check_finished(folder)  # says that there is none
    seen = {key: "" for row in rows for key in row["config"]}
    for key in wanted:
        if key not in seen and key not in KEYS:
            raise UserError(unknown(key, seen))
    rows = [row for row in rows if all(_fits(row["config"], key, value) for key, value in wanted.items())]
    if not rows:
        asked = " ".join(f"{key}={value}" for key, value in wanted.items())
        raise UserError(f"{folder}: none of the runs below it fits {asked}.")
    runs = _table(rows, order)
    if output is None:
        _show(runs, order)
    else:
        _write(runs, Path(output), order)
        print(output)


def _parsed(words: Sequence[str]) -> dict[str, str]:
    """Each word's key and value; UserError if there is no such key, as far as can be told without a run."""
    wanted, known = dict[str, str](), KEYS | dict.fromkeys(("order", "output"), "")
    for word in words:
        key, _, value = word.partition("=")
        if key not in known and not key.startswith(tuple(f"{group.replace('/', '.')}." for group in GROUPS)):
            raise UserError(unknown(key, known))
        if key in ("trainer", "init"):
            raise UserError(f"{word}: expected a key of it, such as trainer.max_epochs=5 or init.weights=null.")
        wanted[key] = value
    return wanted


def _rows(folder: Path) -> Iterator[Row]:
    """A row for each run below the folder, and for what can't be looked into."""
    closed = list[OSError]()
    for found, _, files in os.walk(folder, onerror=closed.append):
        of_wandb = Path(found).parent.parent.name == "wandb"  # which writes files of that name
        if {CONFIG, RESULTS, ERROR} & set(files) and not of_wandb:
            row = {"run": os.path.relpath(found, folder), "state": "failed", "config": {}, "time": 0.0}
            try:
                row |= _read(Path(found), {CONFIG, RESULTS} & set(files))
            except (UserError, OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
                row["note"] = " ".join(str(error).split())
            yield row
    for problem in closed:
        name, note = os.path.relpath(str(problem.filename), folder), f"can't be read: {problem.strerror}"
        yield {"run": name, "state": "failed", "config": {}, "time": 0.0, "note": note}


def _read(folder: Path, files: set[str]) -> Row:
    """What a run's files say; raises an error of one that is damaged."""
    row: Row = {"state": state_of(folder)}
    if files:
        changed_at = (folder / min(files, key=[RESULTS, CONFIG].index)).stat().st_mtime
        row |= {"time": changed_at, "date": datetime.fromtimestamp(changed_at, UTC).date().isoformat()}
    if CONFIG in files:
        text = (folder / CONFIG).read_text(encoding="utf-8")
        row["config"] = {key: value for part in TOP.split(text) for key, value in _values(part).items()}
    if row["state"] == "failed":
        row["note"] = " ".join((folder / ERROR).read_text(encoding="utf-8").split())
    if row["state"] == "finished":
        outcome, content = Outcome.read(folder), json.loads((folder / RESULTS).read_bytes())
        row["date"] = outcome.date or row["date"]
        for split, score in (("val", outcome.val), ("test", outcome.test)):
            if score and score.accuracy is not None:
                # to compute them takes a second for a thousand runs
                interval: Any = content[split].get("accuracy_interval") or score.accuracy_interval
                row |= dict(zip(_columns(split), (score.accuracy, *map(float, interval)), strict=True))
    return row


@cache
def _values(part: str) -> dict[str, str]:
    """What a part of a config says, as it is written there; most runs share most of theirs."""
    if "*" in part and any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(part)):
        raise UserError(f"{CONFIG} can't be read: it has aliases, which this project never writes.")
    values = yaml.load(part, LOADER) or {}
    if not isinstance(values, dict):
        raise UserError(f"{CONFIG} can't be read: expected keys with their values.")
    return {key: _text(value) for key, value in flat(values).items()}


def _columns(split: str) -> list[str]:
    return [f"{split}_accuracy", f"{split}_low", f"{split}_high"]


def _text(value: Any) -> str:
    return f"[{','.join(_text(item) for item in value)}]" if isinstance(value, list) else str(value)


def _fits(config: Mapping[str, str], key: str, asked: str) -> bool:
    """Whether a run's config says for a key, or for the option of a group, what is asked for; or one of A,B,C."""
    choices = [asked] if asked.startswith("[") else asked.split(",")
    if key in config:
        return any(_same(config[key], choice) for choice in choices)
    named = config.get(f"{key}.name", config.get(f"{key}._target_", "").rpartition(".")[2])
    parts = {other.removeprefix(f"{key}.").partition(".")[0] for other in config if other.startswith(f"{key}.")}
    several = key.replace(".", "/") in GROUPS and issubclass(GROUPS[key.replace(".", "/")].base, Components)
    return any(choice in parts if several else _same(named, choice) for choice in choices)


def _same(saved: str, asked: str) -> bool:
    try:
        return float(saved) == float(asked)
    except ValueError:
        saved, asked = (re.sub(r"[\s_]", "", text).lower() for text in (saved, asked))
        return saved == asked


def _table(rows: list[Row], order: str) -> pd.DataFrame:
    """A row for each run: what differs between them, of a group the name first, its scores, and the time."""
    configs = pd.DataFrame([row.pop("config") for row in rows], dtype=object)
    values = configs.dropna(how="all").nunique(dropna=False)
    differing = [key for key in values.index[values > 1] if key != "seed"]
    names = {f"{group}.name": group for group in GROUPS}
    told = {name.replace(".name", "._target_") for name in names if name in differing}
    kept = changed([f"{key}=" for key in differing if key not in told])
    runs = pd.concat([pd.DataFrame(rows), configs.reindex(columns=[*kept, "seed"])], axis=1)
    scores = [column for split in ("val", "test") for column in _columns(split)]
    columns = ["run", "state", *sorted(kept, key=_is_detail), "seed", *scores, "date", "note", "time"]
    by = ["val_accuracy", "time"] if order == "best" else ["date", "time"]
    runs = runs.reindex(columns=columns).sort_values(by, ascending=False, kind="stable").drop(columns="time")
    return runs.rename(columns=names)


def _is_detail(key: str) -> bool:
    """Whether the schema leaves a key to the option of its group, or it follows from the images."""
    return key in MEASURED - {"dataset.source"} or key not in KEYS


def _without_details(runs: pd.DataFrame) -> pd.DataFrame:
    """Without what the name of a group's option says by itself in all of these runs, and what follows from images."""
    details = {title: title.partition(".")[0] for title in runs if "." in title and _is_detail(title)}
    said = [
        title
        for title, group in details.items()
        if group in runs and runs.groupby(group)[title].nunique(dropna=False).max() == 1
    ]
    return runs.drop(columns=said)


def _cells(runs: pd.DataFrame) -> pd.DataFrame:
    """The same in words."""
    cells = _without_details(runs.drop(columns=[*_columns("val"), *_columns("test")])).fillna("-").map(str).map(short)
    for split in ("val", "test"):
        scores = runs[_columns(split)].itertuples(index=False)
        texts = ["-" if pd.isna(score[0]) else percent(score[0], interval=score[1:]) for score in scores]
        cells.insert(len(cells.columns) - 2, f"{split} acc", texts)
    return cells.loc[:, (cells != "-").any()]


def _counted(runs: pd.DataFrame, order: str) -> str:
    states = ", ".join(f"{count} {state}" for state, count in runs.state.value_counts(sort=False).items())
    return f"{len(runs)} run{'s' * (len(runs) > 1)}, {ORDERS[order]} first: {states}"


def _show(runs: pd.DataFrame, order: str) -> None:
    """Print the table; on a terminal as many rows and columns as there is room for, and what is left out."""
    print(f"\n{_counted(runs, order)}")
    cells, narrow = _cells(runs.drop(columns="note")), sys.stdout.isatty()
    shown = cells.head(SHOWN) if narrow else cells
    fitting = _fitting(shown, order) if narrow else list(shown)
    show_rows(shown[fitting])
    for run in runs.loc[shown.index].dropna(subset="note").itertuples():
        print(f"failed: {run.run}: {run.note}")
    left = [f"{len(cells) - len(shown)} more runs"] * (len(cells) > len(shown))
    left += [title for title in shown if title not in fitting]
    if left:
        print(f"no room for: {', '.join(left)}. output=FILE.html has all.")


def _fitting(cells: pd.DataFrame, order: str) -> list[str]:
    """The columns that a terminal has room for, the most telling ones first to be let in: the score that the rows are
    in the order of, and what differs between them."""
    first = ["run", "val acc" if order == "best" or "test acc" not in cells else "test acc"]
    last = ["state", "val acc", "test acc", "date"]
    ranks = {title: (title not in first, cells[title].nunique() == 1, title in last) for title in cells}
    room, fitting = Console().width + 2, list[str]()
    for title in sorted(cells, key=ranks.__getitem__):
        needed = max(least_width(cells[title]), len(title.rpartition(".")[2])) + 2
        if needed <= room:
            room -= needed
            fitting.append(title)
    return [title for title in cells if title in fitting]


def _write(runs: pd.DataFrame, output: Path, order: str) -> None:
    """As numbers into a .csv file, as words into others."""
    cells = _cells(runs)
    if output.suffix.lower() == ".csv":
        text = runs.to_csv(index=False)
    elif output.suffix.lower() == ".md":
        text = f"{markdown(cells)}\n"
    else:
        text = render("tables.html", title=_counted(runs, order), tables=[("", cells)])
    write_text(output, text)
