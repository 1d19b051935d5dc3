"""Measure this machine: python -m benchmarks [--quick]; writes benchmarks/results/MACHINE.json."""

import argparse
import json
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from benchmarks import project, records
from benchmarks.cases import CASES, CORES, DRY, PHASES, PHOTOS, Case, write_cifar, write_mnist, write_photos
from benchmarks.published import network_of
from benchmarks.turns import ROOT, Worker

WAYS = ["tutorial", "lightning", "plain", "ours"]
AHEAD = 2 * CORES + 1  # batches that as many processes have ready when nobody has asked for a while


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one case, fewer rounds: two minutes on two cores")
    parser.add_argument("--photos", action="store_true", help="photos in a folder instead: ten minutes on two cores")
    parser.add_argument("--device", choices=["cpu", "gpu"], default="cpu")
    parser.add_argument("--out", type=Path, help="the file to write; default: results/MACHINE.json")
    options = parser.parse_args()
    with project.explained():
        machine = project.describe(options.device)
    started = time.time()
    rounds = 1 if options.quick or (options.photos and options.device == "gpu") else 3  # there a minute is dear
    command, date = shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]]), datetime.now(UTC).date().isoformat()
    found = machine | {"command": command, "date": date, "rounds": rounds}
    results = records.RECORDS.parent / ("photos" if options.photos else "")
    out = options.out or (ROOT / "logs" / "benchmark.json" if options.quick else results / f"{found['name']}.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "data")
        if options.photos:
            found["rows"] = measure_photos(data, options.device, rounds, options.quick)
        else:
            measure_cases(found, CASES[:1] if options.quick else CASES, data, out)
    project.write_json(out, found | {"seconds": round(time.time() - started)})
    print(f"written to {out} after {time.time() - started:.0f} s; the tables of benchmarks/results: make bench-table")


def measure_cases(found: dict[str, Any], cases: list[Case], data: Path, out: Path) -> None:
    """Add to `found` and to the file the cases that an ended call, which left no `seconds`, has not measured."""
    earlier = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}
    goes_on = "seconds" not in earlier and all(earlier.get(key) == found[key] for key in ("git", "command"))
    found["cases"] = earlier["cases"] if goes_on else {}
    write_cifar(data)
    write_mnist(data)
    for case in cases:
        if case.name not in found["cases"]:
            found["cases"][case.name] = measure(case, data, found["device"], found["rounds"])
            project.write_json(out, found)
    starts = {way: [case["ways"][way]["first_step"] for case in found["cases"].values()] for way in WAYS}
    found["first_step_seconds"] = {way: spread(pd.Series(seconds), 2) for way, seconds in starts.items()}


def measure(case: Case, data: Path, device: str, rounds: int) -> dict[str, Any]:
    """All ways of one case, in turns: medians, lowest and highest of the rounds; ratios are taken within a round."""
    names = WAYS + ["compiled"] * (device == "gpu")
    ways = [Worker(way, case.name, data, device, data.parent / f"{case.name}-{way}.log") for way in names]
    hardware, limits = project.pick_hardware(device, "auto"), list[float]()
    starts = {worker.way: {"first_step": worker.warm["first_step"]} for worker in ways}
    found: dict[str, Any] = {"batch_size": case.batch_size, "ways": starts}
    print(f"{case.name}, images/s:", flush=True)
    for phase in PHASES:
        if phase == "inference":
            for worker in ways:
                worker.hear()  # that it is warm
        target = 0.0 if DRY else 1.0 if phase == "inference" else 1.5 if device == "gpu" else 3.0
        rates = take_turns(phase, ways, hardware, limits, target, rounds)
        for worker in ways:
            mine = rates[worker.way]
            times = {"times_tutorial": spread(mine / rates.tutorial, 2), "times_plain": spread(mine / rates.plain, 3)}
            peak = {"peak_gib": round(worker.turn(0) / 2**30, 2)}
            found["ways"][worker.way][phase] = {"images_per_second": spread(mine, 1)} | times | peak
    for worker in ways:
        worker.end()
    return found | against(found, case, max(limits))


def take_turns(
    phase: str, ways: list[Worker], hardware: project.Hardware, limits: list[float], target: float, rounds: int
) -> pd.DataFrame:
    """Images a second in each round, a row, by each way, a column, in turns of about half of `target` seconds; the
    machine's rates in between go to `limits`."""
    steps = {worker.way: max(1, round(target / worker.turn(1)["seconds"] / 2)) for worker in ways}
    rates = []
    for number in range(rounds):
        limits.append(project.matmul_rate(hardware.torch_device, hardware.precision, 0.0 if DRY else 1.0))
        # to and fro, so that a machine that slows down meets all alike; twice for those that differ by little
        order = ways + [worker for worker in reversed(ways) if worker.way not in ("tutorial", "lightning")]
        turns = pd.DataFrame([{"way": worker.way} | worker.turn(steps[worker.way]) for worker in order])
        sums = turns.groupby("way", sort=False).sum()
        rates.append(sums.images / sums.seconds)
        shown = ", ".join(f"{way} {rate:.1f}" for way, rate in rates[-1].items())
        print(f"  {phase} {number + 1}/{rounds}: {shown}", flush=True)
    return pd.DataFrame(rates)


def spread(values: pd.Series, digits: int) -> dict[str, float]:
    return values.agg(["median", "min", "max"]).round(digits).set_axis(["median", "low", "high"]).to_dict()


def against(found: dict[str, Any], case: Case, rate: float) -> dict[str, Any]:
    """The peak speed, and each way's share of it: the best rate of matrix products seen over the counted products."""
    network, image = network_of(case.dataset, torch.device("cpu"))[0], torch.zeros(1, case.channels, 227, 227)
    flops = {phase: project.flops_per_image(network, image, phase == "training") for phase in PHASES}
    bound = {phase: round(rate / count, 1) for phase, count in flops.items()}
    for way in found["ways"].values():
        for phase in PHASES:
            way[phase]["share_of_limit"] = round(way[phase]["images_per_second"]["median"] / bound[phase], 3)
    return {"flops_per_image": flops, "limit": {"matrix_teraflops": round(rate / 1e12, 3), "images_per_second": bound}}


def measure_photos(data: Path, device: str, rounds: int, quick: bool) -> dict[str, dict[str, list[float]]]:
    """Each size by one way after the other; what each way came to in each round, by name."""
    case, steps = (PHOTOS[1], 2) if quick else (PHOTOS[0], 16)
    sizes = [400] if DRY else [200, 400] if quick else [2_000, 20_000] + [200_000] * (device == "cpu")
    write_photos(data, sizes, 10 if DRY else 300)
    rows = dict[str, dict[str, list[float]]]()
    for size in sizes:
        for number in range(rounds):
            for way in ("tutorial", "ours"):
                for name, value in train_photos(case, data, device, size, steps * (size == sizes[:2][-1]), way):
                    rows.setdefault(name, {}).setdefault(way, []).append(round(value, 3))
                    print(f"{number + 1}/{rounds} {name}, {way}: {value:,.2f}", flush=True)
    return rows


def train_photos(case: Case, data: Path, device: str, size: int, steps: int, way: str) -> Iterator[tuple[str, float]]:
    """A process from its command on; so many steps of training and of evaluation, but for what was ready before."""
    worker = Worker(way, case.name, data / str(size), device, data / "log", watched=True)
    worker.turn(4)
    yield f"first step with {size:,} photos, s", worker.warm["first_step"]
    yield f"peak memory with {size:,} photos, GiB", worker.peak
    worker.watched = False
    for phase in ("training", "evaluation") if steps else ():
        if phase == "evaluation":
            worker.turn(0)
            worker.hear()  # that it is warm again
        before, turn = worker.turn(AHEAD), worker.turn(steps)
        yield f"{phase}, photos/s", turn["images"] / turn["seconds"]
        if waited := turn["waited"] - before["waited"]:
            yield f"{phase}: time without data, %", 100 * waited / turn["seconds"]
    worker.end()


if __name__ == "__main__":
    main()
