"""Seconds to 98 % and 99 % of MNIST's validation images, ours and the first tutorial's: python -m benchmarks.pace

Both learn from the same 54,000 images and are scored on the same 6,000, one after the other, each in a process of its
own. The clock runs in training only, from the first batch.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import nn
from torch.utils.data import Subset
from torchvision import datasets

from benchmarks import published, records
from src.cli import launch
from src.config import TrainConfig
from src.data.images import ImageSet, Source, split
from src.data.preparation import Preparation
from src.files import write_json
from src.train import train

GOALS = (0.98, 0.99)
RESULTS = records.RECORDS.parent / "pace"
RECIPE = ["experiment=mnist", "trainer.max_epochs=1", "trainer.val_check_interval=0.05"]
EVERY = 5400  # images between two scores of the tutorial's


class Clock:
    """Seconds of training, and the accuracy at each stop."""

    def __init__(self) -> None:
        self.seconds, self.curve = 0.0, list[tuple[float, float]]()
        self._since = time.perf_counter()

    def start(self) -> None:
        self._since = time.perf_counter()

    def stop(self) -> None:
        self.seconds += time.perf_counter() - self._since

    def mark(self, accuracy: float) -> None:
        self.curve.append((round(self.seconds, 1), round(accuracy, 4)))
        print(f"{self.seconds:7.1f} s {accuracy:.2%}", flush=True)

    def reached(self, goal: float) -> float | None:
        return next((seconds for seconds, accuracy in self.curve if accuracy >= goal), None)


class Pace(L.Callback):
    """Ours: the clock stands still while Lightning validates, and all ends with the last goal."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.clock.start()

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.clock.stop()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.clock.mark(float(trainer.callback_metrics["val/acc"]))
        if self.clock.reached(GOALS[-1]) is not None:
            trainer.should_stop = True
        self.clock.start()


class Enough(Exception):
    """The last goal is reached, or the time is up."""


def ours(data_dir: Path, clock: Clock) -> str:
    folder = records.RUNS / "pace" / f"{time.time():.0f}"
    more = ["seed=1", "test=false", "report=false", "dashboard=none", "dataset.source=full"]
    sys.argv[1:] = [*RECIPE, *more, f"data_dir={data_dir}", f"hydra.run.dir={folder}"]
    launch("train", TrainConfig, partial(train, callbacks=[Pace(clock)]))
    return " ".join(["python -m src.train", *RECIPE])


def tutorial(data_dir: Path, clock: Clock, patience: float) -> str:
    train_set, test_set, _ = published.images_of("mnist", data_dir)
    cut = cut_as_ours(train_set)
    preparation = Preparation([0.5], [0.5], 227)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    next_stop = EVERY

    def watch(network: nn.Module, seen: int) -> None:
        nonlocal next_stop
        if seen < next_stop:
            return
        next_stop += EVERY
        clock.stop()
        network.eval()
        right = 0
        with torch.inference_mode():
            for indices in torch.arange(len(cut.valid)).split(128):
                images, labels = cut.valid.fetch(indices)
                right += int((network(preparation(images).to(device)).argmax(1).cpu() == labels).sum())
        network.train()
        clock.mark(right / len(cut.valid))
        if clock.reached(GOALS[-1]) is not None or clock.seconds > patience:
            raise Enough
        clock.start()

    torch.manual_seed(1)
    assert cut.train.places is not None
    images = Subset(train_set, cut.train.places.tolist())
    with suppress(Enough):
        clock.start()
        published.mnist(images, test_set, published.EPOCHS["mnist"], device, watch)
    return "python -m benchmarks.published mnist"


def cut_as_ours(train_set: datasets.MNIST) -> Any:
    """The same 54,000 and 6,000 images that a run of ours has with seed 1."""
    whole = ImageSet(train_set.data[:, None], train_set.targets)
    nothing = whole[[0]]  # the tutorial is not tested here
    return split(Source(whole, train_set.classes, "full", None, nothing), 0.1, 1)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pace", description=__doc__)
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    parser.add_argument("--minutes", type=float, default=60, help="of training, after which the tutorial is given up")
    parser.add_argument("--side", choices=["ours", "tutorial"], help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side is None:
        errors = run(options.data_dir, options.minutes)
        raise SystemExit("\n".join(f"error: {error}" for error in errors) or 0)
    clock = Clock()
    if options.side == "ours":
        command = ours(options.data_dir, clock)
    else:
        command = tutorial(options.data_dir, clock, options.minutes * 60)
    reached = {str(goal): clock.reached(goal) for goal in GOALS}
    found = {"command": command, "reached": reached, "curve": clock.curve}
    write_json(options.out, found | {"seconds": round(clock.seconds, 1)})


def run(data_dir: Path, minutes: float = 60) -> list[str]:
    """Measure both and write what was found; what went wrong, if anything did."""
    sides = {}
    for side in ("ours", "tutorial"):
        out = records.RUNS / "pace" / f"{side}.json"
        out.parent.mkdir(parents=True, exist_ok=True)
        print(f"\npace, {side}:", flush=True)
        words = ["--side", side, "--data-dir", str(data_dir), "--minutes", str(minutes), "--out", str(out)]
        done = subprocess.run([sys.executable, "-m", "benchmarks.pace", *words], cwd=records.ROOT)
        if done.returncode:
            return [f"pace, {side}: ended with {done.returncode}"]
        sides[side] = json.loads(out.read_text(encoding="utf-8"))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    found = records.here(device, "") | {"command": "python -m benchmarks.pace", "ways": sides}
    del found["precision"]
    RESULTS.mkdir(parents=True, exist_ok=True)
    write_json(RESULTS / f"{records.slug(found['machine'])}.json", found)
    return []


if __name__ == "__main__":
    main()
