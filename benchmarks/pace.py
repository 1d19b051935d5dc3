"""Seconds to 98 % and 99 % of MNIST's validation images, ours and the first tutorial's: python -m benchmarks.pace

Both learn from the same 54,000 images and are scored on the same 6,000 ten times an epoch, one after the other, each in
a process of its own, with one seed. The clock runs in training only.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
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
from src.config.cli import end, launch
from src.config.errors import RunError, Stopped
from src.config.files import write_json
from src.config.schema import TrainConfig
from src.data.images import ImageSet, Source, split
from src.data.preparation import Preparation
from src.model.hardware import wait
from src.sweeps.jobs import follow
from src.train import train

GOALS = (0.98, 0.99)
SIDES = ("ours", "tutorial")
RESULTS = records.RECORDS.parent / "pace"
RECIPE = ["experiment=mnist", "trainer.max_epochs=1", "trainer.val_check_interval=0.1"]
EVERY = 5400  # images between two scores of the tutorial's network, a tenth of an epoch as ours


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
    """Train with the recipe until the last goal; gives the command."""
    folder = records.RUNS / "pace" / "ours"
    shutil.rmtree(folder, ignore_errors=True)  # the clock begins with the run
    more = ["seed=1", "test=false", "report=false", "callbacks=none", "dataset.source=full"]
    sys.argv[1:] = [*RECIPE, *more, f"data_dir={data_dir}", f"hydra.run.dir={folder}"]
    launch("train", TrainConfig, partial(train, callbacks=[Pace(clock)]))
    return " ".join(["python -m src.train", *RECIPE])


def tutorial(data_dir: Path, clock: Clock, patience: float) -> str:
    """Train as the tutorial does until the last goal, or for `patience` seconds; gives the command."""
    train_set, _ = published.images_of("mnist", data_dir)
    cut = cut_as_ours(train_set)
    assert cut.train.places is not None
    assert cut.valid.places is not None
    preparation = Preparation([0.5], [0.5], 227)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    next_stop = EVERY

    def watch(network: nn.Module, seen: int) -> None:
        nonlocal next_stop
        if seen < next_stop:
            return
        next_stop += EVERY
        wait(device)
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
    learned, validated = (Subset(train_set, part.places.tolist()) for part in (cut.train, cut.valid))
    with suppress(Enough):
        clock.start()
        published.mnist(learned, validated, published.EPOCHS["mnist"], device, watch)
    return "python -m benchmarks.published mnist"


def cut_as_ours(train_set: datasets.MNIST) -> Any:
    """The same 54,000 and 6,000 images that a run of ours has with seed 1."""
    whole = ImageSet(train_set.data[:, None], train_set.targets)
    nothing = whole[[0]]  # the tutorial is not tested here
    return split(Source(whole, train_set.classes, "full", None, nothing), 0.1, 1)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pace", description=__doc__)
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    parser.add_argument("--minutes", type=float, default=10, help="of training, after which the tutorial is given up")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        measure(options.side, options.data_dir, options.minutes)
        return
    try:
        run(options.data_dir, options.minutes)
    except RunError as error:
        end(error, 1)
    except Stopped as stop:
        end(stop, stop.code)


def measure(side: str, data_dir: Path, minutes: float) -> None:
    """One side, in this process; what was found lies beside the run."""
    clock = Clock()
    with records.explained():
        command = ours(data_dir, clock) if side == "ours" else tutorial(data_dir, clock, minutes * 60)
    reached = {str(goal): clock.reached(goal) for goal in GOALS}
    found = {"command": command, "reached": reached, "curve": clock.curve, "seconds": round(clock.seconds, 1)}
    write_json(found_of(side), found)


def found_of(side: str) -> Path:
    return records.RUNS / "pace" / f"{side}.json"


def run(data_dir: Path, minutes: float = 10) -> None:
    """Measure what was not yet, and write it.

    Raises:
        RunError: a side failed.
        Stopped: this process was asked to stop; so was the side.
    """
    for side in SIDES:
        found_of(side).parent.mkdir(parents=True, exist_ok=True)
        if not found_of(side).exists():
            print(f"\npace, {side}:", flush=True)
            words = ["--side", side, "--data-dir", str(data_dir), "--minutes", str(minutes)]
            follow([sys.executable, "-m", "benchmarks.pace", *words], os.environ)
    sides = {side: json.loads(found_of(side).read_text(encoding="utf-8")) for side in SIDES}
    found = records.here("cuda" if torch.cuda.is_available() else "cpu", "") | {"seed": 1, "ways": sides}
    RESULTS.mkdir(parents=True, exist_ok=True)
    write_json(RESULTS / f"{records.slug(found['machine'])}.json", found)


if __name__ == "__main__":
    main()
