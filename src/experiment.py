"""From a checked config to the parts of a run; the only place that builds them."""

from __future__ import annotations

import importlib
import inspect
import logging
import warnings
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import lightning as L
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.utilities.model_summary.model_summary import ModelSummary
from torch import Tensor, nn

from src import results
from src.callbacks.config_text import ConfigText
from src.callbacks.confusion import Confusion
from src.callbacks.progress import ProgressBar, progress_callback
from src.callbacks.throughput import Throughput
from src.checkpoint import Checkpoint
from src.config import Component, DatasetConfig, OptimizerConfig, TrainConfig, UserError
from src.data.datamodule import DataModule, measure
from src.data.images import Source, Splits
from src.hardware import Hardware
from src.model.classifier import Classifier

T = TypeVar("T")


def read_images(dataset: DatasetConfig, data_dir: str) -> Source:
    """The labelled images that a dataset config names, read into memory."""
    reader = _resolve(dataset)
    try:
        return cast(Source, reader(Path(data_dir), dataset.source, **dataset.arguments()))
    except OSError as error:
        raise UserError(f"data_dir={data_dir}: {error}.") from error


def with_found(dataset: DatasetConfig, splits: Splits) -> DatasetConfig:
    """The config with what `auto` and `null` came to for these images."""
    mean, std = measure(splits.train.images)
    channels = splits.train.images.shape[1]
    found = {"source": splits.origin, "mean": dataset.mean or mean, "std": dataset.std or std}
    for name in ("mean", "std"):
        if len(found[name]) != channels:
            raise UserError(
                f"dataset.{name}={found[name]}: expected {channels} numbers, one a channel of these images."
            )
    return dataset.model_copy(update=found)


def build_datamodule(
    config: TrainConfig, splits: Splits, scored: Literal["test", "val", "train"] = "test"
) -> DataModule:
    dataset = config.dataset
    assert dataset.mean is not None
    assert dataset.std is not None
    side = min(splits.train.images.shape[-2:])
    if dataset.augmentation.crop >= side:
        raise UserError(
            f"dataset.augmentation.crop={dataset.augmentation.crop}: the images are only {side} pixels wide. "
            "Take a smaller crop."
        )
    return DataModule(
        splits,
        batch_size=config.batch_size,
        num_workers=config.num_workers,
        seed=config.seed,
        mean=dataset.mean,
        std=dataset.std,
        image_size=dataset.image_size,
        augmentation=dataset.augmentation,
        scored=scored,
    )


def build_network(model: Component, in_channels: int, num_classes: int) -> nn.Module:
    """The network of a config; raises UserError if its class refuses the arguments."""
    cls = _resolve(model)
    if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
        raise UserError(f"model._target_={model.target}: that is no network (torch.nn.Module).")
    try:
        network = cls(in_channels, num_classes, **model.arguments())
    except (ValueError, TypeError) as error:
        raise UserError(f"{error}.") from error
    return network.to(memory_format=torch.channels_last)


def build_classifier(config: TrainConfig, hardware: Hardware, about: dict[str, Any]) -> Classifier:
    """The classifier of a run; raises UserError if its network refuses the arguments.

    Args:
        about: says its `channels` and `classes`, and goes into each of its checkpoints.
    """
    in_channels, num_classes = about["channels"], len(about["classes"])
    optimizer = _optimizer(config, hardware)
    scheduler = partial(_resolve(config.scheduler), **config.scheduler.arguments())
    try:  # on nothing, so that wrong arguments are found before anything is written
        scheduler(optimizer([nn.Parameter(torch.zeros(1))]), 10)
    except (ValueError, TypeError, RuntimeError) as error:
        raise UserError(f"optimizer or scheduler: {error}.") from error
    classifier = Classifier(
        build_network(config.model, in_channels, num_classes),
        num_classes,
        optimizer,
        scheduler,
        about,
        config.label_smoothing,
        config.seed,
    )
    size = config.dataset.image_size
    classifier.example_input_array = torch.zeros(1, in_channels, size, size)
    return classifier


def summarize(classifier: Classifier, num_classes: int) -> ModelSummary:
    """Every layer with its output shape, from a pass of one image of the size that the run will see.

    Raises:
        UserError: that size does not fit the network, or its answer is not one logit a class.
    """
    try:
        summary = ModelSummary(classifier, max_depth=-1)
    except (ValueError, RuntimeError) as error:
        raise UserError(f"{str(error).splitlines()[0]}.") from error
    shape = summary.out_sizes[summary.layer_names.index("network")]
    if shape != [1, num_classes]:
        raise UserError(f"the network answers with shape {shape}; expected {[1, num_classes]}, one logit a class.")
    return summary


def build_trainer(config: TrainConfig, hardware: Hardware, folder: Path, num_classes: int) -> L.Trainer:
    """The trainer of a run, which writes into `folder`."""
    throughput = Throughput()
    callbacks: list[L.Callback] = [
        throughput,
        Confusion(num_classes),
        _checkpoints(folder, "best", monitor="val/acc", mode="max", save_weights_only=True),
        _checkpoints(folder, "last", save_on_train_epoch_end=True),
    ]
    if config.trainer.enable_progress_bar is not False:
        callbacks.append(progress_callback(throughput))
    if config.callbacks.early_stopping:
        patience = config.callbacks.early_stopping
        callbacks.append(EarlyStopping("val/acc", mode="max", patience=patience, strict=False))
    loggers: list[Logger] = [CSVLogger(folder, name="", version="")]
    if config.logger.tensorboard:
        loggers.append(TensorBoardLogger(folder, name="", version="tensorboard", default_hp_metric=False))
    options = config.trainer.model_dump(exclude_none=True)
    options["enable_progress_bar"] = any(isinstance(callback, ProgressBar) for callback in callbacks)
    options.setdefault("num_sanity_val_steps", 0)
    if hardware.accelerator == "cuda":
        options.setdefault("benchmark", True)
    if config.logger.tensorboard:
        callbacks.append(ConfigText(results.as_yaml(config)))
    return _quiet_trainer(
        accelerator=hardware.accelerator,
        devices=config.devices,
        precision=hardware.precision,
        callbacks=callbacks,
        logger=loggers,
        default_root_dir=folder,
        use_distributed_sampler=False,  # sampling.py divides the images among the processes
        **options,
    )


def build_scorer(hardware: Hardware, num_classes: int) -> L.Trainer:
    """A trainer that only evaluates and leaves nothing behind."""
    return _quiet_trainer(
        accelerator=hardware.accelerator,
        devices=1,
        precision=hardware.precision,
        callbacks=[Confusion(num_classes)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
    )


def load_weights(classifier: Classifier, saved: Checkpoint) -> None:
    """Put a checkpoint's weights into the network; raises UserError if they are another network's."""
    try:
        classifier.network.load_state_dict(saved.state_dict)
    except RuntimeError as error:
        raise UserError(
            f"checkpoint={saved.path}: its weights are not those of {saved.config.model.target} as it is now. "
            "Take the revision that it was trained with, which it names."
        ) from error


def best_checkpoint(trainer: L.Trainer) -> Path:
    """The checkpoint of the best validation accuracy; the last one where nothing was validated."""
    best, last = _checkpoint_callbacks(trainer)
    path = best.best_model_path or last.best_model_path
    if not path:
        raise UserError("nothing was trained: trainer.max_steps or trainer.max_time ended the run at its start.")
    return Path(path)


def confusion(trainer: L.Trainer) -> Tensor:
    """The confusion matrix of the test that `trainer` ran, int64 (true class, predicted class)."""
    matrix = _callback(trainer, Confusion).matrix
    assert matrix is not None
    return matrix


def measured(trainer: L.Trainer, classifier: Classifier) -> dict[str, Any]:
    """What only the trainer knows of a finished run; see results.collect."""
    rate = _callback(trainer, Throughput).rate
    best = _checkpoint_callbacks(trainer)[0].best_model_score
    return {
        "device": type(trainer.accelerator).__name__.removesuffix("Accelerator").lower(),
        "parameters": sum(weight.numel() for weight in classifier.network.parameters()),
        "epochs": trainer.current_epoch,
        "images_per_second": None if rate is None else round(rate, 2),
        "val_accuracy": None if best is None else float(best),
        "test_images": int(confusion(trainer).sum()),
    }


def record(trainer: L.Trainer, config: TrainConfig, outcome: dict[str, Any]) -> None:
    """Tell TensorBoard the hyperparameters with what they led to."""
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            words = {key: value for key, value in results.flat(results.plain(config)).items() if _short(value)}
            scores = {"test/acc": outcome["test"]["accuracy"], "test/loss": outcome["test"]["loss"]}
            logger.log_hyperparams(words, {f"final/{name}": score for name, score in scores.items()})
            logger.save()


def _short(value: Any) -> bool:
    return isinstance(value, int | float | str | bool)


def _callback(trainer: L.Trainer, kind: type[T]) -> T:
    return next(callback for callback in trainer.callbacks if isinstance(callback, kind))  # type: ignore[attr-defined]


def _checkpoint_callbacks(trainer: L.Trainer) -> tuple[ModelCheckpoint, ModelCheckpoint]:
    best, last = (item for item in trainer.checkpoint_callbacks if isinstance(item, ModelCheckpoint))
    return best, last


def _quiet_trainer(**options: Any) -> L.Trainer:
    # its banners repeat what the run's own summary says; warnings stay
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.seed"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers.*",  # one indexing call a batch needs none
        ".*Experiment logs directory .* exists.*",  # Hydra made it a moment ago
        ".*LeafSpec.* is deprecated.*",  # torch's complaint about Lightning
        ".*Checkpoint directory .* exists.*",
        ".*number of training batches .* is smaller than the logging interval.*",
        ".*lr_scheduler.step.*before.*optimizer.step.*",  # the first step of a loss scaler may be skipped
    ):
        warnings.filterwarnings("ignore", message)
    try:
        return L.Trainer(enable_model_summary=False, **options)
    except (ValueError, TypeError, L.pytorch.utilities.exceptions.MisconfigurationException) as error:
        raise UserError(f"trainer: {str(error).splitlines()[0]}") from error


def _checkpoints(folder: Path, name: str, **options: Any) -> ModelCheckpoint:
    return ModelCheckpoint(
        folder / "checkpoints",
        filename=name,
        auto_insert_metric_name=False,
        enable_version_counter=False,
        **options,
    )


def _optimizer(config: TrainConfig, hardware: Hardware) -> Any:
    optimizer: OptimizerConfig = config.optimizer
    cls = _resolve(optimizer)
    known = inspect.signature(cls).parameters
    options = {key: value for key, value in optimizer.arguments().items() if key in known}
    fusable = "fused" in known and hardware.accelerator in ("cuda", "cpu")
    # Lightning can't clip the gradients of a fused optimizer that unscales them itself
    if fusable and not (hardware.precision == "16-mixed" and config.trainer.gradient_clip_val):
        options["fused"] = True
    return partial(cls, **options)


def _resolve(component: Component) -> Any:
    module, _, name = component.target.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UserError(f"_target_={component.target}: {error}.") from error
