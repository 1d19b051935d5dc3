"""One process's work on a run: its callbacks, its logs and checkpoints, and what it came to."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import lightning as L
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor

from src.config.errors import UserError
from src.config.files import write_config
from src.config.process import Interrupts
from src.config.schema import TrainConfig
from src.model.answers import Answers
from src.model.classifier import Classifier
from src.model.hardware import Hardware, flops_per_image, matmul_rate
from src.results.outcome import Outcome, Score, Training, Validation
from src.training.callbacks.finite import FiniteLoss
from src.training.callbacks.metrics import LogMetrics
from src.training.callbacks.progress import ProgressBar, progress_callback
from src.training.callbacks.recorder import RecordAnswers
from src.training.callbacks.throughput import Throughput
from src.training.logs import RunLogs
from src.training.position import START
from src.training.resume import Resumed
from src.training.saving import Checkpoints, Writer, previous
from src.training.stopping import Stopping
from src.training.trackers import Trackers, hyperparameters
from src.training.trainer import build_callback, build_trainer, options_of


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
        self.recorder = RecordAnswers()
        listed = [*self._callbacks(interrupts), *callbacks]
        self.trainer = build_trainer(
            hardware,
            devices=hardware.devices(config.devices),
            callbacks=listed,
            logger=self.logs.loggers,
            plugins=[writer],
            default_root_dir=folder,
            use_distributed_sampler=False,  # BatchOrder divides the images among the processes
            num_sanity_val_steps=0,  # they would be taken for a validation
            **options_of(config, hardware, folder, bar=any(isinstance(callback, ProgressBar) for callback in listed)),
        )

    def _callbacks(self, interrupts: Interrupts) -> list[L.Callback]:
        """In the order in which each hook calls them; where it matters, a line says why."""
        config = self.config
        listed = [
            # before the checkpoints, so that the step at which a run stops is saved once
            Stopping(interrupts, self.checkpoints, config.trainer.max_time),
            # before what logs when a batch starts: it would be in the logs of the checkpoint, and be logged again;
            # before weight averaging, which takes the averages away when a validation ends: they are the best weights
            self.checkpoints,
            self.recorder,  # before the pictures of its answers
            *(build_callback(name, component) for name, component in config.callbacks.components().items()),
            self.throughput,  # after those that draw, whose time it leaves out; before what shows its rate
            LogMetrics(),  # before what reads the metrics of an epoch: the lines
            FiniteLoss(self.checkpoints.last),
            config.trainer.enable_progress_bar is not False and progress_callback(self.throughput),
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
        if self.config.trainer.profiler == "pytorch" and not (self.folder / "profile").exists():
            rank_zero_warn("trainer.profiler=pytorch: too few steps for a profile, which needs 6.")
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
