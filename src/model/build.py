"""From a checked config to the parts of a run; the only place that builds them."""

from __future__ import annotations

import warnings
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from torchmetrics import Metric

from src.config.errors import UserError
from src.config.schema import Component, DatasetConfig, TrainConfig
from src.data.augmentation import Augmentation, build_component, is_cut
from src.data.batches import Augment, RandomCut
from src.data.datamodule import DataModule
from src.data.decoding import SKIP, BrokenImage
from src.data.images import Source, Splits, checksum
from src.data.memory import settled
from src.data.photos import Photos
from src.data.preparation import Preparation
from src.data.splitting import limited, split
from src.data.statistics import measure, sample
from src.model import init
from src.model.classifier import Classifier, Loss
from src.model.components import given, resolve, told
from src.model.hardware import Hardware, pick_hardware
from src.model.network import build_network, preferred_size
from src.model.parameters import Parameters, grouped, trainable
from src.model.saved import About, Checkpoint


def read_images(dataset: DatasetConfig, data_dir: str, copies: int = 1) -> Source:
    """The labelled images that a dataset config names; so many copies must fit into memory, if they are held there."""
    with told(f"data_dir={data_dir}: ", OSError):
        source = resolve(dataset)(Path(data_dir), dataset.source, **dataset.arguments())
        _check_classes(source, dataset)
        with told(f"dataset.limit={dataset.limit}: ", UserError):
            source = limited(source, dataset.limit) if dataset.limit else source
        return settled(source, dataset, copies)


def prepared(config: TrainConfig) -> tuple[TrainConfig, Splits]:
    """The images of a run, cut by its seed, and its config with what `auto` and `null` came to for them."""
    dataset = config.dataset
    try:
        source = read_images(dataset, config.data_dir, config.devices)
    except BrokenImage as error:
        raise UserError(f"{error} {SKIP}") from error
    splits = split(source, dataset.valid_fraction, config.seed)
    update = {"dataset": resolved(dataset, splits, preferred_size(config.model))}
    return config.model_copy(update=update), splits


def build(config: TrainConfig) -> tuple[DataModule, Classifier]:
    """The images and the classifier of a config, for a Trainer of your own; raises UserError as a run does."""
    config, splits = prepared(config)
    hardware = pick_hardware(config.device, config.precision)
    about = About.of(config, splits, hardware.precision, "")
    classifier = build_classifier(config, hardware, about, splits)
    init.load(classifier.network, config.init)
    return build_datamodule(config, splits), classifier


def _check_classes(source: Any, dataset: DatasetConfig) -> None:
    """Raises UserError if a reader gives something else than images with a class each."""
    wrong = f"dataset={dataset.name}:"
    if not isinstance(source, Source):
        raise UserError(f"{wrong} {dataset.target} gives {type(source).__name__}; expected {Source.__module__}.Source.")
    for images in filter(None, (source.train, source.valid, source.test)):
        pixels, labels, last = images.store, images.labels, len(source.classes) - 1
        if not isinstance(pixels, Tensor | Photos):
            raise UserError(f"{wrong} its images are {type(pixels).__name__}; expected a tensor, or Photos.")
        if isinstance(pixels, Tensor) and (pixels.dtype != torch.uint8 or pixels.ndim != 4):
            raise UserError(f"{wrong} its images are {pixels.dtype} {list(pixels.shape)}; expected uint8 (N, C, H, W).")
        if labels.dtype != torch.int64 or labels.ndim != 1 or not 0 <= int(labels.min()) <= int(labels.max()) <= last:
            kind = f"{labels.dtype} {list(labels.shape)} from {labels.min():g} to {labels.max():g}"
            raise UserError(
                f"{wrong} its labels are {kind}; expected a class from 0 to {last} of each image, int64 (N,)."
            )


def of_checkpoint(dataset: DatasetConfig) -> DatasetConfig:
    """That of a checkpoint, which a stranger may have made, on another machine: of a name on a hub it takes only what
    lies here, and in memory it holds what fits here."""
    no_hub = {"download": False} if "path" in dataset.arguments() else {}
    return dataset.model_copy(update={"in_memory": "auto"} | no_hub)


def images_of(saved: Checkpoint, data_dir: str | None = None) -> Splits:
    """A checkpoint's images, cut as they were for its training; raises UserError if those in `data_dir` are others."""
    config, data_dir = saved.config, data_dir or saved.config.data_dir
    splits = split(read_images(of_checkpoint(config.dataset), data_dir), config.dataset.valid_fraction, config.seed)
    if checksum(splits) != saved.about.images.sha256:
        others = f"these are not the images of {saved.about.dataset} that {saved.path} was trained on"
        raise UserError(f"data_dir={data_dir}: {others}. Set data_dir to where they lie.")
    return splits


def resolved(dataset: DatasetConfig, splits: Splits, size: int) -> DatasetConfig:
    """The config with what `auto` and `null` came to for these images, and a network that asks for them in a `size`."""
    few = splits.train[sample(len(splits.train))] if splits.sha256 else splits.train  # many photos take too long
    measured = ([], []) if dataset.mean and dataset.std else measure(few)
    mean, std = dataset.mean or measured[0], dataset.std or measured[1]
    channels = splits.train.shape[1]
    for name, values in {"mean": mean, "std": std}.items():
        if len(values) != channels:
            raise UserError(f"dataset.{name}={values}: expected {channels} numbers, one a channel of these images.")
    update = {"source": splits.origin, "mean": mean, "std": std, "image_size": dataset.image_size or size}
    if splits.sha256:
        update["in_memory"] = splits.in_memory
    return dataset.model_copy(update=update)


def build_datamodule(config: TrainConfig, splits: Splits, start: tuple[int, int] = (0, 0)) -> DataModule:
    """Raises UserError if a part of the augmentation refuses its arguments, or a few of the images."""
    images, labels = splits.train.fetch(torch.arange(min(4, len(splits.train))))
    generator, parts, cut = torch.Generator().manual_seed(config.seed), list[Augment](), None
    for name, component in config.dataset.augmentation.components().items():
        key = f"dataset.augmentation.{name}: "
        with told(key, ValueError, TypeError, RuntimeError):
            target = resolve(component)
            if is_cut(target):
                if cut:
                    raise UserError(f"{key}another one cuts the images already. Leave one out.")
                cut = RandomCut(partial(target, **component.arguments()), config.seed)
                cut(0, 0)(64, 48)
                continue
            parts.append(build_component(target, component.arguments(), len(parts), len(splits.classes)))
            images, labels = parts[-1](images, labels, generator)
    return DataModule(splits, config, start, Augmentation(parts), cut)


def build_classifier(config: TrainConfig, hardware: Hardware, about: About, splits: Splits) -> Classifier:
    """The classifier of a run; raises UserError if one of its parts refuses its arguments, or is none."""
    classes, labels = len(about.classes), splits.train.labels
    network = build_network(config.model, about.channels, classes)
    init.freeze(network, config.init.freeze)
    loss = build_loss(config.loss, torch.bincount(labels, minlength=classes).tolist())
    metrics = build_metrics(config, classes)
    optimizer, scheduler = partial(_optimizer, config, hardware), partial(_scheduler, config)
    classifier = Classifier(network, loss, metrics, optimizer, scheduler, about, config.monitor, config.seed)
    # before anything is written
    with told("optimizer or scheduler: ", ValueError, TypeError, RuntimeError, IndexError):
        scheduler(optimizer(trainable(classifier)), 10)
    size = Preparation.of(config.dataset).size
    classifier.example_input_array = torch.zeros(1, about.channels, size, size)
    return classifier


def _optimizer(config: TrainConfig, hardware: Hardware, parameters: Parameters) -> Optimizer:
    options = given(config.optimizer, config.optimizer.arguments())  # not all of torch's have a weight decay
    # in mixed precision Lightning clips no gradients of a fused optimizer, which could unscale them itself
    clipped = hardware.precision.endswith("mixed") and config.trainer.gradient_clip_val
    if hardware.accelerator in ("cuda", "cpu") and not clipped:
        options |= given(config.optimizer, {"fused": True})
    return resolve(config.optimizer)(grouped(parameters, config.optimizer), **options)


def _scheduler(config: TrainConfig, optimizer: Optimizer, steps: int) -> LRScheduler:
    schedule, arguments = resolve(config.scheduler), config.scheduler.arguments()
    arguments |= given(config.scheduler, {"total_steps": steps})  # not all of torch's have it
    if isinstance(schedule, type) and issubclass(schedule, ReduceLROnPlateau):
        arguments["mode"] = config.monitor_mode
    return schedule(optimizer, **arguments)


def build_loss(component: Component, class_counts: list[int]) -> Loss:
    """A module, or a function with its arguments, tried on two images; raises UserError if it gives no number."""
    loss, offered = resolve(component), {"num_classes": len(class_counts), "class_counts": class_counts}
    with told("loss: ", ValueError, TypeError, RuntimeError, IndexError):
        arguments = component.arguments() | given(component, offered)
        loss = loss(**arguments) if isinstance(loss, type) else partial(loss, **arguments)
        number = loss(torch.zeros(2, len(class_counts), requires_grad=True), torch.tensor([0, 1]))
    if not isinstance(number, Tensor) or number.shape:
        shape = f"a tensor of shape {list(number.shape)}" if isinstance(number, Tensor) else type(number).__name__
        raise UserError(f"loss._target_={component.target}: it gives {shape}; expected one number, a mean over images.")
    if not number.requires_grad:
        raise UserError(f"loss._target_={component.target}: it has no gradient to learn from.")
    return loss


def build_metrics(config: TrainConfig, num_classes: int) -> dict[str, Metric]:
    """By name, each tried on two images; raises UserError if one is none, or gives no number."""
    metrics = {}
    for name, component in config.metrics.components().items():
        cls, key = resolve(component), f"metrics.{name}"
        # its own checks would wait for the device in each step
        options = component.arguments() | given(component, {"num_classes": num_classes, "validate_args": False})
        tried = told(f"{key}: ", ValueError, TypeError, RuntimeError, IndexError)
        with tried, warnings.catch_warnings(action="ignore"):  # of classes that two images have not
            metric = cls(**options)
            if not isinstance(metric, Metric):
                raise UserError(f"{key}._target_={component.target}: that is no metric (torchmetrics.Metric).")
            metric.update(torch.eye(num_classes)[:2], torch.tensor([0, 1]))
            if (value := metric.compute()).numel() != 1:
                raise UserError(f"{key}: it gives {list(value.shape)} numbers; expected one, as of average=macro.")
        metric.reset()
        metrics[name] = metric
    return metrics
