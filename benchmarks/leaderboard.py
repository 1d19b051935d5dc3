"""Run the rows of the leaderboard that this machine can, and write its tables: python -m benchmarks.leaderboard

What is finished in logs/leaderboard is not run again, and a run of src.train that was interrupted goes on where it
stopped; what the tutorials do, as published or as a mistake in training, begins anew.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks import pace, records, standings
from benchmarks.rows import BASES, ROWS, Row, find
from src.config.check import nearest
from src.config.cli import end
from src.config.errors import RunError, Stopped, UserError
from src.config.files import write_json
from src.sweeps.jobs import follow

DATA = Path("data")
NAMES = [*(row.name for row in ROWS), "pace"]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.leaderboard", description=__doc__)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--quick", action="store_true", help="one seed of three rows: 15 minutes on two cores")
    which.add_argument("--rows", nargs="+", metavar="ROW", help=f"only these: {', '.join(NAMES)}")
    which.add_argument("--tables", action="store_true", help="run nothing, only write the tables")
    parser.add_argument("--data-dir", type=Path, default=DATA, help="where the images lie")
    parser.add_argument("--fresh", action="store_true", help="run again what is finished in logs/leaderboard")
    options = parser.parse_args()
    with records.explained():
        check(options.rows or [], options.data_dir)
    failed = []
    try:
        if not options.tables:
            failed = run_all(options.rows, options.quick, options.data_dir, options.fresh)
    except Stopped as stop:
        end(Stopped(stop.number, f"{stop} The same command goes on."), stop.code)
    finally:
        standings.write()
    for line in failed:
        print(f"error: {line}", file=sys.stderr)
    raise SystemExit(1 if failed else 0)


def check(names: list[str], data_dir: Path) -> None:
    """Raises:
    UserError: there is no such row or folder.
    """
    for name in names:
        if name not in NAMES:
            raise UserError(f"--rows {name}: there is no such row.{nearest(name, NAMES)} --help names them all.")
    if data_dir != DATA and not data_dir.is_dir():
        raise UserError(f"--data-dir {data_dir}: there is no such folder.")


def run_all(names: list[str] | None, quick: bool, data_dir: Path, fresh: bool) -> list[str]:
    """Run what is wanted, and give what went wrong.

    Raises:
        Stopped: it was asked to stop; so was the row in hand.
    """
    rows = list(wanted(names, quick))
    timed = "pace" in names if names else not quick
    if fresh:
        stale = {row.name for row, _ in rows} | {BASES[row.name] for row, _ in rows if row.name in BASES}
        for name in stale | ({"pace"} if timed else set()):
            shutil.rmtree(records.RUNS / name, ignore_errors=True)
    failed = []
    for row, seed in rows:
        try:
            run(row, seed, data_dir)
        except RunError as error:
            failed.append(f"{row.name}, seed {seed}: {error}")
    if timed:
        try:
            pace.run(data_dir)
        except RunError as error:
            failed.append(f"pace: {error}")
    return failed


def wanted(names: list[str] | None, quick: bool) -> Iterator[tuple[Row, int]]:
    """The rows that this machine can, with their seeds: on a GPU all, and each recipe with five."""
    gpu = torch.cuda.is_available()
    for row in ROWS if names is None else [find(name) for name in names if name != "pace"]:
        if (row.device == "gpu" and not gpu and names is None) or (quick and not row.quick):
            continue
        seeds = 1 if quick else max(row.seeds, 5) if gpu and row.section == "recipes" else row.seeds
        for seed in range(1, seeds + 1):
            yield row, seed


def run(row: Row, seed: int, data_dir: Path) -> None:
    """Run one row with one seed, if it was not yet, and write its record.

    Raises:
        RunError: it can't be run here, or failed.
        Stopped: this process was asked to stop; so was the row.
    """
    if row.device == "gpu" and not torch.cuda.is_available():
        raise RunError("it needs a GPU, and there is none that torch can use.")
    folder = records.RUNS / row.name / f"seed-{seed}"
    out = folder / "record.json"
    command = row.shown(seed)
    words = [sys.executable, "-m", *shlex.split(row.command)]
    if row.is_run:
        words = [*words[:3], *row.overrides(seed, data_dir, folder)]
    else:
        folder.mkdir(parents=True, exist_ok=True)
        words += ["--seed", str(seed), "--data-dir", str(data_dir), "--out", str(out)]
    if row.is_run or not out.exists() or json.loads(out.read_text(encoding="utf-8")).get("command") != command:
        print(f"\n{row.name}, seed {seed}: {command}", flush=True)
        follow(words, os.environ | dict(word.split("=", 1) for word in row.variables))
    found = records.of_run(folder) if row.is_run else json.loads(out.read_text(encoding="utf-8"))
    record = found | {"row": row.name, "command": command}
    records.save(record)
    if not row.is_run:
        write_json(out, record)


if __name__ == "__main__":
    main()
