"""The Lightning trainer of a run with its callbacks and loggers, and what is read off them afterwards."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import lightning as L
from lightning.pytorch.callbacks import EarlyStopping, EMAWeightAveraging
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor

from src.config.check import as_yaml
from src.config.errors import UserError
from src.config.files import write_config
from src.config.interrupts import Interrupts
from src.config.schema import TrainConfig
from src.model.answers import Answers
from src.model.classifier import Classifier
from src.model.hardware import Hardware, flops_per_image, keep_freed_memory, matmul_rate
from src.results.outcome import Outcome, Score, Training, Validation
from src.training.callbacks.answers import RecordAnswers
from src.training.callbacks.config_text import ConfigText
from src.training.callbacks.dashboard import Dashboard
from src.training.callbacks.epoch_metrics import EpochMetrics
from src.training.callbacks.finite import FiniteLoss
from src.training.callbacks.progress import ProgressBar, progress_callback
from src.training.callbacks.step_metrics import StepMetrics
from src.training.callbacks.throughput import Throughput
from src.training.callbacks.trace import Trace
from src.training.logs import RunLogs
from src.training.position import START
from src.training.resume import Resumed
from src.training.saving import Checkpoints, Writer, previous
from src.training.stopping import Stopping
from src.training.trackers import Trackers, hyperparameters

QUIET = (  # warnings of Lightning's that are wrong here
    ".*does not have many workers.*",  # one indexing call a batch needs none
    ".*your dataloader is not resumable.*",  # BatchOrder begins where the run does
    ".*Experiment logs directory .* exists.*",  # Hydra made it a moment ago
    ".*(LeafSpec|all_gather).* is deprecated.*",  # torch's complaint about Lightning
    ".*recommended to use .*sync_dist=True.*",  # Metric.compute has seen all processes
    ".*number of training batches .* is smaller than the logging interval.*",
    ".*lr_scheduler.step.*before.*optimizer.step.*",  # the first step of a loss scaler may be skipped
)


class Session:
    """One process's work on a run, in `folder`: from its start, or from `checkpoint`, which was taken at `position`.

    Args:
        callbacks: a caller's, besides the run's own.
    """

    def __init__(
        self,
        config: TrainConfig,
        hardware: Hardware,
        folder: Path,
        interrupts: Interrupts,
        trackers: Trackers,
        resumed: Resumed | None = None,
        callbacks: Sequence[L.Callback] = (),
    ) -> None:
        self.config, self.folder, self.trackers = config, folder, trackers
        self._hardware, self._resumed = hardware, resumed
        self.position = resumed.position if resumed else START
        self.checkpoint = resumed.path if resumed else None
        self._ends_at_once = bool(resumed and resumed.finished(config))
        self.logs = RunLogs(folder, config.logger.tensorboard, resumed and resumed.content["logs"], self.position.steps)
        writer = Writer(resumed and resumed.content)
        path = folder / "checkpoints"
        self.checkpoints = Checkpoints(path, config.callbacks, writer, self.logs, self._ends_at_once)
        self.throughput = Throughput()
        self.recorder, pictures = answers_and_pictures(config, self.logs.tensorboard)
        listed = [*self._callbacks(interrupts, pictures), *callbacks]
        self.trainer = build_trainer(
            hardware,
            devices=hardware.devices(config.devices),
            callbacks=listed,
            logger=self.logs.loggers,
            plugins=[writer],
            default_root_dir=folder,
            use_distributed_sampler=False,  # BatchOrder divides the images among the processes
            num_sanity_val_steps=0,  # they would be taken for a validation
            **_options(config, hardware, bar=any(isinstance(callback, ProgressBar) for callback in listed)),
        )

    def _callbacks(self, interrupts: Interrupts, pictures: list[L.Callback]) -> list[L.Callback]:
        """In the order in which each hook calls them; where it matters, a line says why."""
        config, asked = self.config, self.config.callbacks
        average, patience = asked.weight_averaging, asked.early_stopping
        listed = [
            # before the checkpoints, so that the step at which a run stops is saved once
            Stopping(interrupts, self.checkpoints, config.trainer.max_time),
            # before what logs when a batch starts: it would be in the logs of the checkpoint, and be logged again;
            # before weight averaging, which takes the averages away when a validation ends: they are the best weights
            self.checkpoints,
            self.recorder,  # before the pictures of its answers
            *pictures,
            self.throughput,  # before the bar and the lines, which show its rate
            StepMetrics(config.dashboard.gradient_norm),
            EpochMetrics(),  # before what reads the metrics of an epoch: the lines, and early stopping
            FiniteLoss(self.checkpoints.last),
            average and EMAWeightAveraging(decay=average),
            config.trainer.enable_progress_bar is not False and progress_callback(self.throughput),
            patience and EarlyStopping("val/acc", mode="max", patience=patience, strict=False),
            self.logs.tensorboard and not self.checkpoint and ConfigText(as_yaml(config)),
            config.trainer.profiler == "trace" and Trace(self.folder / "profile"),
        ]
        return [callback for callback in listed if isinstance(callback, L.Callback)]

    def begin(self) -> None:
        """Bring the folder to the moment from which this session goes on, if this process leads.

        Raises:
            UserError: a tracker can't be reached; nothing was changed.
        """
        resumed, self._resumed = self._resumed, None  # its tensors are Lightning's now, which lets go of them
        if not self.trainer.is_global_zero:
            return
        self.trainer.loggers = [*self.logs.loggers, *self.trackers.open()]
        if resumed is not None:
            resumed.make_last(self.checkpoints.last, self.checkpoints.best)
        if not self._ends_at_once:  # a finished run that is to have more epochs is unfinished from here on
            for name in ("results.json", "report.html", "summary.png"):
                (self.folder / name).unlink(missing_ok=True)
        write_config(self.folder / "config.yaml", self.config)
        self.logs.cut()

    def best_checkpoint(self) -> Path:
        """The checkpoint of the best validation accuracy; the last one where nothing was validated."""
        if self.checkpoints.best_step is not None:
            return self.checkpoints.best
        if not self.checkpoints.last.exists() or not self.trainer.global_step:
            raise UserError("nothing was trained: trainer.max_steps ended the run at its start.")
        return self.checkpoints.last

    @property
    def answers(self) -> Answers | None:
        """What the test set was answered, if there was a test."""
        answers = self.recorder.answers
        return answers if answers and answers.split == "test" else None

    def outcome(self, classifier: Classifier, scores: Mapping[str, float] | None, best: Path) -> Outcome:
        """What the run came to, but for the machine's own rate; `scores` are the test's, if there was one."""
        rate, about = self.throughput.rate, classifier.about
        training = Training(
            seconds=round(self.checkpoints.seconds, 2),
            epochs=self.trainer.current_epoch,
            interruptions=self.checkpoints.interruptions,
            checkpoint_seconds=round(self.checkpoints.stalled, 3),
            images=about.images.train,
            images_per_second=rate and round(rate, 2),
            flops_per_image=flops_per_image(classifier.network, cast(Tensor, classifier.example_input_array)),
        )
        score = None
        if scores and self.answers:
            loss = scores["test/loss"] if math.isfinite(scores["test/loss"]) else None
            score = Score(accuracy=scores["test/acc"], loss=loss, images=len(self.answers))
        return Outcome.of(
            about,
            device=self._hardware.accelerator,
            parameters=sum(weight.numel() for weight in classifier.network.parameters()),
            train=training,
            val=Validation(accuracy=self.checkpoints.best_score, images=about.images.val),
            test=score,
            checkpoint=best.relative_to(self.folder).as_posix(),
        )

    def end(self, outcome: Outcome) -> Outcome:
        """Write the outcome down, and give it with the share of the machine's own rate; for the process that leads."""
        scores = {"final/val/acc": outcome.val.accuracy or 0.0}
        if outcome.test:
            loss = math.nan if outcome.test.loss is None else outcome.test.loss
            scores |= {"final/test/acc": outcome.test.accuracy, "final/test/loss": loss}
        self.trackers.record(scores)
        if self.logs.tensorboard is not None:
            self.logs.tensorboard.log_hyperparams(hyperparameters(self.config), scores)
            self.logs.tensorboard.save()
        outcome.write(self.folder)
        for path in (self.checkpoints.best, self.checkpoints.last):  # kept for the case of a damaged one
            previous(path).unlink(missing_ok=True)
        rate, flops = outcome.train.images_per_second, outcome.train.flops_per_image
        peak = self._peak() if rate and flops else None  # only now: it takes memory that there may not be
        if rate and flops and peak:
            train = outcome.train.model_copy(update={"share_of_peak": round(rate * flops / peak, 4)})
            outcome = outcome.model_copy(update={"train": train})
            outcome.write(self.folder)
        return outcome

    def _peak(self) -> float | None:
        """Floating-point operations a second of all devices; None where they have no memory left to measure it."""
        try:
            rate = matmul_rate(self.trainer.strategy.root_device, self._hardware.precision)
        except (MemoryError, RuntimeError):  # torch has no type of its own for a CPU's
            return None
        return rate * self.trainer.world_size


def answers_and_pictures(
    config: TrainConfig, tensorboard: TensorBoardLogger | None
) -> tuple[RecordAnswers, list[L.Callback]]:
    """What keeps the answers of validations and test, and TensorBoard's pictures of them."""
    shown = config.dashboard
    if tensorboard is None:
        return RecordAnswers(), []
    recorder = RecordAnswers(validation=shown.confusion or shown.mistakes > 0, features=shown.embeddings)
    return recorder, [Dashboard(config, recorder, tensorboard)]


def _options(config: TrainConfig, hardware: Hardware, bar: bool) -> dict[str, Any]:
    """The config's own for Lightning's trainer."""
    options = config.trainer.model_dump(exclude_none=True) | {"enable_progress_bar": bar}
    options.pop("max_time", None)  # Lightning's own timer counts from the first start on, and then tests
    if config.trainer.profiler == "trace":  # Lightning's own records each phase apart and keeps the last one's
        del options["profiler"]
    if hardware.accelerator == "cuda":
        options.setdefault("benchmark", not config.trainer.deterministic)
    return options


def build_scorer(hardware: Hardware, recorder: RecordAnswers) -> L.Trainer:
    """A trainer that only evaluates and leaves nothing behind."""
    return build_trainer(hardware, devices=1, callbacks=[recorder], logger=False, enable_progress_bar=False)


def build_trainer(hardware: Hardware, **options: Any) -> L.Trainer:
    """Raises UserError if Lightning refuses an option."""
    if hardware.accelerator == "cpu":
        keep_freed_memory()
    # its banners repeat what the run's own summary says; warnings stay
    for name in ("pytorch.utilities.rank_zero", "fabric.utilities.seed", "fabric.utilities.distributed"):
        logging.getLogger(f"lightning.{name}").setLevel(logging.WARNING)
    for message in QUIET:
        warnings.filterwarnings("ignore", message)
    options |= {"accelerator": hardware.accelerator, "precision": hardware.precision}
    try:
        return L.Trainer(enable_model_summary=False, enable_checkpointing=False, **options)  # Checkpoints does it
    except (ValueError, TypeError, L.pytorch.utilities.exceptions.MisconfigurationException) as error:
        raise UserError(f"trainer: {str(error).splitlines()[0]}") from error
