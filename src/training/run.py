"""One run: which it is, that nobody else works on it, and how it ends; session.py does the work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from src.config import groups
from src.config.cli import check_needs, importing
from src.config.errors import Stopped
from src.config.files import check_weights
from src.config.folder import Run, lock, settle
from src.config.paths import for_shell, option
from src.config.process import Interrupts, check_processes, is_child, requeue, slot
from src.config.schema import TrainConfig
from src.results.outcome import Outcome
from src.training.again import Again

if TYPE_CHECKING:
    from lightning import Callback


def train(
    config: TrainConfig,
    folder: Path,
    *,
    command: str = "",
    named: Sequence[str] = (),
    callbacks: Sequence[Callback] = (),
) -> float | None:
    """Run one experiment in `folder`, or go on with the one that was begun there; gives the best of what `monitor`
    names.

    `command` runs it again, and is written down; `named` are the overrides that the user wrote: with `resume=`, only
    what they name is changed or refused, and with `again=` they are few; `callbacks` come besides the run's own. Raises
    UserError if the request can't be served, RunError if the run failed on its way, or its digits did not come
    `again`, and Stopped if it was asked to stop.
    """
    again = Again(config, folder, named) if config.again else None
    run = settle(folder, again.config if again else config, named)
    check_processes(run.config)
    if run.config.init.weights and not run.saved:
        check_weights(run.config.init.weights)
    best = _show_finished(run) if run.finished else _begin(run, command, callbacks, again)
    if again and not is_child():
        again.compare()
    return best


def _begin(run: Run, command: str, callbacks: Sequence[Callback], again: Again | None) -> float | None:
    check_needs(run.config)
    folder = run.folder
    with Interrupts() as interrupts, lock(folder):
        try:
            return _train(run, interrupts, command, callbacks, again)
        except Stopped as stop:
            interrupts.hand_on(stop.number)
            if not is_child():
                requeue(stop.number)
            how = " the same command; nothing was saved yet"
            if (folder / "checkpoints" / "last.ckpt").exists():
                near = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
                words = [option("again", again.origin), option("hydra.run.dir", near)] if again else []
                how = f"\n{groups.command('train', *(words or [option('resume', near)]))}"
            raise Stopped(stop.number, f"{stop} To continue:{how}") from stop


def _train(
    run: Run, interrupts: Interrupts, command: str, callbacks: Sequence[Callback], again: Again | None
) -> float | None:
    # a request that was refused must not wait for torch
    with importing(), interrupts.waiting():
        from src.model.build import prepared
        from src.model.hardware import pick_hardware
        from src.model.saved import About
        from src.training.failures import explained
        from src.training.resume import continued, to_resume
        from src.training.session import Session
        from src.training.trackers import Trackers

    folder, hardware = run.folder, pick_hardware(run.config.device, run.config.precision, slot())
    config, splits = prepared(run.config)
    about = About.of(config, splits, hardware.precision, again.command if again else command)
    if again and not is_child():
        again.show_notes(about, hardware)
    resumed = to_resume(run) if run.saved else None
    if resumed:
        about, notes = continued(resumed, about)
        hardware = replace(hardware, note=" ".join(filter(None, [hardware.note, *notes])))
    with explained(config, folder), Trackers(config, folder) as trackers:
        session = Session(config, hardware, folder, interrupts, trackers, resumed, callbacks)
        return session.run(splits, about)


def _show_finished(run: Run) -> float | None:
    outcome, steps = Outcome.read(run.folder), run.config.trainer.max_steps
    split, score = ("test", outcome.test) if outcome.test else ("val", outcome.val)
    if not is_child():
        of = f"{score.images:,} {split} images after {outcome.train.epochs} epochs"
        print(f"This run is finished: accuracy of {of}: {score.verdict}.")
        more = "" if steps and steps > 0 else " A greater trainer.max_epochs goes on."
        print(f"{run.folder}: nothing to do.{more}")
        if run.config.report and not (run.folder / "report.html").exists():  # it was stopped before that
            print(f"Its page is missing; this makes it: {groups.command('report', for_shell(str(run.folder)))}")
    return outcome.monitor.value
