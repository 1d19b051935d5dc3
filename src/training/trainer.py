"""The Lightning trainer of a run with its callbacks and loggers, and what is read off them afterwards."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import lightning as L
import torch
from lightning.pytorch.profilers import PyTorchProfiler
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.rank_zero import rank_zero_only, rank_zero_warn
from torch import Tensor

from src.config.errors import UserError
from src.config.files import write_config, write_json
from src.config.process import Interrupts
from src.config.schema import Component, TrainConfig
from src.model import speed
from src.model.answers import Answers
from src.model.build import _resolve
from src.model.classifier import Classifier
from src.model.hardware import Hardware, keep_freed_memory
from src.model.saved import Resumed
from src.training.callbacks.answers import RecordAnswers
from src.training.callbacks.finite import FiniteLoss
from src.training.callbacks.metrics import LogMetrics
from src.training.callbacks.progress import ProgressBar, progress_callback
from src.training.callbacks.stopping import Stopping
from src.training.callbacks.throughput import Throughput
from src.training.checkpoints import Checkpoints
from src.training.logs import RunLogs
from src.training.trackers import Trackers, hyperparameters
from src.training.writer import Writer, previous


class Session:
    """One process's work on a run, in `folder`: from its start, or from where it was `resumed`."""

    def __init__(
        self,
        config: TrainConfig,
        hardware: Hardware,
        folder: Path,
        interrupts: Interrupts,
        trackers: Trackers,
        resumed: Resumed | None = None,
        more: Sequence[L.Callback] = (),
    ) -> None:
        self.config, self.folder, self.trackers = config, folder, trackers
        self._precision = hardware.precision
        place = resumed.place if resumed else None
        self.logs = RunLogs(folder, config.logger.tensorboard, place)
        writer = Writer(resumed.content if resumed else None)
        self.checkpoints = Checkpoints(folder / "checkpoints", config.callbacks, writer, self.logs)
        self.checkpoints.end_at_once = bool(resumed and resumed.finished(config))
        self.throughput = Throughput()
        self.recorder = RecordAnswers()
        callbacks = [*self._callbacks(interrupts), *more]
        options = config.trainer.model_dump(exclude_none=True)
        options.pop("max_time", None)  # Lightning's own timer counts from the first start on, and then tests
        if config.trainer.profiler == "pytorch":
            options["profiler"] = _profiler(folder / "profile")
        options["enable_progress_bar"] = any(isinstance(callback, ProgressBar) for callback in callbacks)
        options["num_sanity_val_steps"] = 0  # it would be taken for a validation
        if hardware.accelerator == "cuda":
            options.setdefault("benchmark", not config.trainer.deterministic)
        if hardware.accelerator == "cpu":
            keep_freed_memory()
        self.trainer = _quiet_trainer(
            accelerator=hardware.accelerator,
            devices=hardware.devices(config.devices),
            precision=hardware.precision,
            callbacks=callbacks,
            logger=self.logs.loggers,
            plugins=[writer],
            enable_checkpointing=False,  # Checkpoints does it
            default_root_dir=folder,
            use_distributed_sampler=False,  # sampling.py divides the images among the processes
            **options,
        )

    def _callbacks(self, interrupts: Interrupts) -> list[L.Callback]:
        config = self.config
        callbacks: list[L.Callback] = [
            Stopping(interrupts, self.checkpoints, config.trainer.max_time),
            self.checkpoints,
            self.recorder,
            *(_build_callback(name, component) for name, component in config.callbacks.components().items()),
            self.throughput,  # after those that draw, whose time it leaves out
            LogMetrics(),
        ]
        if config.on_nan == "stop":
            callbacks.append(FiniteLoss(self.checkpoints.last))
        if config.trainer.enable_progress_bar is not False:
            callbacks.append(progress_callback(self.throughput))
        return callbacks

    def begin(self, resumed: Resumed | None) -> None:
        """Bring the folder to the moment from which this session goes on.

        Raises:
            UserError: a tracker can't be reached; nothing was changed.
        """
        self.trainer.loggers = [*self.logs.loggers, *self.trackers.open()]
        if resumed is not None:
            resumed.make_last(self.checkpoints.last, self.checkpoints.best)
        if not self.checkpoints.end_at_once:  # a finished run that is to have more epochs is unfinished from here on
            for name in ("results.json", "report.html", "summary.png"):
                (self.folder / name).unlink(missing_ok=True)
        write_config(self.folder / "config.yaml", self.config)
        self.logs.cut()

    def best_checkpoint(self) -> Path:
        """The checkpoint of the best validation accuracy; the last one where nothing was validated."""
        if self.checkpoints.best_step is None:
            if not self.checkpoints.last.exists() or not self.trainer.global_step:
                raise UserError("nothing was trained: trainer.max_steps ended the run at its start.")
            return self.checkpoints.last
        return self.checkpoints.best

    @property
    def answers(self) -> Answers | None:
        """What the test set was answered, if there was a test."""
        found = self.recorder.answers
        return found if found and found.split == "test" else None

    def measured(self, classifier: Classifier) -> dict[str, Any]:
        """What only the trainer knows of a finished run; see results.collect."""
        rate = self.throughput.rate
        flops = speed.flops_per_image(classifier.network, cast(Tensor, classifier.example_input_array))
        peak = speed.matmul_rate(self.trainer.strategy.root_device, self._precision) * self.trainer.world_size
        return {
            "device": type(self.trainer.accelerator).__name__.removesuffix("Accelerator").lower(),
            "parameters": sum(weight.numel() for weight in classifier.network.parameters()),
            "seconds": self.checkpoints.seconds,
            "epochs": self.trainer.current_epoch,
            "interruptions": self.checkpoints.interruptions,
            "checkpoint_seconds": round(self.checkpoints.stalled, 3),
            "skipped_steps": classifier.skipped,
            "images_per_second": None if rate is None else round(rate, 2),
            "flops_per_image": flops,
            "share_of_peak": None if rate is None or flops is None else round(rate * flops / peak, 4),
            "val_accuracy": self.checkpoints.best_score,
            "test_images": len(self.answers) if self.answers else None,
        }

    def record(self, outcome: dict[str, Any]) -> None:
        """Tell TensorBoard and the trackers the hyperparameters with what they led to."""
        scores = {"val/acc": outcome["val"]["accuracy"] or 0.0}
        if outcome["test"]:
            scores |= {"test/acc": outcome["test"]["accuracy"], "test/loss": outcome["test"]["loss"]}
        final = {f"final/{name}": score for name, score in scores.items()}
        self.trackers.record(final)
        if self.logs.tensorboard is not None:
            self.logs.tensorboard.log_hyperparams(hyperparameters(self.config), final)
            self.logs.tensorboard.save()

    def end(self, outcome: dict[str, Any]) -> None:
        """Say that the run is finished; checkpoints kept for the case of a damaged one go."""
        write_json(self.folder / "results.json", outcome)
        if self.config.trainer.profiler == "pytorch" and not (self.folder / "profile").exists():
            rank_zero_warn("trainer.profiler=pytorch: too few steps for a profile, which needs 6.")
        for path in (self.checkpoints.best, self.checkpoints.last):
            previous(path).unlink(missing_ok=True)


def build_scorer(hardware: Hardware, recorder: RecordAnswers) -> L.Trainer:
    """A trainer that only evaluates and leaves nothing behind."""
    if hardware.accelerator == "cpu":
        keep_freed_memory()
    return _quiet_trainer(
        accelerator=hardware.accelerator,
        devices=1,
        precision=hardware.precision,
        callbacks=[recorder],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
    )


def _build_callback(name: str, component: Component) -> L.Callback:
    cls = _resolve(component)
    if not (isinstance(cls, type) and issubclass(cls, L.Callback)):
        raise UserError(f"callbacks.{name}._target_={component.target}: that is no callback (lightning.Callback).")
    try:
        return cls(**component.arguments())
    except (ValueError, TypeError, MisconfigurationException) as error:
        raise UserError(f"callbacks.{name}: {str(error).splitlines()[0]}") from error


def _profiler(folder: Path) -> PyTorchProfiler:
    """Records three steps of training; in those before, kernels are chosen and memory is fetched."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # it reports its start and end, and GPUs that are not there

    @rank_zero_only
    def write(profile: Any) -> None:
        if folder.exists():  # those of a validation come later
            return
        folder.mkdir()
        profile.export_chrome_trace(str(folder / "trace.json"))
        key = "self_device_time_total" if profile.use_device else "self_cpu_time_total"
        costs = profile.key_averages(group_by_input_shape=True).table(key, row_limit=40, max_name_column_width=50)
        (folder / "costs.txt").write_text(costs, encoding="utf-8")

    schedule = torch.profiler.schedule(wait=0, warmup=3, active=3, repeat=1)
    return PyTorchProfiler(schedule=schedule, on_trace_ready=write, record_shapes=True)


def _quiet_trainer(**options: Any) -> L.Trainer:
    # its banners repeat what the run's own summary says; warnings stay
    for name in ("pytorch.utilities.rank_zero", "fabric.utilities.seed", "fabric.utilities.distributed"):
        logging.getLogger(f"lightning.{name}").setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers.*",  # one indexing call a batch needs none
        ".*your dataloader is not resumable.*",  # BatchOrder begins where the run does
        ".*Experiment logs directory .* exists.*",  # Hydra made it a moment ago
        ".*(LeafSpec|all_gather).* is deprecated.*",  # torch's complaint about Lightning
        ".*recommended to use .*sync_dist=True.*",  # Metric.compute has seen all processes
        ".*number of training batches .* is smaller than the logging interval.*",
        ".*Profiler clears events.*",  # a profile has one cycle
        ".*lr_scheduler.step.*before.*optimizer.step.*",  # the first step of a loss scaler may be skipped
    ):
        warnings.filterwarnings("ignore", message)
    try:
        return L.Trainer(enable_model_summary=False, **options)
    except (ValueError, TypeError, MisconfigurationException) as error:
        raise UserError(f"trainer: {str(error).splitlines()[0]}") from error
