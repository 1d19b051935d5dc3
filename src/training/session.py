"""One process's work on a run: its callbacks, its logs and checkpoints, and what it came to."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from textwrap import indent
from typing import Any

import lightning as L

from src.config.check import as_yaml
from src.config.errors import UserError
from src.config.files import write_text
from src.config.process import Interrupts
from src.config.schema import TrainConfig
from src.data.datamodule import used
from src.data.images import Splits
from src.model import init
from src.model.answers import Answers
from src.model.build import build_classifier, build_datamodule, build_metrics
from src.model.classifier import Classifier
from src.model.hardware import Hardware
from src.model.network import compile_network, load_weights, summarize
from src.model.predictor import Predictor
from src.model.saved import About, Checkpoint, load
from src.results import predictions
from src.results.outcome import Monitor, Outcome, Score, Training, Validation
from src.results.screen import show_end, show_loaded, show_start
from src.training.callbacks.log_metrics import LogMetrics
from src.training.callbacks.progress import EpochLines, ProgressBar
from src.training.callbacks.recorder import RecordAnswers
from src.training.checkpoints import Checkpoints
from src.training.logs import RunLogs
from src.training.position import Position
from src.training.resume import Resumed
from src.training.saving import join
from src.training.trackers import Trackers, hyperparameters
from src.training.trainer import build_callback, build_trainer


class Session:
    """One process's work on a run; `callbacks` are a caller's, besides the run's own."""

    def __init__(
        self,
        config: TrainConfig,
        hardware: Hardware,
        folder: Path,
        interrupts: Interrupts,
        trackers: Trackers,
        resumed: Resumed | None,
        callbacks: Sequence[L.Callback],
    ) -> None:
        self.config, self.folder, self.hardware = config, folder, hardware
        self.trackers, self.resumed = trackers, resumed
        self.logs = RunLogs(folder, config.logger, resumed)
        self.checkpoints = Checkpoints(folder / "checkpoints", config, self.logs, interrupts, resumed)
        self.metrics, self.recorder = LogMetrics(), RecordAnswers(folder, self.checkpoints)
        progress = [EpochLines(), *([ProgressBar(self.metrics)] if sys.stdout.isatty() else [])]
        listed = [  # in the order in which each hook calls them
            # before what logs when a batch starts: it would be in the logs of the checkpoint, and be logged again;
            # before weight averaging, which takes the averages away when a validation ends: they are the best weights
            self.checkpoints,
            self.recorder,  # before what reads the epoch's metrics, and the pictures of its answers
            *(build_callback(name, component, config) for name, component in config.callbacks.components().items()),
            self.metrics,  # after those that draw, whose time its rate leaves out; before what shows that
            self.checkpoints.finite,
            *(progress if config.trainer.enable_progress_bar is not False else []),
            *callbacks,
        ]
        parts = {"logger": self.logs.loggers, "plugins": [self.checkpoints.writer]}
        self.trainer = build_trainer(config, hardware, folder, listed, **parts)

    def run(self, splits: Splits, about: About) -> float | None:
        """Train, test the best checkpoint once, write down what it came to; gives the best of what `monitor` names."""
        config, trainer, checkpoints, resumed = self.config, self.trainer, self.checkpoints, self.resumed
        position = resumed.position if resumed else Position(0, 0, 0, 0)
        if (few := min(map(len, (splits.train, splits.valid, splits.test)))) < trainer.world_size:
            raise UserError(f"devices: {trainer.world_size} processes need an image each of every set; one has {few}.")
        L.seed_everything(config.seed, verbose=False)
        datamodule = build_datamodule(config, splits, start=(position.epoch, position.batch))
        datamodule.step = position.batches
        classifier = build_classifier(config, self.hardware, about, splits)
        loaded = None if resumed else init.load(classifier.network, config.init)
        if loaded:
            classifier.about = about = about.model_copy(update={"init_sha256": loaded.sha256})
        summary, self.used = summarize(classifier, len(splits.classes)), used(splits, config, trainer.world_size)
        if config.compile:
            compile_network(classifier, self.hardware)
        if trainer.is_global_zero:
            goes_on_at = position.of_all(config, self.used["train"] / trainer.world_size) if resumed else None
            show_start(config, splits, self.used, self.hardware, self.folder, summary, goes_on_at, about.command)
            show_loaded(loaded)
            self._begin(classifier)
        trainer.fit(classifier, datamodule, ckpt_path=resumed.path if resumed else None, weights_only=True)
        if not trainer.global_step:
            raise UserError("nothing was trained: trainer.max_steps ended the run at its start.")
        best = checkpoints.last if checkpoints.best_step is None else checkpoints.best  # without validation
        load_weights(classifier.network, load(best, config))
        if config.test:
            trainer.test(classifier, datamodule, verbose=False)
        answers = self.recorder.answers if config.test else None
        self.broken = datamodule.replaced()
        if trainer.is_global_zero:
            outcome = self._outcome(classifier, splits, answers, best)
            self._end(outcome, answers)
            if config.report:
                from src.results.page import try_to_save  # matplotlib, for which the first step need not wait

                predictor = Predictor(classifier.network, config, about, self.hardware)
                try_to_save(self.folder, predictor, answers, splits, outcome)
            show_end(outcome, self.folder, config, about.handwritten)
        return checkpoints.best_score

    def _begin(self, classifier: Classifier) -> None:
        """Bring the folder to where this session goes on; if a tracker is out, or the weights are another network's,
        raise UserError and change nothing."""
        resumed, last = self.resumed, self.checkpoints.last
        if resumed:
            load_weights(classifier.network, Checkpoint.of(resumed.path, self.config, resumed.about, resumed.content))
        self.trainer.loggers = [*self.logs.loggers, *self.trackers.open()]
        last.parent.mkdir(parents=True, exist_ok=True)
        for left in [*self.folder.glob(".*.part"), *last.parent.glob(".*.part")]:
            left.unlink()  # a process that was killed wrote it
        if resumed:
            resumed.make_last(last, self.checkpoints.best)
        # a finished run that is to have more epochs is unfinished from here on
        if not resumed or not resumed.finished(self.config):
            for name in ("results.json", "report.html", "summary.png"):
                (self.folder / name).unlink(missing_ok=True)
        write_text(self.folder / "config.yaml", as_yaml(self.config))
        self.logs.cut()
        if self.logs.tensorboard and not resumed:
            self.logs.tensorboard.experiment.add_text("config", indent(as_yaml(self.config), "    "))

    def _outcome(self, classifier: Classifier, splits: Splits, answers: Answers | None, best: Path) -> Outcome:
        """What the run came to; `answers` are the test's."""
        rate, about, checkpoints = self.metrics.rate, classifier.about, self.checkpoints
        train = Training(
            seconds=round(checkpoints.seconds, 2),
            epochs=self.trainer.current_epoch,
            interruptions=checkpoints.interruptions,
            checkpoint_seconds=round(checkpoints.stalled, 3),
            images=self.used["train"],
            images_per_second=rate and round(rate, 2),
            accuracy=self.recorder.accuracy,
        )
        best_of = checkpoints.best_measured
        return Outcome.of(
            about,
            device=self.hardware.accelerator,
            parameters=sum(weight.numel() for weight in classifier.network.parameters()),
            train=train,
            monitor=Monitor(name=self.config.monitor, mode=self.config.monitor_mode, value=checkpoints.best_score),
            val=Validation(
                accuracy=best_of.get("val/acc"),
                images=self.used["val"],
                metrics={name: best_of.get(f"val/{name}") for name in self.config.metrics.components()},
                chance=splits.valid.chance,
                sha256=splits.valid.sha256(),
            ),
            test=answers and self._score(answers, splits),
            broken=self.broken,
            checkpoint=best.relative_to(self.folder).as_posix(),
        )

    def _score(self, answers: Answers, splits: Splits) -> Score:
        """What the test came to."""
        metrics = build_metrics(self.config, len(answers.classes))
        return Score(
            accuracy=answers.accuracy,
            loss=answers.loss if math.isfinite(answers.loss) else None,
            images=len(answers),
            metrics={name: float(self.trainer.callback_metrics[f"test/{name}"]) for name in metrics},
            chance=answers.images.chance,
            sha256=splits.test.sha256(),
            intervals=predictions.intervals(answers, metrics),
        )

    def _end(self, outcome: Outcome, answers: Answers | None) -> None:
        """Write the outcome down, for people and trackers."""
        best: dict[str, Any] = {
            f"best/{name}": value for name, value in self.checkpoints.best_measured.items() if name != "val/loss"
        }
        if answers and outcome.test:
            best |= {"best/test/acc": answers.accuracy, "best/test/loss": answers.loss}
            best |= {f"best/test/{name}": value for name, value in outcome.test.metrics.items()}
        tensorboard = self.logs.tensorboard
        for tracker in filter(None, [*self.trackers.loggers, tensorboard]):
            tracker.log_metrics(best)
        if tensorboard:
            from torch.utils.tensorboard.summary import hparams  # for which the first step need not wait

            # the first of three would name the columns for all runs; without it what differs stands first, then by name
            _, *summaries = hparams({"Changed": outcome.changed} | hyperparameters(self.config), best)
            for summary in summaries:
                tensorboard.experiment._get_file_writer().add_summary(summary)  # it may be closed
            tensorboard.experiment.flush()
        predictions.add(self.folder, answers)
        outcome.write(self.folder)
        if not self.checkpoints.keep_optimizer:
            join(self.checkpoints.last, self.checkpoints.best)
        for older in self.checkpoints.last.parent.glob("*.previous.ckpt"):  # kept for the case of a damaged one
            older.unlink()
