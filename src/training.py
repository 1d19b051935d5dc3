"""The Lightning trainer of a run, and what is read off it afterwards."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any, TypeVar, cast

import lightning as L
from lightning.pytorch.callbacks import EarlyStopping, LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from torch import Tensor

from src import results, speed
from src.callbacks.config_text import ConfigText
from src.callbacks.confusion import Confusion
from src.callbacks.progress import ProgressBar, progress_callback
from src.callbacks.throughput import Throughput
from src.callbacks.trace import Trace
from src.config import TrainConfig, UserError
from src.hardware import Hardware, keep_freed_memory
from src.model.classifier import Classifier

T = TypeVar("T")


def build_trainer(config: TrainConfig, hardware: Hardware, folder: Path, num_classes: int) -> L.Trainer:
    """The trainer of a run, which writes into `folder`."""
    throughput = Throughput()
    callbacks: list[L.Callback] = [
        throughput,
        LearningRateMonitor(),
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
    if options.get("profiler") == "trace":  # Lightning's own records each phase apart and keeps the last one's table
        del options["profiler"]
        callbacks.append(Trace(folder / "profile"))
    if hardware.accelerator == "cuda":
        options.setdefault("benchmark", True)
    if hardware.accelerator == "cpu":
        keep_freed_memory()
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
    if hardware.accelerator == "cpu":
        keep_freed_memory()
    return _quiet_trainer(
        accelerator=hardware.accelerator,
        devices=1,
        precision=hardware.precision,
        callbacks=[Confusion(num_classes)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
    )


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


def measured(trainer: L.Trainer, classifier: Classifier, precision: str) -> dict[str, Any]:
    """What only the trainer knows of a finished run; see results.collect."""
    rate = _callback(trainer, Throughput).rate
    flops = speed.flops_per_image(classifier.network, cast(Tensor, classifier.example_input_array))
    peak = speed.matmul_rate(trainer.strategy.root_device, precision) * trainer.world_size
    best = _checkpoint_callbacks(trainer)[0].best_model_score
    return {
        "device": type(trainer.accelerator).__name__.removesuffix("Accelerator").lower(),
        "parameters": sum(weight.numel() for weight in classifier.network.parameters()),
        "epochs": trainer.current_epoch,
        "images_per_second": None if rate is None else round(rate, 2),
        "flops_per_image": flops,
        "share_of_peak": None if rate is None or flops is None else round(rate * flops / peak, 4),
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
