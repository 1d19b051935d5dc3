"""From which checkpoint a run goes on, and what must hold for that."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from textwrap import shorten

import torch
from pydantic import ValidationError

from src.config.check import check, flat, targets
from src.config.errors import UserError
from src.config.files import whole
from src.config.folder import Run
from src.config.schema import Section, TrainConfig
from src.model.provenance import way_back
from src.model.saved import About, Content, read
from src.training.saving import Saved, previous


class _State(Section, extra="ignore"):
    """What must be in a checkpoint besides, for Lightning and the classifier."""

    callbacks: dict[str, dict]
    epoch_so_far: dict[str, dict]
    optimizer_states: list[dict]


class Resumed(Saved):
    """A checkpoint that a run goes on from; its `content` is empty as soon as Lightning has it, for it is large."""

    path: Path
    about: About
    content: Content

    def make_last(self, last: Path, best: Path) -> None:
        """Leave no checkpoint that is newer than this one, or damaged, and the best weights that this one knows."""
        if self.path.resolve() != last.resolve():
            with whole(last) as temporary:
                shutil.copyfile(self.path, temporary)
            if self.path.resolve() != previous(last).resolve():
                previous(last).unlink(missing_ok=True)
        restore_best(best, self.best_step)

    def finished(self, config: TrainConfig) -> bool:
        """Whether training came to its end, and no more epochs are asked for since."""
        before = check(self.about.config, TrainConfig, targets(config)).trainer.max_epochs
        return self.position.finished and config.trainer.max_epochs <= before


def to_resume(run: Run) -> Resumed | None:
    """The checkpoint that a run goes on from: the one named, or the last that is whole; None where none was written.
    Raises UserError if it is damaged, and so is the one before it, or if it holds the weights alone."""
    last = run.folder / "checkpoints" / "last.ckpt"
    path, older = run.checkpoint or last, previous(last)
    if not run.checkpoint and not last.exists() and not older.exists():
        if (run.folder / "metrics.csv").exists():
            print(f"warning: {last} is not there. The run begins again.", file=sys.stderr)
        return None
    try:
        resumed = _read(path)
    except UserError as error:
        if run.checkpoint or not older.exists():
            raise
        print(f"warning: {error} Going on from {older}, the one before it.", file=sys.stderr)
        resumed = _read(older)
    epochs, wanted = resumed.position.epoch, run.config.trainer.max_epochs
    if epochs > wanted:
        raise UserError(f"trainer.max_epochs={wanted}: {resumed.path} has {epochs} epochs behind it.")
    most = run.config.trainer.max_steps
    if most and 0 < most <= resumed.position.steps and run.saved and wanted > run.saved.trainer.max_epochs:
        raise UserError(f"trainer.max_epochs={wanted}: trainer.max_steps={most} has ended this run. Begin another one.")
    return resumed


def _read(path: Path) -> Resumed:
    content, about = read(path)
    if "optimizer_states" not in content:
        raise UserError(f"{path} holds the weights alone. Take last.ckpt, which has the optimizer's state.")
    try:
        _State.model_validate(content)
        resumed = Resumed.model_validate(content | {"path": path, "about": about, "content": content})
    except ValidationError as error:
        raise UserError(f"{path}: a part of what a run goes on from is missing or wrong.") from error
    resumed.content["loops"] = resumed.position.loops()
    return resumed


def continued(resumed: Resumed, about: About) -> tuple[About, list[str]]:
    """What the checkpoints of a continued run say about themselves, where `about` is this session's, and what a reader
    of its score should know; raises UserError if the images are not those that the run began with."""
    before = resumed.about
    if before.images != about.images:
        sums = f"checksum {about.images.sha256[:12]} now, {before.images.sha256[:12]} then"
        changed_images = f"the images of {about.dataset} have changed since this run began ({sums})"
        raise UserError(f"{changed_images}. Bring the old ones back, or begin another run.")
    if before.classes != about.classes:
        names = [shorten(", ".join(classes), 160, placeholder=" ...") for classes in (before.classes, about.classes)]
        raise UserError(f"this run began with the classes {names[0]}, and now they are {names[1]}. Bring back the old.")
    if changed := before.changed_network:
        raise UserError(
            f"{changed}, so this run can't go on.\n{way_back(about.config['model']['_target_'], before.git)}"
        )
    then, now = flat(before.model_dump()), flat(about.model_dump())
    notes = [
        f"This run began with {key}={then.get(key)}, and goes on with {key}={now.get(key)}."
        for key in then | now
        if key.startswith(("precision", "versions.", "git")) and then.get(key) != now.get(key)
    ]
    longer = about.config["trainer"]["max_epochs"] > before.config["trainer"]["max_epochs"]
    if resumed.position.finished and longer and before.config["callbacks"].get("keep_optimizer") is False:
        notes.append("A new optimizer goes on from the best weights; callbacks.keep_optimizer=true keeps the old one.")
    return before.model_copy(update={"config": about.config, "precision": about.precision}), notes


def restore_best(best: Path, step: int | None) -> None:
    """Bring back the best weights, those of `step`, if a part of the run that is lost has replaced them."""
    older = previous(best)
    if step is not None and older.exists() and _step(best) != step == _step(older):
        older.replace(best)


def _step(path: Path) -> int | None:
    """Of the optimizer, after which its weights were the best; None where it can't be read."""
    try:
        content = torch.load(path, mmap=True, weights_only=True)
        return content.get("best_step") or content["global_step"]
    except Exception:  # damaged files raise errors of every kind
        return None
