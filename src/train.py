"""Train a network and test its best checkpoint once: python -m src.train dataset=mnist"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from src.config import extras
from src.config import folder as runs
from src.config import process as cluster
from src.config.cli import command_line, importing, launch, task_overrides
from src.config.errors import Stopped
from src.config.interrupts import Interrupts
from src.config.schema import TrainConfig

if TYPE_CHECKING:
    from lightning import Callback


def train(config: TrainConfig, folder: Path, callbacks: Sequence[Callback] = ()) -> float | None:
    """Run one experiment in `folder`, or go on with the one that was begun there; `callbacks` are a search's.

    Gives the best validation accuracy, None if none was measured.

    Raises:
        UserError: the request can't be served.
        RunError: the run failed on its way.
        Stopped: it was asked to stop, and left a checkpoint.
    """
    run = runs.settle(folder, config, task_overrides())
    cluster.check_processes(run.config)
    extras.need_loggers(run.config.logger)
    if run.finished:
        return runs.show_finished(run)
    with Interrupts() as interrupts, runs.lock(run):
        try:
            return _train(run, interrupts, callbacks)
        except Stopped as stop:
            interrupts.hand_on(stop.number)
            if not runs.is_child():
                cluster.requeue(stop.number)
            raise runs.how_to_go_on(stop, folder) from stop


def _train(run: runs.Run, interrupts: Interrupts, callbacks: Sequence[Callback]) -> float | None:
    # a config that was refused must not wait for torch
    with importing(), interrupts.waiting():
        import lightning as L

        from src.data.images import split
        from src.model import build as experiment
        from src.model import saved as checkpoint
        from src.model.hardware import pick_hardware
        from src.results import outcome as results
        from src.results import screen
        from src.training import failures
        from src.training import trainer as training
        from src.training.trackers import Trackers

    config, folder = run.config, run.folder
    hardware = pick_hardware(config.device, config.precision, cluster.slot())
    dataset = runs.without_strange_mirrors(config.dataset) if run.saved else config.dataset
    images = experiment.read_images(dataset, config.data_dir)
    splits = split(images, config.dataset.valid_fraction, config.seed)
    config = config.model_copy(update={"dataset": experiment.with_found(config.dataset, splits)})
    about = results.describe(config, splits, hardware.precision, command_line("train"))
    resumed = checkpoint.to_resume(run) if run.saved else None
    if resumed:
        about, notes = checkpoint.continued(resumed, about)
        hardware = hardware.noting(notes)

    with failures.explained(config, folder), Trackers(config, folder) as trackers:
        L.seed_everything(config.seed, verbose=False)
        start = (resumed.position.epoch, resumed.position.batch) if resumed else (0, 0)
        datamodule = experiment.build_datamodule(config, splits, start=start)
        classifier = experiment.build_classifier(config, hardware, about)
        summary = experiment.summarize(classifier, len(splits.classes))
        if config.compile:
            experiment.compile_network(classifier, hardware)
        session = training.Session(config, hardware, folder, interrupts, trackers, resumed, callbacks)
        trainer = session.trainer
        position, path = (resumed.position, resumed.path) if resumed else (None, None)
        if trainer.is_global_zero:
            screen.show_start(config, splits, hardware, folder, summary, position)
            session.begin(resumed)
        resumed = None  # its tensors are Lightning's, which lets go of them

        trainer.fit(classifier, datamodule, ckpt_path=path, weights_only=True)
        best = session.best_checkpoint()
        experiment.load_weights(classifier.network, checkpoint.load(best))
        scores = trainer.test(classifier, datamodule, verbose=False)[0] if config.test else None
        outcome = results.collect(about, scores, session.measured(classifier), best)
        if trainer.is_global_zero:
            session.record(outcome)
            session.end(outcome)
            if config.report:
                from src.model.predictor import Predictor
                from src.results import (
                    page as report_page,  # draws with matplotlib, for which the first step need not wait
                )

                predictor = Predictor(classifier.network, config, about, hardware)
                report_page.try_to_save(folder, predictor, session.answers, splits, outcome)
            screen.show_end(outcome, folder, trackers.links)
    return outcome["val"]["accuracy"]


def main() -> None:
    launch("train", TrainConfig, train)


if __name__ == "__main__":
    main()
