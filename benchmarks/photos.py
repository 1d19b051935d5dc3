"""Photos in a folder, beside torchvision's ImageFolder with as many processes: python -m benchmarks --photos"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchmarks.cases import CORES, DRY, PHOTOS, Case, write_photos
from benchmarks.turns import Worker

AHEAD = 2 * CORES + 1  # batches that as many processes have ready when nobody has asked for a while


def measure(data: Path, device: str, rounds: int, quick: bool) -> dict[str, dict[str, list[float]]]:
    """Each size by one way after the other; what each way came to in each round, by name."""
    case, steps = (PHOTOS[1], 2) if quick else (PHOTOS[0], 16)
    sizes: tuple[int, ...] = (200, 400) if quick else (2_000, 20_000, 200_000)
    sizes = sizes[1:2] if DRY else sizes[:2] if device == "gpu" else sizes
    write_photos(data, sizes, 10 if DRY else 300)
    rows = dict[str, dict[str, list[float]]]()
    for size in sizes:
        for number in range(rounds):
            for way in ("tutorial", "ours"):
                for name, value in train(case, data, device, size, steps * (size == sizes[:2][-1]), way):
                    rows.setdefault(name, {}).setdefault(way, []).append(round(value, 3))
                    print(f"{number + 1}/{rounds} {name}, {way}: {value:,.2f}", flush=True)
    return rows


def train(case: Case, data: Path, device: str, size: int, steps: int, way: str) -> Iterator[tuple[str, float]]:
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
