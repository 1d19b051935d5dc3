"""Measure this machine: python -m benchmarks [--quick]; writes benchmarks/results/MACHINE.json."""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.cases import CASES, Case, write_cifar, write_mnist
from benchmarks.turns import ROOT, Worker

WAYS = ["tutorial", "lightning", "plain", "ours"]
PHASES = ["training", "inference"]
RESULTS = Path(__file__).parent / "results"
STARTS = [1_000, 10_000]  # images, besides all 60,000


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one case, fewer rounds: two minutes on two cores")
    parser.add_argument("--device", choices=["cpu", "gpu"], default="cpu")
    parser.add_argument("--digits", type=Path, help="a folder with the genuine MNIST/raw; else random pixels")
    parser.add_argument("--rounds", type=int, help="turns of each way in each phase")
    parser.add_argument("--out", type=Path, help="the file to write; default: results/MACHINE.json")
    options = parser.parse_args()
    if options.rounds is not None and options.rounds < 1:
        parser.error(f"--rounds {options.rounds}: expected a number greater than 0")
    if options.digits and not (options.digits / "MNIST" / "raw").is_dir():
        parser.error(f"--digits {options.digits}: there is no MNIST/raw in it")
    try:
        machine = describe(options.device)
    except LookupError as error:
        parser.error(str(error))
    started = time.time()
    rounds = options.rounds or (1 if options.quick else 3)
    cases = CASES[:1] if options.quick else CASES
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "data")
        write_mnist(data, options.digits)
        write_cifar(data)
        measured = {case.name: measure(case, data, options.device, rounds) for case in cases}
        starts = None if options.quick else start_up(Path(folder), data, options.device)
    found = machine | {
        "command": " ".join(["python -m benchmarks", *flags(options)]),
        "date": datetime.now(UTC).date().isoformat(),
        "digits": "genuine MNIST" if options.digits else "random pixels",
        "rounds": rounds,
        "seconds": round(time.time() - started),
        "cases": measured,
        "first_step_seconds": starts,
    }
    out = options.out or (ROOT / "logs" / "benchmark.json" if options.quick else RESULTS / f"{found['name']}.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_suffix(".part")
    temporary.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    temporary.replace(out)
    table = "; the README's table of it: make bench-table" if out.parent == RESULTS else ""
    print(f"written to {out} after {found['seconds']} s{table}")


def flags(options: argparse.Namespace) -> list[str]:
    """The options that matter to another reader: not where files lie here."""
    given = [f"--device {options.device}" if options.device != "cpu" else "", "--quick" if options.quick else ""]
    given += [f"--rounds {options.rounds}" if options.rounds else "", "--digits DIR" if options.digits else ""]
    return [flag for flag in given if flag]


def describe(device: str) -> dict[str, Any]:
    """The machine, the versions and the revision; asked in another process, so that this one stays small.

    Raises:
        LookupError: there is no such device.
    """
    code = f"""
import json, platform, torch
from src.model import provenance
from src.model.hardware import pick_hardware
hardware = pick_hardware({device!r}, "auto")
machine = provenance.machine().model_dump()
revision = provenance.git_revision()
machine["device"] = torch.cuda.get_device_name() if hardware.accelerator == "cuda" else machine["processor"]
machine["system"] = platform.system()
machine["threads"] = torch.get_num_threads()
print(json.dumps({{"machine": machine, "precision": hardware.precision, "versions": provenance.versions(),
                  "git": revision and revision.model_dump()}}))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, text=True, capture_output=True)
    if done.returncode:
        raise LookupError(done.stderr.splitlines()[-1].removeprefix("src.config.UserError: "))
    found = json.loads(done.stdout.splitlines()[-1])
    words = (
        found["machine"]["device"]
        if device == "gpu"
        else f"{found['machine']['device']} {found['machine']['cores']} cores"
    )
    return {"name": re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-"), "device": device, **found}


def measure(case: Case, data: Path, device: str, rounds: int) -> dict[str, Any]:
    """All ways of one case, in turns."""
    options = {"case": case.name, "data": str(data), "device_name": device}
    target = {"training": 3.0, "inference": 1.0} if device == "cpu" else {"training": 1.5, "inference": 1.0}
    names = WAYS + (["compiled"] if device == "gpu" else [])
    workers = [Worker(way, options, data.parent / f"{case.name}-{way}.log") for way in ["limit", *names]]
    limit, *ways = workers
    found: dict[str, Any] = {"batch_size": case.batch_size, "ways": {way: {} for way in names}}
    limits = []
    say(f"{case.name}, images/s:")
    for phase in PHASES:
        steps: dict[str, int] = {}
        turns: dict[str, list[dict[str, Any]]] = {worker.way: [] for worker in ways}
        if phase == "inference":
            for worker in ways:
                worker.hear()  # that it is warm
        for worker in ways:
            trial = worker.turn(1)
            steps[worker.way] = max(1, round(target[phase] / trial["seconds"] / 2))
        for number in range(rounds):
            limits.append(limit.turn(1))
            # to and fro, so that a machine that slows down meets all alike; twice for those that differ by little
            order = ways + [worker for worker in reversed(ways) if worker.way not in ("tutorial", "lightning")]
            parts = [(worker.way, worker.turn(steps[worker.way])) for worker in order]
            for way, found_turns in turns.items():
                mine = [turn for name, turn in parts if name == way]
                found_turns.append({key: sum(turn[key] for turn in mine) for key in ("images", "seconds")})
            rates = {way: turn[-1]["images"] / turn[-1]["seconds"] for way, turn in turns.items()}
            say(f"  {phase} {number + 1}/{rounds}: " + ", ".join(f"{way} {rate:.1f}" for way, rate in rates.items()))
        for worker in ways:
            peak = worker.next_phase()["peak"]
            summary = summarize(turns[worker.way], turns["tutorial"], turns["plain"])
            found["ways"][worker.way][phase] = summary | {"peak_gib": round(peak / 2**30, 2)}
    plain = next(worker for worker in ways if worker.way == "plain")
    for worker in workers:
        if worker is not plain:
            worker.end()  # so that none is at work on its own end
    plain.hear()
    prepared = [plain.turn(10) for _ in range(rounds)]
    found["data_path_ms"] = round(statistics.median(turn["seconds"] for turn in prepared) * 100, 2)
    plain.end()
    return found | against(found, case, limits)


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


def against(found: dict[str, Any], case: Case, limits: list[Any]) -> dict[str, Any]:
    """The limit, and each way's share of it: the best matrix rate seen over the counted products."""
    code = f"""
import torch
from benchmarks.cases import find
from benchmarks.tutorials import plain_network
from src.speed import flops_per_image
network, image = plain_network(find({case.name!r})), torch.zeros(1, {case.channels}, 227, 227)
parameters = sum(weight.numel() for weight in network.parameters())
print(flops_per_image(network, image), flops_per_image(network, image, False), parameters)
"""
    answer = subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True).split()
    training, inference, parameters = (int(word) for word in answer)
    rate, bandwidth = (max(item[key] for item in limits) for key in ("flops", "bandwidth"))
    flops = {"training": training, "inference": inference}
    bound = {phase: rate / count for phase, count in flops.items()}
    for way in found["ways"].values():
        for phase in PHASES:
            median = way[phase]["images_per_second"]["median"]
            way[phase]["step_ms"] = round(1000 * case.batch_size / median, 2)
            way[phase]["share_of_limit"] = round(median / bound[phase], 3)
    return {
        "flops_per_image": flops,
        "limit": {
            "matrix_teraflops": {**spread([item["flops"] / 1e12 for item in limits], 3)},
            "images_per_second": {phase: round(value, 1) for phase, value in bound.items()},
            "optimizer_floor_ms": round(case.memory_passes * 4 * parameters / bandwidth * 1000, 2),
            "bandwidth_gb_per_second": round(bandwidth / 1e9, 1),
        },
    }


def start_up(folder: Path, data: Path, device: str) -> dict[str, dict[str, float]]:
    """Seconds from the command to the end of the first step: of each way, and of ours by the size of the data set."""
    places = {way: (way, data) for way in WAYS}
    for count in STARTS:
        places[f"ours, {count:,} images"] = ("ours", folder / f"start-{count}")
        write_mnist(folder / f"start-{count}", None, count)
    seconds: dict[str, list[float]] = {name: [] for name in places}
    for _ in range(3):
        for name, (way, place) in places.items():
            options = {"case": CASES[0].name, "data": str(place), "device_name": device}
            worker = Worker(way, options, folder / "start.log")
            seconds[name].append(worker.warm["first_step"])
            worker.end()
    say("first step after " + ", ".join(f"{name} {statistics.median(times):.1f} s" for name, times in seconds.items()))
    return {name: spread(times, 2) for name, times in seconds.items()}


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    main()
