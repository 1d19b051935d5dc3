"""Run the rows of the leaderboard that this machine can and has no record of: python -m benchmarks.leaderboard

The cheapest comes first; at the end the tables are written. A run of src.train that was interrupted goes on.
"""

import argparse
import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks import project, records, tables
from benchmarks.records import BY_NAME, ROWS, Row


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.leaderboard", description=__doc__)
    parser.add_argument("--rows", nargs="+", metavar="ROW", choices=BY_NAME, help=f"only these: {', '.join(BY_NAME)}")
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="where the images lie")
    parser.add_argument("--fresh", action="store_true", help="run again what there is a record of")
    options = parser.parse_args()
    if options.data_dir != Path("data") and not options.data_dir.is_dir():
        parser.error(f"--data-dir {options.data_dir}: there is no such folder.")
    wanted = missing(options.rows, options.fresh)
    if options.fresh:
        for name in {row.base for _, row, _ in wanted if row.base} | {row.name for _, row, _ in wanted}:
            shutil.rmtree(records.RUNS / name, ignore_errors=True)
    total = project.duration(sum(seconds for seconds, *_ in wanted))
    print(f"{len(wanted)} runs are missing here, {total} in all, the cheapest first:")
    for seconds, row, seed in wanted:
        print(f"  {row.name + f', seed {seed}':<32} {project.duration(seconds):>8}")
    failed = False
    try:
        with project.explained("The same command goes on."):
            for _, row, seed in wanted:
                try:
                    run(row, seed, options.data_dir)
                except project.RunError as error:
                    failed = True
                    print(f"error: {row.name}, seed {seed}: {error}", file=sys.stderr)
    finally:
        tables.write()
    raise SystemExit(1 if failed else 0)


def missing(names: list[str] | None = None, fresh: bool = False) -> list[tuple[float, Row, int]]:
    """About how many seconds a row takes (by its records here, else elsewhere, else its own), the row and a seed, the
    cheapest first, of those that this machine can and has no current record of; `fresh`: of all."""
    gpu, found = torch.cuda.is_available(), records.current()
    mine = found[found.machine == records.here(project.provenance())["machine"]]
    wanted = []
    for row in [BY_NAME[name] for name in names] if names else [row for row in ROWS if gpu or not row.gpu]:
        alike = [part[part.row == row.name] for part in (mine, found)]
        seconds = next((float(part.seconds.mean()) for part in alike if len(part)), row.seconds)
        there = set() if fresh else set(alike[0].seed)
        wanted += [(seconds, row, seed) for seed in range(1, row.seeds + 1) if seed not in there]
    return sorted(wanted, key=lambda job: job[0])


def run(row: Row, seed: int, data_dir: Path, more: Sequence[str] = ()) -> None:
    """Run one row with one seed, and `more` options, and write its record; raises RunError if it can't be run here, or
    failed, and Stopped if this process was asked to stop; so was the row."""
    if row.gpu and not torch.cuda.is_available():
        raise project.RunError("it needs a GPU, and there is none that torch can use.")
    folder, command = records.RUNS / row.name / f"seed-{seed}", row.shown(seed)
    out = folder / "record.json"
    words = [sys.executable, "-m", *row.command.split()]
    if row.is_run:
        words = [*words[:3], *row.overrides(seed, data_dir, folder), *more]
    else:
        folder.mkdir(parents=True, exist_ok=True)
        words += ["--seed", str(seed), "--data-dir", str(data_dir), "--out", str(out), *more]
    print(f"\n{row.name}, seed {seed}: {command}", flush=True)
    project.follow(words, os.environ | dict(word.split("=", 1) for word in row.variables.split()))
    found = records.of_run(folder) if row.is_run else json.loads(out.read_text(encoding="utf-8"))
    records.save(found | {"row": row.name, "command": command})


if __name__ == "__main__":
    main()
