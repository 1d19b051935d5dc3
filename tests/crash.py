"""Kill runs at random instants, let the same command go on, and compare with a run that nobody killed.

    python -m tests.crash --kills 20
    python -m tests.crash callbacks=mine            # of one configuration: does it go on exactly?

A killed process is killed with SIGKILL: nothing of it runs any more. What must be equal, byte for byte: weights,
optimizer, scheduler and averages of the last checkpoint, the best checkpoint, metrics.csv, the scores, and the curves
that TensorBoard shows.
"""

from __future__ import annotations

import argparse
import importlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before torch: processes are forked off this one
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import src.train
from src.model import build as experiment
from src.model.classifier import Classifier
from src.results import page
from src.training import saving
from src.training.logs import CSVLogger
from tests.conftest import write_folder

for module in ("training.failures", "training.resume", "training.trainer", "results.page"):
    importlib.import_module(f"src.{module}")  # once, for all processes that are forked

NARROW = ["model.widths=[4,4,4,4,4]", "model.hidden=16"]
# each of the two pictures costs 0.2 s
LOGGED = ["trainer.log_every_n_steps=2", "callbacks.confusion_matrix=null", "callbacks.mistakes=null"]
EPOCHS = 3


@dataclass(frozen=True)
class Case:
    name: str
    options: list[str]
    processes: int = 1


def case(model: str, optimizer: str, scheduler: str, average: bool, accumulate: int, workers: int, *more: str) -> Case:
    average_options = ["callbacks=weight_averaging", "callbacks.weight_averaging.decay=0.9"] if average else []
    options = [
        *(f"model={model}", f"optimizer={optimizer}", f"scheduler={scheduler}", *average_options),
        *(f"trainer.accumulate_grad_batches={accumulate}", f"num_workers={workers}", *more),
    ]
    processes = 2 if "devices=2" in more else 1
    words = ["average"] if average else []
    return Case(
        " ".join([model, optimizer, scheduler, *words, f"x{accumulate}", f"workers {workers}", *more]),
        options,
        processes,
    )


STOPPED = ["callbacks=[early_stopping,weight_averaging]", "callbacks.early_stopping.patience=1"]
PHOTOS = ["dataset.in_memory=false", "dataset/augmentation=[random_resized_crop,flip]", "callbacks.checkpoint_steps=3"]
JOINED = ["callbacks.keep_optimizer=false"]
# each value stands in two cases at least
CASES = [
    case("alexnet", "adamw", "one_cycle", False, 1, 0, "callbacks.checkpoint_steps=3", *JOINED),
    case("alexnet_bn", "sgd", "one_cycle", True, 4, 0, "trainer.val_check_interval=0.5"),
    case("alexnet_bn", "adamw", "cosine", True, 1, 2, *STOPPED, "trainer.min_epochs=3"),
    case("alexnet", "sgd", "cosine", False, 4, 2, "trainer.max_steps=8", "callbacks.checkpoint_steps=1"),
    case("alexnet_bn", "adamw", "one_cycle", True, 1, 2, "devices=2", "callbacks.checkpoint_steps=3", *JOINED),
    case("alexnet", "sgd", "one_cycle", False, 4, 0, "devices=2", "callbacks.checkpoint_steps=1"),
    case("alexnet", "adamw", "cosine", False, 1, 0, *PHOTOS),
    case("alexnet", "adamw", "cosine", False, 1, 2, *PHOTOS),
    case("alexnet_bn", "adamw", "cosine", False, 1, 0, "devices=2", *PHOTOS),
    case("alexnet_bn", "adamw", "cosine", False, 1, 2, "devices=2", *PHOTOS),
]


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def nothing(*arguments: Any, **options: Any) -> None:
    return None


def _before(owner: Any, name: str, number: int, last_words: Callable[..., object] = nothing) -> None:
    """Die in the call of `owner.name` with this number, counted from 0."""
    original, calls = getattr(owner, name), iter(range(sys.maxsize))

    def counted(*arguments: Any, **options: Any) -> Any:
        if next(calls) == number:
            last_words(*arguments, **options)
            die()
        return original(*arguments, **options)

    setattr(owner, name, counted)


def in_a_step(chance: random.Random) -> None:
    _before(Classifier, "on_before_optimizer_step", chance.randrange(20))


def between_steps(chance: random.Random) -> None:
    _before(Classifier, "on_train_batch_start", chance.randrange(36))


def in_validation(chance: random.Random) -> None:
    _before(Classifier, "validation_step", chance.randrange(6))


def at_the_end_of_an_epoch(chance: random.Random) -> None:
    _before(Classifier, "log_epoch", chance.randrange(3))


def in_a_checkpoint(chance: random.Random) -> None:
    """A part of the file is written, then nothing."""
    share, save = chance.random(), torch.save

    def write_a_part(content: Any, file: Any) -> None:
        whole = io.BytesIO()
        save(content, whole)
        file.write(whole.getvalue()[: int(share * whole.tell())])
        file.flush()

    _before(saving.torch, "save", chance.randrange(6), write_a_part)


def between_two_renames(chance: random.Random) -> None:
    before = saving.previous
    _before(saving, "previous", chance.randrange(4), lambda path: path.replace(before(path)))


def in_a_row_of_the_table(chance: random.Random) -> None:
    """Half a line is in the file."""
    _before(CSVLogger, "log_metrics", chance.randrange(12), _tear)


def _tear(logger: CSVLogger, *arguments: Any, **options: Any) -> None:
    if logger.path.exists():
        with logger.path.open("a") as file:
            file.write("1,7,0.33")


def in_the_test(chance: random.Random) -> None:
    _before(Classifier, "test_step", chance.randrange(2))


def while_results_are_written(chance: random.Random) -> None:
    _before(page, "save_summary", 0)


def before_the_first_step(chance: random.Random) -> None:
    _before(experiment, "build_classifier", 0)


def at_any_time(chance: random.Random) -> None:
    delay = chance.uniform(0.0, 2.5)
    timer = threading.Timer(delay, die)
    timer.daemon = True
    timer.start()


PLACES = [
    in_a_step,
    between_steps,
    in_validation,
    at_the_end_of_an_epoch,
    in_a_checkpoint,
    between_two_renames,
    in_a_row_of_the_table,
    in_the_test,
    while_results_are_written,
    before_the_first_step,
    at_any_time,
]


def attempt(
    arguments: list[str], log: Path, place: Callable[[random.Random], None] | None, chance: random.Random
) -> int:
    """Run the command in a process forked off this one; gives its exit code, negative for a signal."""
    number = os.fork()
    if number == 0:
        os.setpgid(0, 0)
        with log.open("a") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        code = 1
        try:
            if place is not None:
                place(chance)
            sys.argv = ["train", *arguments]
            src.train.main()
            code = 0
        except SystemExit as exit_:
            code = int(exit_.code or 0)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    _, status = os.waitpid(number, 0)
    return os.waitstatus_to_exitcode(status)


def attempt_apart(arguments: list[str], log: Path, delay: float | None, victim: str) -> int:
    """The same with several processes: kill the first, the second or both `delay` seconds after training began."""
    command = [sys.executable, "-m", "src.train", *arguments]
    with log.open("a") as file:
        file.write("\nSTART\n")
        file.flush()
        process = subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True)
        if delay is not None:
            while process.poll() is None and "train loss" not in log.read_text().rpartition("START")[2]:
                time.sleep(0.05)
            time.sleep(delay)
            children = [int(text) for text in _children(process.pid)]
            victims = {"first": [process.pid], "second": children[:1], "both": [process.pid, *children]}[victim]
            for number in victims:
                with_suppressed(os.kill, number, signal.SIGKILL)
        try:
            code = process.wait(timeout=120)
        finally:
            with_suppressed(os.killpg, process.pid, signal.SIGKILL)
    return code


def with_suppressed(call: Callable[..., object], *arguments: Any) -> None:
    try:
        call(*arguments)
    except ProcessLookupError:
        return


def _children(number: int) -> list[str]:
    path = Path(f"/proc/{number}/task/{number}/children")
    return path.read_text().split() if path.exists() else []


def arguments_of(one: Case, images: Path, run: Path) -> list[str]:
    """Made images and a narrow AlexNet, where the case names no others."""
    chosen = {text.lstrip("+").partition("=")[0] for text in one.options}
    arguments = [f"trainer.max_epochs={EPOCHS}", "batch_size=8", "device=cpu", *LOGGED]
    arguments += ["callbacks.keep_optimizer=true"]  # it is compared, where the case doesn't say otherwise
    if not {"dataset", "experiment"} & chosen:
        arguments += ["dataset=image_folder", f"data_dir={images}"]
        arguments += [] if "dataset/augmentation" in chosen else ["dataset/augmentation=affine"]
    if not {"model", "experiment"} & chosen or any(text.startswith("model=alexnet") for text in one.options):
        arguments += NARROW
    return [*arguments, *one.options, f"hydra.run.dir={run}"]


def crash(one: Case, kills: int, images: Path, folder: Path, seed: int) -> Counter[str]:
    """Run `one` whole, then again with `kills` kills; gives how often each place was hit."""
    folder.mkdir()
    chance, log, hits = random.Random(seed), folder / "log", Counter[str]()
    whole, killed = folder / "whole", folder / "killed"
    if one.processes == 1:
        code = attempt(arguments_of(one, images, whole), log, None, chance)
    else:
        code = attempt_apart(arguments_of(one, images, whole), log, None, "")
    if code != 0:
        raise SystemExit(f"{one.name}: the unbroken run ended with {code}:\n{log.read_text()[-3000:]}")
    left, quiet = kills, 0
    places = chance.sample(PLACES, len(PLACES))
    while not (killed / "results.json").exists() or left > 0:
        if (killed / "results.json").exists():
            compare(whole, killed)  # and once more from the start
            shutil.rmtree(killed)
        if one.processes == 1:
            place = places[(kills - left + quiet) % len(places)] if left > 0 else None
            code = attempt(arguments_of(one, images, killed), log, place, chance)
            name = place.__name__ if place else ""
        else:
            victim = chance.choice(["first", "second", "both"])
            delay = chance.uniform(0.0, 1.2) if left > 0 else None
            code = attempt_apart(arguments_of(one, images, killed), log, delay, victim)
            name = f"the_{victim}_of_two_processes"
        finished = (killed / "results.json").exists()
        # with one of two processes dead, the other ends by itself, with a sentence, or is killed by Lightning
        said = "another process of this run died" in log.read_text().rpartition("START")[2]
        if left > 0 and (code == -signal.SIGKILL or (one.processes > 1 and code == 1 and said)):
            hits[name] += 1
            left -= 1
        elif code != 0 or not finished:
            raise SystemExit(f"{one.name}: going on ended with {code}:\n{log.read_text()[-3000:]}")
        else:
            quiet += 1  # it was through before the kill
    compare(whole, killed)
    return hits


def compare(whole: Path, killed: Path) -> None:
    """Raise SystemExit if anything that must be equal is not."""
    for name in ("last.ckpt", "best.ckpt"):
        one, other = (torch.load(run / "checkpoints" / name, weights_only=True) for run in (whole, killed))
        for content in (one, other):
            _forget(content)
        if difference := _difference(one, other, name):
            raise SystemExit(f"{killed} is not as the run that nobody killed: {difference}")
    for name in ("metrics.csv", "steps.csv"):
        one, other = (run / name for run in (whole, killed))
        if one.exists() != other.exists() or (one.exists() and one.read_bytes() != other.read_bytes()):
            raise SystemExit(f"{killed}: {name} differs")
    one, other = (json.loads((run / "results.json").read_text()) for run in (whole, killed))
    for part in ("val", "test"):
        if one[part] != other[part]:
            raise SystemExit(f"{killed}: {part} {one[part]} and {other[part]}")
    if (found := curves(killed)) != curves(whole):
        raise SystemExit(f"{killed}: TensorBoard shows other curves")
    for tag, points in found.items():
        steps = [step for step, _ in points]
        if steps != sorted(steps):
            raise SystemExit(f"{killed}: the curve {tag} jumps back: {steps}")
    left = [path.name for path in (killed / "checkpoints").iterdir()]
    if sorted(left) != ["best.ckpt", "last.ckpt"]:
        raise SystemExit(f"{killed}: left behind: {left}")


def curves(run: Path) -> dict[str, list[tuple[int, float]]]:
    if not (run / "tensorboard").exists():
        return {}
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    tags = [tag for tag in events.Tags()["scalars"] if tag != "train/images_per_second"]
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags}


def _forget(content: dict[str, Any]) -> None:
    """Leave out what tells of times, files and commands."""
    for state in (content, *content.get("callbacks", {}).values()):
        for key in ("about", "logs", "seconds", "images", "interruptions"):
            state.pop(key, None)


def _difference(one: Any, other: Any, where: str) -> str | None:
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        same = one.dtype == other.dtype and one.shape == other.shape
        same = same and one.contiguous().numpy().tobytes() == other.contiguous().numpy().tobytes()
        return None if same else f"{where} differs"
    if isinstance(one, dict) and isinstance(other, dict):
        if one.keys() != other.keys():
            return f"{where} has other keys: {sorted(map(str, one.keys() ^ other.keys()))}"
        return next(filter(None, (_difference(one[key], other[key], f"{where}.{key}") for key in one)), None)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        return next(
            filter(None, (_difference(*pair, f"{where}[{n}]") for n, pair in enumerate(zip(one, other, strict=True)))),
            None,
        )
    return None if one == other else f"{where}: {one} and {other}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, help="20, or 6 of a configuration that is named")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cases", default=",".join(str(number) for number in range(len(CASES))))
    parser.add_argument("--config-dir", help="of own options, as of a run")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="a configuration, instead of the cases")
    chosen = parser.parse_intermixed_args()
    cases = [CASES[int(text)] for text in chosen.cases.split(",")]
    if named := chosen.overrides:
        cases = [Case(" ".join(named), ["--config-dir", chosen.config_dir, *named] if chosen.config_dir else named)]
    kills = chosen.kills or (6 if named else 20)
    started, hits = time.monotonic(), Counter[str]()
    with tempfile.TemporaryDirectory() as temporary:
        images = write_folder(Path(temporary, "images"), classes=2, count=60)
        weights = [1 if one.processes > 1 else 2 for one in cases]  # starting two takes longer
        shares = [kills * weight // sum(weights) for weight in weights]
        shares[0] += kills - sum(shares)
        for number, (one, share) in enumerate(zip(cases, shares, strict=True)):
            began = time.monotonic()
            found = crash(one, share, images, Path(temporary, str(number)), chosen.seed + number)
            print(
                f"equal after {sum(found.values()):3} kills, {time.monotonic() - began:4.0f} s: {one.name}", flush=True
            )
            hits += found
    for place, count in sorted(hits.items()):
        print(f"{count:5}  {place.replace('_', ' ')}")
    print(f"{sum(hits.values())} kills survived in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
