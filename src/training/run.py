"""One run: build, fit, test the best checkpoint once, write down what it came to."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from src.config.cli import importing, need_loggers
from src.config.errors import Stopped
from src.config.folder import Run, lock, settle
from src.config.process import Interrupts, check_processes, is_child, requeue, slot
from src.config.schema import TrainConfig
from src.results.outcome import Outcome

if TYPE_CHECKING:
    from lightning import Callback

    from src.data.images import Splits
    from src.model.hardware import Hardware
    from src.model.saved import About
    from src.training.session import Session


def train(
    config: TrainConfig,
    folder: Path,
    *,
    command: str = "",
    named: Sequence[str] = (),
    callbacks: Sequence[Callback] = (),
) -> float | None:
    """Run one experiment in `folder`, or go on with the one that was begun there.

    Gives the best validation accuracy, None if none was measured.

    Args:
        command: runs it again; results.json and the checkpoints name it.
        named: the overrides that the user wrote: with `resume=`, only what they name is changed or refused.
        callbacks: besides the run's own.

    Raises:
        UserError: the request can't be served.
        RunError: the run failed on its way.
        Stopped: it was asked to stop, and left a checkpoint.
    """
    run = settle(folder, config, named)
    check_processes(run.config)
    need_loggers(run.config.logger)
    if run.finished:
        return show_finished(run.folder)
    with Interrupts() as interrupts, lock(folder):
        try:
            return _train(run, interrupts, command, callbacks)
        except Stopped as stop:
            interrupts.hand_on(stop.number)
            if not is_child():
                requeue(stop.number)
            raise how_to_go_on(stop, folder) from stop


def _train(run: Run, interrupts: Interrupts, command: str, callbacks: Sequence[Callback]) -> float | None:
    # a request that was refused must not wait for torch
    with importing(), interrupts.waiting():
        from src.data.images import split
        from src.model.build import read_images, resolved
        from src.model.hardware import pick_hardware
        from src.model.saved import About
        from src.training.failures import explained
        from src.training.resume import continued, to_resume
        from src.training.session import Session
        from src.training.trackers import Trackers

    config, folder = run.config, run.folder
    hardware = pick_hardware(config.device, config.precision, slot())
    splits = split(read_images(config.dataset, config.data_dir), config.dataset.valid_fraction, config.seed)
    config = config.model_copy(update={"dataset": resolved(config.dataset, splits)})
    about = About.of(config, splits, hardware.precision, command)
    resumed = to_resume(run) if run.saved else None
    if resumed:
        about, notes = continued(resumed, about)
        hardware = hardware.noting(notes)
    with explained(config, folder), Trackers(config, folder) as trackers:
        session = Session(config, hardware, folder, interrupts, trackers, resumed, callbacks)
        del resumed  # it is large
        return _fit_and_test(session, splits, hardware, about).val.accuracy


def _fit_and_test(session: Session, splits: Splits, hardware: Hardware, about: About) -> Outcome:
    import lightning as L

    from src.model.build import build_classifier, build_datamodule, compile_network, load_weights, summarize
    from src.model.saved import load
    from src.results.screen import show_end, show_start

    config, folder, trainer = session.config, session.folder, session.trainer
    L.seed_everything(config.seed, verbose=False)
    position = session.position
    datamodule = build_datamodule(config, splits, start=(position.epoch, position.batch))
    datamodule.step = position.batches
    classifier = build_classifier(config, hardware, about)
    summary = summarize(classifier, len(splits.classes))
    if config.compile:
        compile_network(classifier, hardware)
    if trainer.is_global_zero:
        show_start(config, splits, hardware, folder, summary, None if session.checkpoint is None else str(position))
    session.begin()
    trainer.fit(classifier, datamodule, ckpt_path=session.checkpoint, weights_only=True)
    best = session.best_checkpoint()
    load_weights(classifier.network, load(best))
    scores = trainer.test(classifier, datamodule, verbose=False)[0] if config.test else None
    outcome = session.outcome(classifier, scores, best)
    if trainer.is_global_zero:
        outcome = session.end(outcome)
        if config.report:
            from src.model.predictor import Predictor
            from src.results.page import try_to_save  # matplotlib, for which the first step need not wait

            predictor = Predictor(classifier.network, config, about, hardware)
            try_to_save(folder, predictor, session.answers, splits, outcome)
        show_end(outcome, folder, session.trackers.links)
    return outcome


def show_finished(folder: Path) -> float | None:
    """Say that there is nothing to do, and give what the run gave."""
    outcome = Outcome.read(folder)
    split, score = ("test", outcome.test) if outcome.test else ("val", outcome.val)
    accuracy = "no validation" if score.accuracy is None else f"{score.accuracy:.2%}"
    if not is_child():
        images, epochs = f"{score.images:,} {split} images", outcome.train.epochs
        print(f"This run is finished: {accuracy} of {images} after {epochs} epochs.")
        print(f"{folder}: nothing to do. A greater trainer.max_epochs goes on.")
    return outcome.val.accuracy


def how_to_go_on(stop: Stopped, folder: Path) -> Stopped:
    """The same, with the command that goes on."""
    began = (folder / "checkpoints" / "last.ckpt").exists()
    near = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
    word = (
        f"python -m src.train resume={shlex.quote(str(near))}" if began else "the same command; nothing was saved yet"
    )
    return Stopped(stop.number, f"{stop} It goes on with: {word}")
