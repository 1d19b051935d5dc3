"""The corrected recipe with one mistake of the tutorials put back: python -m benchmarks.mistakes no_shuffling

What spoils the training is a callback; what spoils only the score is another way of scoring the corrected recipe's run,
which is trained if it was not yet.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch

from benchmarks import records
from benchmarks.published import IMAGENET, mixed
from benchmarks.records import explained
from benchmarks.rows import BASES, find
from src.config.cli import launch
from src.config.files import check_target, write_json
from src.config.folder import is_finished
from src.config.schema import TrainConfig
from src.data.preparation import Preparation
from src.model import build as experiment
from src.model import saved as checkpoint
from src.model.predictor import Predictor
from src.train import train


class NoShuffling(L.Callback):
    """The images come in the order of their files, in each epoch."""

    def setup(self, trainer: Any, pl_module: L.LightningModule, stage: str) -> None:
        datamodule = trainer.datamodule
        datamodule.train_dataloader = lambda: datamodule._loader(datamodule._placed.train, None)


class ThrownAwayBatches(L.Callback):
    """Gradients are zeroed at each batch, and a step is taken on every fourth: the other three teach nothing."""

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        step = pl_module.optimizer_step

        def every_fourth(epoch: int, batch: int, optimizer: Any, closure: Callable[[], Any]) -> None:
            if (batch + 1) % 4:
                closure()
            else:
                step(epoch, batch, optimizer, closure)

        pl_module.optimizer_step = every_fourth  # type: ignore[method-assign, assignment]


def never_eval(predictor: Predictor) -> None:
    """Dropout is on, and batch norm takes the statistics of the batch that is scored."""
    predictor.network.train()


def wrong_normalization(predictor: Predictor) -> None:
    """Test images with ImageNet's mean and standard deviation."""
    mean, std = (list(values) for values in IMAGENET)
    preparation = Preparation(mean, std, predictor.preparation.size)
    predictor.preparation = preparation.to(predictor.hardware.torch_device)


TRAINING: dict[str, type[L.Callback]] = {"no_shuffling": NoShuffling, "thrown_away_batches": ThrownAwayBatches}
SCORING: dict[str, tuple[str, Callable[[Predictor], object]]] = {
    "no_validation": ("last.ckpt", lambda predictor: None),  # the last epoch's weights, whatever they are worth
    "never_eval": ("best.ckpt", never_eval),
    "wrong_normalization": ("best.ckpt", wrong_normalization),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mistakes", description=__doc__)
    parser.add_argument("mistake", choices=[*TRAINING, *SCORING])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    parser.add_argument("--out", type=Path, default=Path("mistake.json"), help="the file for what came of it")
    options, more = parser.parse_known_args()
    name, seed = options.mistake, options.seed
    with explained():
        check_target("--out", options.out, (".json",))
    folder = records.RUNS / (name if name in TRAINING else BASES[name]) / f"seed-{seed}"
    callbacks = [TRAINING[name]()] if name in TRAINING else []
    if callbacks and not is_finished(folder):  # a mistake is no part of what a checkpoint holds
        shutil.rmtree(folder, ignore_errors=True)
    recipe = find(BASES[name]).overrides(seed, options.data_dir, folder)
    sys.argv[1:] = [*recipe, *more]
    launch("train", TrainConfig, partial(train, callbacks=callbacks))
    record = records.of_run(folder)
    if name in SCORING:
        with explained():
            record["accuracy"] = score(folder, name, options.data_dir)
    write_json(options.out, record)


def score(folder: Path, mistake: str, data_dir: Path) -> float:
    """Accuracy in 0..1 on the test images of the run in `folder`, with a mistake of scoring.

    Raises:
        UserError: its checkpoint or its images are not there.
    """
    name, change = SCORING[mistake]
    saved = checkpoint.load(folder / "checkpoints" / name)
    test = experiment.images_of(saved, str(data_dir)).test
    predictor = Predictor.of(saved)
    change(predictor)
    torch.manual_seed(saved.config.seed)  # dropout's, where it is on
    return predictor.answer(test[mixed(len(test))], "test", saved.config.batch_size).accuracy


if __name__ == "__main__":
    main()
