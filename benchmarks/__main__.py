"""Measure this machine: python -m benchmarks [--quick]; writes benchmarks/results/MACHINE.json."""

from __future__ import annotations

import argparse
import re
import shlex
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import photos, project
from benchmarks.cases import CASES, Case, write_cifar, write_mnist
from benchmarks.turns import ROOT, Worker

WAYS = ["tutorial", "lightning", "plain", "ours"]
PHASES = ["training", "inference"]
RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one case, fewer rounds: two minutes on two cores")
    parser.add_argument("--photos", action="store_true", help="photos in a folder instead: ten minutes on two cores")
    parser.add_argument("--device", choices=["cpu", "gpu"], default="cpu")
    parser.add_argument("--rounds", type=int, help="turns of each way in each phase")
    parser.add_argument("--out", type=Path, help="the file to write; default: results/MACHINE.json")
    options = parser.parse_args()
    if options.rounds is not None and options.rounds < 1:
        parser.error(f"--rounds {options.rounds}: expected a number greater than 0")
    try:
        machine = describe(options.device)
    except project.UserError as error:
        parser.error(str(error))
    started = time.time()
    rounds = options.rounds or (1 if options.quick else 3)
    command, date = shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]]), datetime.now(UTC).date().isoformat()
    found = machine | {"command": command, "date": date, "rounds": rounds}
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "data")
        if options.photos:
            found["rows"] = photos.measure(data, options.device, rounds, options.quick)
        else:
            write_cifar(data)
            write_mnist(data)
            cases = CASES[:1] if options.quick else CASES
            found["cases"] = {case.name: measure(case, data, options.device, rounds) for case in cases}
            found["first_step_seconds"] = None if options.quick else start_up(Path(folder), data, options.device)
    found["seconds"] = round(time.time() - started)
    results = RESULTS / ("photos" if options.photos else "")
    out = options.out or (ROOT / "logs" / "benchmark.json" if options.quick else results / f"{found['name']}.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    project.write_json(out, found)
    print(f"written to {out} after {found['seconds']} s; the tables of benchmarks/results: make bench-table")


def describe(device: str) -> dict[str, Any]:
    """The machine, the versions and the revision; raises UserError where there is no such device."""
    precision, found = project.pick_hardware(device, "auto").precision, project.provenance()
    machine = found["machine"]
    machine["system"] = machine["system"].partition("-")[0]  # the kernel's version is nobody's business
    machine["device"] = machine["gpu"] if device == "gpu" else machine["processor"]
    words = machine["device"] if device == "gpu" else f"{machine['device']} {machine['cores']} cores"
    name = re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")
    return {"name": name, "device": device, "precision": precision, **found}


def measure(case: Case, data: Path, device: str, rounds: int) -> dict[str, Any]:
    """All ways of one case, in turns."""
    names = WAYS + (["compiled"] if device == "gpu" else [])
    limit, *ways = (
        Worker(way, case.name, data, device, data.parent / f"{case.name}-{way}.log") for way in ["limit", *names]
    )
    found: dict[str, Any] = {"batch_size": case.batch_size, "ways": {way: {} for way in names}}
    limits: list[float] = []
    print(f"{case.name}, images/s:", flush=True)
    for phase in PHASES:
        if phase == "inference":
            for worker in ways:
                worker.hear()  # that it is warm
        turns = take_turns(phase, ways, limit, limits, device, rounds)
        for worker in ways:
            summary = summarize(turns[worker.way], turns["tutorial"], turns["plain"])
            found["ways"][worker.way][phase] = summary | {"peak_gib": round(worker.next_phase() / 2**30, 2)}
    for worker in (limit, *ways):
        worker.end()
    return found | against(found, case, max(limits))


def take_turns(
    phase: str, ways: list[Worker], limit: Worker, limits: list[float], device: str, rounds: int
) -> dict[str, list[dict[str, float]]]:
    """The images and seconds of each way in each round; the machine's rates in between go to `limits`."""
    target = 1.5 if phase == "training" and device == "gpu" else 3.0 if phase == "training" else 1.0  # seconds a round
    steps = {worker.way: max(1, round(target / worker.turn(1)["seconds"] / 2)) for worker in ways}
    turns: dict[str, list[dict[str, float]]] = {worker.way: [] for worker in ways}
    for number in range(rounds):
        limits.append(limit.turn(1)["flops"])
        # to and fro, so that a machine that slows down meets all alike; twice for those that differ by little
        order = ways + [worker for worker in reversed(ways) if worker.way not in ("tutorial", "lightning")]
        done = [(worker.way, worker.turn(steps[worker.way])) for worker in order]
        for way, rounds_of_way in turns.items():
            mine = [turn for name, turn in done if name == way]
            rounds_of_way.append({key: sum(turn[key] for turn in mine) for key in ("images", "seconds")})
        rates = {way: turn[-1]["images"] / turn[-1]["seconds"] for way, turn in turns.items()}
        shown = ", ".join(f"{way} {rate:.1f}" for way, rate in rates.items())
        print(f"  {phase} {number + 1}/{rounds}: {shown}", flush=True)
    return turns


def summarize(turns: list[Any], tutorial: list[Any], plain: list[Any]) -> dict[str, Any]:
    """Medians, with the lowest and highest of the rounds; ratios are taken within a round."""
    rates, others, loop = ([turn["images"] / turn["seconds"] for turn in part] for part in (turns, tutorial, plain))
    return {
        "images_per_second": spread(rates, 1),
        "times_tutorial": spread([rate / other for rate, other in zip(rates, others, strict=True)], 2),
        "times_plain": spread([rate / other for rate, other in zip(rates, loop, strict=True)], 3),
    }


def spread(values: list[float], digits: int) -> dict[str, float]:
    shown = (statistics.median(values), min(values), max(values))
    return dict(zip(("median", "low", "high"), (round(value, digits) for value in shown), strict=True))


def against(found: dict[str, Any], case: Case, rate: float) -> dict[str, Any]:
    """The peak speed, and each way's share of it: the best rate of matrix products seen over the counted products."""
    import torch

    from benchmarks.limit import flops_per_image
    from benchmarks.published import network_of

    network, image = network_of(case.dataset, torch.device("cpu"))[0], torch.zeros(1, case.channels, 227, 227)
    flops = {phase: flops_per_image(network, image, phase == "training") for phase in PHASES}
    bound = {phase: rate / count for phase, count in flops.items()}
    for way in found["ways"].values():
        for phase in PHASES:
            median = way[phase]["images_per_second"]["median"]
            way[phase]["step_ms"] = round(1000 * case.batch_size / median, 2)
            way[phase]["share_of_limit"] = round(median / bound[phase], 3)
    shown = {phase: round(value, 1) for phase, value in bound.items()}
    return {"flops_per_image": flops, "limit": {"matrix_teraflops": round(rate / 1e12, 3), "images_per_second": shown}}


def start_up(folder: Path, data: Path, device: str) -> dict[str, dict[str, float]]:
    """Seconds from the command to the end of the first step, of each way."""
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(3):
        for way, times in seconds.items():
            worker = Worker(way, CASES[0].name, data, device, folder / "start.log")
            times.append(worker.warm["first_step"])
            worker.end()
    return {way: spread(times, 2) for way, times in seconds.items()}


if __name__ == "__main__":
    main()
