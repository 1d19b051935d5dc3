"""Score a checkpoint, from its file alone: python -m src.eval checkpoint=PATH"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.config.cli import importing, launch
from src.config.errors import UserError
from src.config.process import Interrupts
from src.config.schema import EvalConfig, TrainConfig

if TYPE_CHECKING:
    from src.model.saved import About


def evaluate(config: EvalConfig, folder: Path) -> float:
    with Interrupts() as interrupts:
        return _evaluate(config, interrupts)


def _evaluate(config: EvalConfig, interrupts: Interrupts) -> float:
    """Score the checkpoint on one split, print what it got right, and give the accuracy."""
    # a config that was refused must not wait for torch
    with importing(), interrupts.waiting():
        from src.data.images import split
        from src.model import build as experiment
        from src.model import saved as checkpoint
        from src.model.hardware import pick_hardware
        from src.results import screen
        from src.training import trainer as training
        from src.training.callbacks.answers import RecordAnswers

    saved = checkpoint.load(config.checkpoint)
    run = as_trained(config, saved.config)
    hardware = pick_hardware(config.device, config.precision or saved.about.precision)
    images = experiment.read_images(run.dataset, run.data_dir)
    refuse_misfit(saved.about, images.train.shape[1], images.classes)
    splits = split(images, run.dataset.valid_fraction, run.seed)

    datamodule = experiment.build_datamodule(run, splits, scored=config.split)
    classifier = experiment.build_classifier(run, hardware, saved.about)
    experiment.load_weights(classifier.network, saved)
    recorder = RecordAnswers()
    trainer = training.build_scorer(hardware, recorder)
    scores = trainer.test(classifier, datamodule, verbose=False)[0]
    assert recorder.answers is not None
    screen.show_scores(config, run, splits, hardware, scores, recorder.answers.matrix)
    return scores["test/acc"]


def as_trained(config: EvalConfig, trained: TrainConfig) -> TrainConfig:
    """The config of the training run, with what the evaluation asks otherwise.

    Other images are prepared as the training images were.
    """
    dataset: Any = trained.dataset
    if config.dataset is not None:
        prepared = {"image_size": dataset.image_size, "mean": dataset.mean, "std": dataset.std}
        dataset = config.dataset.model_copy(update=prepared)
    changes = {"dataset": dataset, "num_workers": config.num_workers}
    changes |= {"batch_size": config.batch_size} if config.batch_size else {}
    changes |= {"data_dir": config.data_dir} if config.data_dir else {}
    return trained.model_copy(update=changes)


def refuse_misfit(about: About, channels: int, classes: list[str]) -> None:
    """A network scores only images of the channels and classes that it was built for."""
    if channels != about.channels:
        raise UserError(
            f"these images have {channels} channels, the checkpoint's network takes {about.channels}. "
            f"It was trained on {about.dataset}."
        )
    if len(classes) != len(about.classes):
        raise UserError(
            f"these images have {len(classes)} classes, the checkpoint's network {len(about.classes)}. "
            f"It was trained on {about.dataset}."
        )


def main() -> None:
    launch("eval", EvalConfig, lambda request: evaluate(request.config, request.folder))


if __name__ == "__main__":
    main()
