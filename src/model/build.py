"""From a checked config to the parts of a run; the only place that builds them."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities.model_summary.model_summary import ModelSummary
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from src.config.errors import UserError
from src.config.schema import Component, DatasetConfig, TrainConfig
from src.data.batches import DataModule, measure
from src.data.images import Source, Splits, checksum, limited, split
from src.model.classifier import Classifier
from src.model.hardware import Hardware
from src.model.saved import About, Checkpoint


@contextmanager
def _told(words: str, *kinds: type[Exception]) -> Iterator[None]:
    """Errors of these `kinds` as a UserError, which begins with `words`."""
    try:
        yield
    except kinds as error:
        first_line = (str(error) or repr(error)).partition("\n")[0]
        raise UserError(f"{words}{first_line.removesuffix('.')}.") from error


def read_images(dataset: DatasetConfig, data_dir: str) -> Source:
    """The labelled images that a dataset config names, read into memory."""
    with _told(f"data_dir={data_dir}: ", OSError):
        source = resolve(dataset)(Path(data_dir), dataset.source, **dataset.arguments())
    with _told(f"dataset.limit={dataset.limit}: ", UserError):
        return limited(source, dataset.limit) if dataset.limit else source


def images_of(saved: Checkpoint, data_dir: str | None = None) -> Splits:
    """A checkpoint's images, cut as they were for its training; raises UserError if those in `data_dir` are others."""
    config, data_dir = saved.config, data_dir or saved.config.data_dir
    splits = split(read_images(config.dataset, data_dir), config.dataset.valid_fraction, config.seed)
    if checksum(splits) != saved.about.images.sha256:
        others = f"these are not the images of {saved.about.dataset} that {saved.path} was trained on"
        raise UserError(f"data_dir={data_dir}: {others}. Set data_dir to where they lie.")
    return splits


def resolved(dataset: DatasetConfig, splits: Splits) -> DatasetConfig:
    """The config with what `auto` and `null` came to for these images."""
    measured = ([], []) if dataset.mean and dataset.std else measure(splits.train)
    mean, std = dataset.mean or measured[0], dataset.std or measured[1]
    channels = splits.train.shape[1]
    for name, values in {"mean": mean, "std": std}.items():
        if len(values) != channels:
            raise UserError(f"dataset.{name}={values}: expected {channels} numbers, one a channel of these images.")
    return dataset.model_copy(update={"source": splits.origin, "mean": mean, "std": std})


def build_datamodule(config: TrainConfig, splits: Splits, start: tuple[int, int] = (0, 0)) -> DataModule:
    crop, side = config.dataset.augmentation.crop, min(splits.train.shape[-2:])
    if crop >= side:
        only = f"the images are only {side} pixels wide"
        raise UserError(f"dataset.augmentation.crop={crop}: {only}. Take a smaller crop.")
    return DataModule(splits, config, start)


def build_network(model: Component, in_channels: int, num_classes: int) -> nn.Module:
    """The network of a config; raises UserError if its class or function refuses the arguments, or gives none."""
    with _told("", ValueError, TypeError, RuntimeError, AssertionError):
        network = resolve(model)(in_channels, num_classes, **model.arguments())
    if not isinstance(network, nn.Module):
        raise UserError(f"model._target_={model.target}: that is no network (torch.nn.Module).")
    return network.to(memory_format=torch.channels_last)


def preferred_size(model: Component) -> int:
    """The side in pixels of the images that a network was designed for, as its class or function says."""
    size = getattr(resolve(model), "image_size", 227)
    return size(**model.arguments()) if callable(size) else size


def compile_network(classifier: Classifier, hardware: Hardware) -> None:
    """Let torch compile the network at its first step; on a CUDA GPU it is then replayed as one CUDA graph."""
    mode = "reduce-overhead" if hardware.accelerator == "cuda" else None
    classifier.network.compile(mode=mode, dynamic=False)  # an epoch's last batch has one size of its own


def build_classifier(config: TrainConfig, hardware: Hardware, about: About) -> Classifier:
    """The classifier of a run; raises UserError if its network refuses the arguments."""
    cls = resolve(config.optimizer)
    known = inspect.signature(cls).parameters
    options = {key: value for key, value in config.optimizer.arguments().items() if key in known}
    # Lightning can't clip the gradients of a fused optimizer that unscales them itself
    clipped = hardware.precision == "16-mixed" and config.trainer.gradient_clip_val
    if "fused" in known and hardware.accelerator in ("cuda", "cpu") and not clipped:
        options["fused"] = True
    optimizer = partial(cls, **options)
    schedule, arguments = resolve(config.scheduler), config.scheduler.arguments()
    stretches = "total_steps" in inspect.signature(schedule).parameters  # not all of torch's do

    def scheduler(optimizer: Optimizer, steps: int) -> LRScheduler:
        return schedule(optimizer, **({"total_steps": steps} if stretches else {}), **arguments)

    # on nothing, so that wrong arguments are found before anything is written
    with _told("optimizer or scheduler: ", ValueError, TypeError, RuntimeError):
        scheduler(optimizer([nn.Parameter(torch.zeros(1))]), 10)
    network = build_network(config.model, about.channels, len(about.classes))
    classifier = Classifier(network, optimizer, scheduler, about, config.label_smoothing, config.seed)
    classifier.example_input_array = torch.zeros(1, about.channels, *[config.dataset.image_size] * 2)
    return classifier


def summarize(classifier: Classifier, num_classes: int) -> ModelSummary:
    """Every layer with its output shape; raises UserError if images don't fit, or the answer isn't a logit a class."""
    with _told("", ValueError, RuntimeError), _told("dataset.image_size: ", AssertionError):
        summary = ModelSummary(classifier, max_depth=-1)
    shape = summary.out_sizes[summary.layer_names.index("network")]
    if shape != [1, num_classes]:
        raise UserError(f"the network answers with shape {shape}; expected {[1, num_classes]}, one logit a class.")
    return summary


def load_weights(network: nn.Module, saved: Checkpoint) -> None:
    """Put a checkpoint's weights into its network; raises UserError if they are another network's."""
    try:
        network.load_state_dict(saved.state_dict)
    except RuntimeError as error:
        theirs = f"checkpoint={saved.path}: its weights are not those of {saved.config.model.target} as it is now"
        raise UserError(f"{theirs}. Take the revision that it was trained with, which it names.") from error


def resolve(component: Component) -> Any:
    """The class or function that it names."""
    module, _, name = component.target.rpartition(".")
    with _told(f"_target_={component.target}: ", ImportError, AttributeError):
        return getattr(importlib.import_module(module), name)
