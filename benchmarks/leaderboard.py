"""Run the rows of the leaderboard that this machine can, and write its tables: python -m benchmarks.leaderboard

A row that was interrupted goes on where it stopped; one that is finished in logs/leaderboard is not run again.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks import pace, records, standings
from benchmarks.rows import ROWS, Row, find
from src.files import write_json

STOPPED = (130, 138, 143)  # exit codes of a run that was asked to


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.leaderboard", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one seed of three rows: 15 minutes on two cores")
    parser.add_argument("--rows", nargs="+", choices=[*(row.name for row in ROWS), "pace"], help="only these")
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="where the images lie")
    parser.add_argument("--fresh", action="store_true", help="run again what is finished in logs/leaderboard")
    parser.add_argument("--tables", action="store_true", help="run nothing, only write the tables")
    options = parser.parse_args()
    failed = []
    if not options.tables:
        for row, seed in wanted(options.rows, options.quick):
            error = run(row, seed, options.data_dir, options.fresh)
            failed += [f"{row.name}, seed {seed}: {error}"] if error else []
        if "pace" in (options.rows or []) or not (options.rows or options.quick):
            failed += pace.run(options.data_dir)
    standings.write()
    for line in failed:
        print(f"error: {line}", file=sys.stderr)
    raise SystemExit(1 if failed else 0)


def wanted(names: list[str] | None, quick: bool) -> Iterator[tuple[Row, int]]:
    """The rows that this machine can, with their seeds: on a GPU all, and each recipe with five."""
    gpu = torch.cuda.is_available()
    chosen = ROWS if names is None else [find(name) for name in names if name != "pace"]
    for row in chosen:
        if (row.device == "gpu" and not gpu and names is None) or (quick and not row.quick):
            continue
        seeds = 1 if quick else max(row.seeds, 5) if gpu and row.section == "recipes" else row.seeds
        for seed in range(1, seeds + 1):
            yield row, seed


def run(row: Row, seed: int, data_dir: Path, fresh: bool = False) -> str | None:
    """Run one row with one seed and write its record; what went wrong, if anything did.

    Raises:
        SystemExit: it was asked to stop.
    """
    folder = records.RUNS / row.name / f"seed-{seed}"
    if fresh:
        shutil.rmtree(folder, ignore_errors=True)
    out = folder / "record.json"
    words = ["-m", *shlex.split(row.command)]
    if row.is_run:
        words += [f"seed={seed}", f"data_dir={data_dir}", f"hydra.run.dir={folder}"]
    else:
        folder.mkdir(parents=True, exist_ok=True)
        words += ["--seed", str(seed), "--data-dir", str(data_dir), "--out", str(out)]
    if row.is_run or not out.exists():
        print(f"\n{row.name}, seed {seed}: {row.shown(seed)}", flush=True)
        variables = dict(word.split("=", 1) for word in row.variables)
        done = subprocess.run(
            [sys.executable, *words], cwd=records.ROOT, env=os.environ | variables, stderr=subprocess.PIPE, text=True
        )
        print(done.stderr, end="", file=sys.stderr)
        if done.returncode in STOPPED:
            raise SystemExit(done.returncode)
        if done.returncode:
            return (done.stderr.splitlines() or ["it failed"])[-1].removeprefix("error: ")
    found = records.of_run(folder) if row.is_run else json.loads(out.read_text(encoding="utf-8"))
    if found["source"] != row.source:
        return f"it ran on the {found['source']} data set, for want of the {row.source} one. Set --data-dir."
    record = {"row": row.name, "command": row.shown(seed), **found}
    path = records.path_of(record)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, record)
    return None


if __name__ == "__main__":
    main()
