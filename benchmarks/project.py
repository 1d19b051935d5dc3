"""All that the benchmarks take from src/, so that a change there is followed here alone.

It imports torch: the ways of training import it only where it is theirs, for the time to their first step is measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
import torch

from src.config.check import check
from src.config.cli import end
from src.config.compose import compose, declared
from src.config.errors import RunError, Stopped, UserError
from src.config.files import check_target, write_json, write_text
from src.config.folder import is_finished
from src.config.process import keep_freed_memory
from src.config.schema import TrainConfig
from src.data.batches import step_seed
from src.data.datamodule import fits
from src.data.decoding import decode
from src.data.preparation import Preparation
from src.data.splitting import stratified
from src.model import build, saved
from src.model import provenance as made_by
from src.model.hardware import pick_hardware
from src.model.parameters import trainable
from src.model.predictor import Predictor
from src.sweeps.jobs import follow
from src.training import run, session  # noqa: F401  which a run would import later, and slower

__all__ = ["Predictor", "Preparation", "RunError", "UserError", "check_target", "decode", "follow"]
__all__ += ["is_finished", "keep_freed_memory", "pick_hardware", "stratified", "write_json", "write_text"]


@contextmanager
def explained(advice: str = "") -> Iterator[None]:
    """Say in a sentence what went wrong, and leave with the exit code that src.train has for it."""
    try:
        yield
    except (UserError, RunError) as error:
        end(error, 2 if isinstance(error, UserError) else 1)
    except Stopped as stop:
        end(Stopped(stop.number, f"{stop} {advice}".strip()), stop.code)


def configure(overrides: list[str]) -> TrainConfig:
    """The checked config of `python -m src.train` with these overrides."""
    return check(compose("train", declared(overrides)).values, TrainConfig)


def train(overrides: list[str], folder: Path, callbacks: Sequence[L.Callback]) -> None:
    """What `python -m src.train` does, with more callbacks."""
    command = " ".join(["python -m src.train", *overrides])
    run.train(configure(overrides), folder, command=command, callbacks=callbacks)


class PlainRun:
    """A run of src.train without its Trainer: its batches, network and optimizer."""

    def __init__(self, overrides: list[str]) -> None:
        config, splits = build.prepared(configure(overrides))
        self.hardware = pick_hardware(config.device, config.precision)
        self.device, self.seed = self.hardware.torch_device, config.seed
        about = saved.About.of(config, splits, self.hardware.precision, "")
        classifier = build.build_classifier(config, self.hardware, about, splits)
        self.network = classifier.network.to(self.device)
        self.optimizer = classifier._optimizer(trainable(classifier))
        self.scheduler = classifier._scheduler(self.optimizer, 100_000)
        self.datamodule = build.build_datamodule(config, splits)
        if self.device.type == "cuda" and fits(splits.nbytes, self.device):
            self.datamodule._placed = splits.to(self.device)

    def batches(self, training: bool) -> Iterator[Any]:
        """Batches without end, as the network sees them; for training drawn and augmented as in a run."""
        loader = self.datamodule.train_dataloader() if training else self.datamodule.test_dataloader()
        epoch, step = 0, 0
        while True:
            loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
            for images, labels in loader:
                images, labels = images.to(self.device), labels.to(self.device)
                if training:
                    seed = step_seed(self.seed, step, 0, "augmentation")
                    generator = torch.Generator(self.device).manual_seed(seed)
                    images, labels = self.datamodule.augmentation(images, labels, generator)
                    torch.manual_seed(step_seed(self.seed, step, 0, "dropout"))
                yield self.datamodule.prepare(images), labels
                step += 1
            epoch += 1


def in_file_order(datamodule: Any) -> None:
    """Let training take the images in the order of their files, in each epoch."""
    datamodule.train_dataloader = lambda: datamodule._loader(datamodule._placed.train, None)


def score_forever(classifier: Any, datamodule: Any) -> None:
    """Score the test images again and again, as src.eval does."""
    config = check(classifier.about.config, TrainConfig)
    hardware = pick_hardware(config.device, config.precision)
    predictor = Predictor(classifier.network, config, classifier.about, hardware)
    while True:
        predictor.answer(datamodule.splits.test, "test", config.batch_size, config.num_workers)


def trained(path: Path, data_dir: Path) -> tuple[Predictor, Any]:
    """The predictor of a checkpoint, and the test images of its run; raises UserError where they are not there."""
    checkpoint = saved.load(path)
    return Predictor.of(checkpoint), build.images_of(checkpoint, str(data_dir)).test


def provenance() -> dict[str, Any]:
    """The `machine`, the `versions` and the `git` revision, as results.json has them."""
    revision = made_by.git_revision()
    machine = made_by.machine().model_dump()
    return {"machine": machine, "versions": made_by.versions(), "git": revision and revision.model_dump()}
