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

from benchmarks import project, records, tables
from benchmarks.rows import BY_NAME, ROWS, Row


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.leaderboard", description=__doc__)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--quick", action="store_true", help="one seed of three rows: 15 minutes on two cores")
    which.add_argument("--rows", nargs="+", metavar="ROW", choices=BY_NAME, help=f"only these: {', '.join(BY_NAME)}")
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="where the images lie")
    parser.add_argument("--fresh", action="store_true", help="run again what is finished in logs/leaderboard")
    options = parser.parse_args()
    if options.data_dir != Path("data") and not options.data_dir.is_dir():
        parser.error(f"--data-dir {options.data_dir}: there is no such folder.")
    wanted_rows = list(wanted(options.rows, options.quick))
    if options.fresh:
        for name in {row.base for row, _ in wanted_rows if row.base} | {row.name for row, _ in wanted_rows}:
            shutil.rmtree(records.RUNS / name, ignore_errors=True)
    failed = False
    try:
        with project.explained("The same command goes on."):
            for row, seed in wanted_rows:
                try:
                    run(row, seed, options.data_dir)
                except project.RunError as error:
                    failed = True
                    print(f"error: {row.name}, seed {seed}: {error}", file=sys.stderr)
    finally:
        tables.write()
    raise SystemExit(1 if failed else 0)


def wanted(names: list[str] | None, quick: bool) -> Iterator[tuple[Row, int]]:
    """The rows that this machine can, with their seeds: on a GPU all, and each recipe with five."""
    gpu = torch.cuda.is_available()
    for row in [BY_NAME[name] for name in names] if names else ROWS:
        if (row.on_gpu and not gpu and not names) or (quick and not row.quick):
            continue
        seeds = 1 if quick else max(row.seeds, 5) if gpu and row.section == "recipes" else row.seeds
        for seed in range(1, seeds + 1):
            yield row, seed


def run(row: Row, seed: int, data_dir: Path) -> None:
    """Run one row with one seed, if it was not yet, and write its record; raises RunError if it can't be run here, or
    failed, and Stopped if this process was asked to stop; so was the row."""
    if row.on_gpu and not torch.cuda.is_available():
        raise project.RunError("it needs a GPU, and there is none that torch can use.")
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
        project.follow(words, os.environ | dict(word.split("=", 1) for word in row.variables.split()))
    found = records.of_run(folder) if row.is_run else json.loads(out.read_text(encoding="utf-8"))
    record = found | {"row": row.name, "command": command}
    records.save(record)
    if not row.is_run:
        project.write_json(out, record)


if __name__ == "__main__":
    main()
