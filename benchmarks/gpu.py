"""Measure what needs a GPU, the most important first: python -m benchmarks.gpu

What is there is not measured again: the same command goes on. Nothing is downloaded; what lacks its images says so.
"""

import argparse
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from subprocess import Popen
from tempfile import TemporaryDirectory
from threading import Timer
from typing import Any

import pandas as pd
import torch

from benchmarks import jpeg, leaderboard, project, records, tables
from benchmarks.cases import accept_any_checksum, write_cifar, write_mnist
from benchmarks.records import BY_NAME

RECIPES = ["mnist_gpu", "fashion_mnist_gpu", "cifar10_gpu"]
PUBLISHED = ["published_mnist", "published_cifar10_10000", "published_cifar10"]
PROFILE = "dataset=mnist dataset.source=full dataset.download=false trainer=profile report=false"
RESUME = "experiment=mnist dataset.source=full dataset.download=false trainer.max_epochs=2 trainer.deterministic=true"
RESUME += " callbacks.checkpoint_steps=100 report=false"
TINY = "model.widths=[4,4,4,4,4] model.hidden=16 batch_size=4 dataset=mnist dataset.verify=false dataset.limit=50"
TINY += " report=false callbacks=none callbacks.checkpoint_steps=2 device=cpu trainer.max_epochs=2"


@dataclass(frozen=True)
class Step:
    """What is measured, in about how many seconds of an H100, and the file of its result: `run` gives or writes it."""

    name: str
    seconds: float
    path: Path
    run: Callable[[], dict[str, Any] | None]

    def is_there(self) -> bool:
        found = json.loads(self.path.read_text(encoding="utf-8")) if self.path.exists() else {}
        return "seconds" in found and ("row" not in found or records.is_current(found))  # else it was ended, or is old


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--minutes", type=float, default=25, help="what would take longer is left out")
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="where the images lie")
    parser.add_argument("--dry-run", action="store_true", help="try every step on the CPU, with made images")
    options = parser.parse_args()
    with TemporaryDirectory() as folder, project.explained("The same command goes on."):
        if options.dry_run:
            os.environ |= {"BENCHMARK_DRY_RUN": "1", "OMP_NUM_THREADS": "1"}  # threads cost more than so little work
            records.RECORDS, records.RUNS = Path(folder, "results", "accuracy"), Path(folder, "runs")
            options.data_dir = Path(folder, "data")
            write_mnist(options.data_dir, 200, 20)
            write_cifar(options.data_dir, 20)
            accept_any_checksum()
            jpeg.write(options.data_dir / "cifar10-jpeg")
        try:
            failed = measure(list(steps(options.data_dir, options.dry_run)), options.minutes)
        finally:
            if not options.dry_run:
                tables.write()
    raise SystemExit(1 if failed else 0)


def measure(wanted: list[Step], minutes: float) -> set[str]:
    """Take the steps for which there is time; gives what failed. Raises Stopped if somebody else stops this process."""
    end, failed = time.monotonic() + 60 * minutes, set[str]()
    with project.Interrupts():
        for step in wanted:
            left, kind = max(0.0, end - time.monotonic()), step.name.partition(", seed")[0]
            fate = f"about {project.duration(step.seconds)}"
            if step.is_there():
                fate = "is there"
            elif kind in failed:
                fate = "left out, for another seed has failed"
            elif step.seconds > left:
                fate = f"left out, for it takes {fate}, and {project.duration(left)} are left"
            print(f"{step.name}: {fate}", flush=True)
            if not fate.startswith("about"):
                continue
            clock = Timer(left, os.kill, (os.getpid(), signal.SIGTERM))
            clock.start()
            try:
                take(step)
            except (project.RunError, project.UserError, OSError) as error:
                failed.add(kind)
                print(f"error: {step.name}: {error}", file=sys.stderr)
            except project.Stopped:
                if time.monotonic() < end:
                    raise
                print(f"{step.name}: stopped, for the time is over")
                break
            finally:
                clock.cancel()
    return failed


def take(step: Step) -> None:
    """Do what a step is, and write what it gives, with where and by what code it was made."""
    began = time.monotonic()
    if found := step.run():
        found["seconds"] = round(time.monotonic() - began)
        step.path.parent.mkdir(parents=True, exist_ok=True)
        project.write_json(step.path, records.here(project.provenance()) | found)


def steps(data: Path, dry: bool) -> Iterator[Step]:
    """In order of importance: first one seed of each recipe, then more."""
    device, tiny, results = "cpu" if dry else "gpu", TINY.split() if dry else [], records.RECORDS.parent
    machine = project.describe(device)
    file, where = f"{machine['name']}.json", records.here(machine, "cpu" if dry else "cuda")["machine"]

    def bench(name: str, seconds: float, path: Path, *words: str) -> Step:
        command = [sys.executable, "-m", "benchmarks", "--device", device, *words]
        command += ["--quick", "--out", str(path)] if dry else []
        return Step(name, seconds, path, partial(project.follow, command, os.environ))

    def own(name: str, seconds: float, run: Callable[..., dict[str, Any]], options: str) -> Step:
        words = [*options.split(), f"device={device}", *tiny]
        command = [sys.executable, "-m", "src.train", *words, f"data_dir={data}"]
        shown = {"command": f"python -m src.train {' '.join(words)}"}
        return Step(name, seconds, results / name / file, lambda: run(command, records.RUNS / name) | shown)

    def row(name: str, seed: int) -> Step:
        chosen = replace(BY_NAME[name], gpu=not dry)
        path = records.path_of({"row": name, "seed": seed, "machine": where})
        more = ["dataset.download=false", *tiny] if chosen.is_run else ["--images=4", "--epochs=1"] * dry
        more += ["--jpeg"] if dry and "cifar10" in chosen.command and not chosen.is_run else []
        return Step(f"{name}, seed {seed}", chosen.seconds, path, partial(leaderboard.run, chosen, seed, data, more))

    yield bench("speed of five ways", 450, results / file)
    yield own("profile", 40, profile, PROFILE)
    yield from (row(name, 1) for name in [*RECIPES, *PUBLISHED[:1]])
    yield own("resume", 60, resume, RESUME)
    yield bench("photos", 120, results / "photos" / file, "--photos")
    yield from (row(name, seed) for seed in (2, 3) for name in RECIPES if not dry)
    yield row(PUBLISHED[1], 1)
    yield from (row(name, seed) for seed in (1, 2, 3) for name in PUBLISHED if not dry)


def profile(command: list[str], folder: Path) -> dict[str, Any]:
    """How much of three steps a GPU's kernels take, and which most; on the CPU a step's parts, which are nested."""
    shutil.rmtree(folder, ignore_errors=True)
    project.follow([*command, f"hydra.run.dir={folder}"], os.environ)
    [trace] = (folder / "profile").glob("fit-*training_step*.json")
    events = pd.DataFrame(json.loads(trace.read_text(encoding="utf-8"))["traceEvents"])
    work = events[events.cat == ("cpu_op" if "device=cpu" in command else "kernel")]
    shares = work.groupby("name").dur.sum() / ((work.ts + work.dur).max() - work.ts.min())
    return {"busy": float(shares.sum()), "costs": shares.nlargest(8).to_dict()}


def resume(command: list[str], folder: Path) -> dict[str, Any]:
    """Whether a run that is killed in an epoch ends with the weights and the table of one that nobody kills."""
    shutil.rmtree(folder, ignore_errors=True)
    whole, killed = folder / "whole", folder / "killed"
    broken = [*command, f"hydra.run.dir={killed}"]
    project.follow([*command, f"hydra.run.dir={whole}"], os.environ)
    process = Popen(broken)
    try:
        while process.poll() is None and not (killed / "checkpoints" / "last.ckpt").exists():
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait()
    if project.is_finished(killed):
        raise project.RunError("the run had ended before it was killed.")
    project.follow(broken, os.environ)
    one, other = (torch.load(run / "checkpoints" / "last.ckpt", "cpu")["state_dict"] for run in (whole, killed))
    away = max(float((weight.double() - other[name].double()).abs().max()) for name, weight in one.items())
    table, other_table = ((run / "metrics.csv").read_bytes() for run in (whole, killed))
    found = {"weights": f"differ by up to {away:g}" if away else "equal to the last bit"}
    return found | {"metrics.csv": "equal" if table == other_table else "differs"}


if __name__ == "__main__":
    main()
