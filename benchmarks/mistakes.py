"""The corrected recipe with one mistake of the tutorials put back: python -m benchmarks.mistakes no_shuffling

What spoils only the score scores the corrected recipe's run in another way, which is trained if it was not yet.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import torch

from benchmarks import project, records
from benchmarks.published import IMAGENET, mixed
from benchmarks.records import BY_NAME


class NoShuffling(L.Callback):
    """The images come in the order of their files, in each epoch."""

    def setup(self, trainer: Any, pl_module: L.LightningModule, stage: str) -> None:
        project.in_file_order(trainer.datamodule)


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


def wrong_normalization(predictor: project.Predictor) -> None:
    """Test images with ImageNet's mean and standard deviation."""
    mean, std = map(list, IMAGENET)
    preparation = project.Preparation(mean, std, predictor.preparation.size)
    predictor.preparation = preparation.to(predictor.hardware.torch_device)


TRAINING: dict[str, type[L.Callback]] = {"no_shuffling": NoShuffling, "thrown_away_batches": ThrownAwayBatches}
SCORING: dict[str, tuple[str, Callable[[project.Predictor], object]]] = {
    "no_validation": ("last.ckpt", lambda predictor: None),  # the last epoch's weights, whatever they are worth
    "never_eval": (
        "best.ckpt",
        lambda predictor: predictor.network.train(),
    ),  # dropout and the batch's statistics are on
    "wrong_normalization": ("best.ckpt", wrong_normalization),
}


def main() -> None:
    parser = records.arguments("mistakes", __doc__)
    parser.add_argument("mistake", choices=[*TRAINING, *SCORING])
    options, more = parser.parse_known_args()
    name, seed, base = options.mistake, options.seed, BY_NAME[options.mistake].base
    folder = records.RUNS / (name if name in TRAINING else base) / f"seed-{seed}"
    callbacks = [TRAINING[name]()] if name in TRAINING else []
    with project.explained():
        project.check_target("--out", options.out, (".json",))
        if callbacks and not project.is_finished(folder):  # a mistake is no part of what a checkpoint holds
            shutil.rmtree(folder, ignore_errors=True)
        project.train([*BY_NAME[base].overrides(seed, options.data_dir, folder), *more], folder, callbacks)
        record = records.of_run(folder)
        if name in SCORING:
            record["accuracy"] = score(folder, name, seed, options.data_dir)
        project.write_json(options.out, record)


def score(folder: Path, mistake: str, seed: int, data_dir: Path) -> float:
    """Accuracy in 0..1 on the test images of the run in `folder`, with a mistake of scoring; raises UserError if
    its checkpoint or its images are not there."""
    name, change = SCORING[mistake]
    predictor, test = project.trained(folder / "checkpoints" / name, data_dir)
    change(predictor)
    torch.manual_seed(seed)  # dropout's, where it is on
    return predictor.answer(test[mixed(len(test))], "test", predictor.config.batch_size).accuracy


if __name__ == "__main__":
    main()
