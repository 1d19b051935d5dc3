"""A checkpoint scored on labelled images: those of its training, or others that fit its network."""

from __future__ import annotations

from rich.text import Text

from src.config.errors import UserError
from src.config.schema import EvalConfig
from src.data.images import checksum, split
from src.model.build import build_metrics, read_images
from src.model.hardware import keep_freed_memory
from src.model.predictor import Predictor
from src.model.saved import load
from src.results.screen import describe_origin, show_confusion, show_facts, show_note

CHANGED = (
    "These are other images than those of the training. If they are the same\n"
    "       data set, changed since, the network may have learned from some of them."
)


def score(config: EvalConfig) -> None:
    """Score one split; UserError if it doesn't fit the network, or has changed and no other images are asked for."""
    saved = load(config.checkpoint)
    run, about, predictor = saved.config, saved.about, Predictor.of(saved, config.device, config.precision)
    hardware = predictor.hardware
    if hardware.accelerator == "cpu":
        keep_freed_memory()
    dataset, data_dir = config.dataset or run.dataset, config.data_dir or run.data_dir
    source = read_images(dataset, data_dir)
    sizes = ("channels", source.train.shape[1], about.channels), ("classes", len(source.classes), len(about.classes))
    for what, given, taken in sizes:
        if given != taken:
            network = f"the checkpoint's network takes {taken}. It was trained on {about.dataset}."
            raise UserError(f"these images have {given} {what}, {network}")
    splits = split(source, dataset.valid_fraction, run.seed)
    changed = checksum(splits) != about.images.sha256
    if changed and not (config.dataset or config.data_dir):
        raise UserError(
            f"data_dir={data_dir}: the images of {about.dataset} have changed since {saved.path} was trained on "
            "them, so some that it has learned from may be scored. dataset= or data_dir= scores them as other images."
        )
    predictor.classes = splits.classes  # the same number, perhaps by other names
    answers = predictor.answer(splits.named(config.split), config.split, config.batch_size or run.batch_size)
    metrics = build_metrics(run, len(splits.classes))
    show_note(hardware.note)
    show_note(CHANGED if changed else None)
    show_facts(
        {
            "scored on": f"{config.split} split, {len(answers):,} {describe_origin(dataset.name, splits.origin)}",
            "accuracy": Text(str(answers.accuracy), "bold"),
            "loss": str(answers.loss),
            **{name: str(float(metric(answers.logits, answers.labels))) for name, metric in metrics.items()},
            "device": f"{hardware.accelerator}, {hardware.precision}",
        }
    )
    show_confusion(answers)
