"""A checkpoint scored on labelled images: those of its training, or others that fit its network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from textwrap import shorten

import torch
from rich.text import Text
from torchmetrics import Metric

from src.config.errors import UserError
from src.config.process import keep_freed_memory
from src.config.schema import EvalConfig
from src.data.images import checksum
from src.data.splitting import split
from src.model.answers import Answers
from src.model.build import build_metrics, of_checkpoint, read_images
from src.model.predictor import Predictor
from src.model.saved import load
from src.results import predictions
from src.results.outcome import Validation
from src.results.screen import describe_origin, digits, show_confusion, show_facts, show_note

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
    dataset, data_dir = config.dataset or of_checkpoint(run.dataset), config.data_dir or run.data_dir
    if "fit" not in dataset.model_fields_set:
        dataset = dataset.model_copy(update={"fit": run.dataset.fit})
    source = read_images(dataset, data_dir)
    if (channels := source.train.shape[1]) != about.channels:
        theirs = f"the checkpoint's network takes {about.channels}. It was trained on {about.dataset}"
        raise UserError(f"these images have {channels} channels, {theirs}.")
    numbers = torch.tensor(_numbers(source.classes, about.classes, config.match))
    splits = split(source, dataset.valid_fraction, run.seed)
    changed = checksum(splits) != about.images.sha256
    if changed and not (config.dataset or config.data_dir):
        raise UserError(
            f"data_dir={data_dir}: the images of {about.dataset} have changed since {saved.path} was trained on "
            "them, so some that it has learned from may be scored. dataset= or data_dir= scores them as other images."
        )
    if config.match == "number":
        predictor.classes = splits.classes
    images = splits.parts[config.split]
    images = replace(images, labels=numbers[images.labels])
    answers = predictor.answer(images, config.split, config.batch_size or run.batch_size, config.num_workers)
    for note in (splits.note, hardware.note, CHANGED if changed else None):
        show_note(note)
    show_facts(
        {
            "scored on": f"{config.split} split, {len(answers):,} {describe_origin(dataset.name, splits.origin)}",
            **_measured(answers, build_metrics(run, len(about.classes))),
            "device": f"{hardware.accelerator}, {hardware.precision}",
        }
    )
    show_confusion(answers)


def _measured(answers: Answers, metrics: Mapping[str, Metric]) -> dict[str, str | Text]:
    scored = Validation(accuracy=answers.accuracy, images=len(answers), chance=answers.images.chance)
    scores = {"loss": answers.loss}
    scores |= {name: float(metric(answers.logits, answers.labels)) for name, metric in metrics.items()}
    ends = predictions.intervals(answers, metrics)
    return {
        "accuracy": Text(scored.verdict, "bold"),
        **{name: digits(score, ends[name]) for name, score in scores.items()},
        "unrounded": ", ".join(f"{name} {score}" for name, score in ({"accuracy": answers.accuracy} | scores).items()),
    }


def _numbers(classes: list[str], known: list[str], match: str) -> list[int]:
    """The numbers of an image set's `classes` among those `known` to the network; UserError if one has none."""
    if match == "name":
        if strange := [name for name in classes if name not in known]:
            names, theirs = (shorten(", ".join(some), 160, placeholder=" ...") for some in (strange, known))
            wrong = f"of the classes of these images, the checkpoint's network doesn't know {names}; it knows {theirs}"
            by_number = " match=number takes its first class for their first, and so on."
            raise UserError(f"{wrong}.{by_number if len(classes) == len(known) else ''}")
        return [known.index(name) for name in classes]
    if len(classes) != len(known):
        raise UserError(f"match=number: these images have {len(classes)} classes, the network {len(known)}.")
    return list(range(len(known)))
