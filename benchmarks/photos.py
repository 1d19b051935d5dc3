"""Photos in a folder, beside torchvision's ImageFolder with as many processes: python -m benchmarks --photos"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

import torch
from PIL import Image

from benchmarks import project
from benchmarks.cases import CORES, DRY, PHOTOS, Case, write_photos
from benchmarks.turns import Worker
from benchmarks.ways import loaders

AHEAD = 2 * CORES + 1  # batches that as many processes have ready when nobody has asked for a while


def measure(data: Path, device: str, rounds: int, quick: bool) -> dict[str, dict[str, list[float]]]:
    """Each part by one way after the other; what each way came to in each round, by name."""
    case, steps = (PHOTOS[1], 2) if quick else (PHOTOS[0], 16)
    sizes: tuple[int, ...] = (200, 400) if quick else (2_000, 20_000, 200_000)
    sizes = sizes[1:2] if DRY else sizes[:2] if device == "gpu" else sizes  # there a minute is dear
    large, middle = write_photos(data, sizes, 10 if DRY else 300), sizes[-1] if DRY else sizes[1]
    parts = [partial(train, case, data, device, size, steps * (size == middle)) for size in sizes]
    rows = dict[str, dict[str, list[float]]]()
    for part in [*parts, partial(load, case, str(data / str(middle)), 2 * steps), partial(decode, large)]:
        for number in range(rounds):
            for way in ("tutorial", "ours"):
                for name, value in part(way):
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
            worker.next_phase()
            worker.hear()  # that it is warm again
        before, turn = worker.turn(AHEAD), worker.turn(steps)
        yield f"{phase}, photos/s", turn["images"] / turn["seconds"]
        if waited := turn["waited"] - before["waited"]:
            yield f"{phase}: time without data, %", 100 * waited / turn["seconds"]
    worker.end()


def load(case: Case, data: str, batches: int, way: str) -> Iterator[tuple[str, float]]:
    """Photos that processes read, cut and resize, with nobody else at work."""
    for count in sorted({1, CORES}):
        half = replace(case, batch_size=case.batch_size // 2, loader_workers=count)
        if way == "ours":
            run = project.PlainRun([*half.overrides(data, "cpu"), "dataset.stored_size=227"])
            loader = run.datamodule.train_dataloader()
        else:
            loader = loaders(half, data)[0]
            del loader.dataset.transform.transforms[1::2]  # ours flips and normalizes whole batches later
        fetched = iter(loader)
        list(islice(fetched, AHEAD))
        began = time.perf_counter()
        images = sum(len(labels) for _, labels in islice(fetched, batches))
        yield f"read, cut and resized, processes: {count}, photos/s", images / (time.perf_counter() - began)


def decode(paths: list[Path], way: str) -> Iterator[tuple[str, float]]:
    """JPEGs of 4000x3000 as 256x256: in full, or by ours at a reduced scale, and how far that takes their pixels."""
    began = time.perf_counter()
    files = (path if way == "ours" else Image.open(path).convert("RGB") for path in paths)
    pixels = torch.stack([project.decode(file, 3, (256, 256)) for file in files])
    yield "a JPEG of 4000x3000 to 256x256, ms", 1000 * (time.perf_counter() - began) / len(paths)
    if way == "ours":
        full = torch.stack([project.decode(Image.open(path).convert("RGB"), 3, (256, 256)) for path in paths])
        away = (pixels.float() - full).abs()
        yield from (("its mean difference, of 255", float(away.mean())), ("its largest, of 255", float(away.max())))
