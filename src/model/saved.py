"""What a checkpoint says about itself, and loading one without running anything in it."""

from __future__ import annotations

import pickle
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from torch import Tensor

from src.config.check import check
from src.config.errors import UserError
from src.config.folder import Run
from src.config.schema import NonNegativeInt, PositiveInt, Section, TrainConfig
from src.results.outcome import FORMAT
from src.training.logs import Place
from src.training.position import Position
from src.training.writer import previous

ABOUT = "about"  # the key under which Classifier saves it


class ImageCounts(Section):
    train: PositiveInt
    val: PositiveInt
    test: PositiveInt
    sha256: str


class Revision(Section):
    revision: str
    modified: bool


class About(Section):
    """What every checkpoint of ours says about itself; see results.describe."""

    format: Literal[FORMAT]  # type: ignore[valid-type]
    config: dict[str, Any]
    classes: list[str] = Field(min_length=2)
    channels: PositiveInt
    size: list[PositiveInt] = Field(min_length=2, max_length=2)
    dark_background: bool
    images: ImageCounts
    precision: Literal["32-true", "16-mixed", "bf16-mixed"]
    dataset: str
    source: str
    test_set: str
    command: str
    versions: dict[str, str]
    git: Revision | None


class Checkpoint(NamedTuple):
    """`state_dict` is the network's; `config` is the run's, with what `auto` and `null` came to.

    `about` is what results.describe said when the run began; `resumable` says whether the optimizer's state is there.
    """

    path: Path
    config: TrainConfig
    about: About
    state_dict: dict[str, Tensor]
    resumable: bool


def load(path: str | Path) -> Checkpoint:
    """Read a checkpoint with torch's ``weights_only=True``, which runs no code from the file.

    Raises:
        UserError: no such file, or it is truncated, not ours, or holds more than plain values and tensors.
    """
    path = Path(path)
    content = read(path)
    about = About.model_validate(content[ABOUT])
    try:
        config = check(about.config, TrainConfig)
    except UserError as error:
        raise UserError(f"checkpoint={path}: its config does not fit this version: {error}") from error
    prefix = "network."
    weights = {
        name.removeprefix(prefix): value for name, value in content["state_dict"].items() if name.startswith(prefix)
    }
    return Checkpoint(path, config, about, weights, "optimizer_states" in content)


def read(path: Path) -> dict[str, Any]:
    """The whole content of a checkpoint of ours; raises UserError as `load` does."""
    if path.is_dir() or not path.exists():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise UserError(f"checkpoint={path}: it {what}. Name a .ckpt file, such as checkpoints/best.ckpt of a run.")
    try:
        _verify(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"checkpoint={path}: it holds more than tensors and plain values, which could run code, or is no "
            "checkpoint at all. It was not loaded."
        ) from error
    except Exception as error:  # damaged pickles and archives raise errors of every kind
        raise UserError(f"checkpoint={path}: it is damaged or no checkpoint. Take another one.") from error
    try:
        About.model_validate(content[ABOUT])
        whole = all(isinstance(value, Tensor) for value in content["state_dict"].values())
    except (ValidationError, KeyError, TypeError, AttributeError, IndexError):
        whole = False
    if not whole:
        raise UserError(f"checkpoint={path}: another program wrote it. Only checkpoints of this version are read.")
    return content


def _verify(path: Path) -> None:
    """Raise BadZipFile if a byte has changed since torch wrote it, which torch itself does not look for."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as file:
            if (damaged := file.testzip()) is not None:
                raise zipfile.BadZipFile(damaged)


class Resumable(Section):
    """What a checkpoint must hold besides, for a run to go on from it."""

    model_config = ConfigDict(extra="ignore", strict=True)

    position: dict[str, Any]
    logs: dict[str, NonNegativeInt]
    callbacks: dict[str, dict[str, Any]]
    epoch_so_far: dict[str, dict[str, Any]]
    skipped: list[int]
    should_stop: bool
    optimizer_states: list[dict[str, Any]]


class Resumed(NamedTuple):
    """What a run goes on from: Lightning's whole `content`, and where it was taken."""

    path: Path
    content: dict[str, Any]
    about: dict[str, Any]
    position: Position

    @property
    def place(self) -> Place:
        """Where the logs stood."""
        return Place(self.content["logs"], self.position.steps)

    def make_last(self, last: Path, best: Path) -> None:
        """Leave no checkpoint that is newer than this one, or damaged, and the best weights that this one knows."""
        if self.path.resolve() != last.resolve():
            temporary = last.with_name(f".{last.name}.part")
            temporary.unlink(missing_ok=True)
            shutil.copyfile(self.path, temporary)
            temporary.replace(last)
            if self.path.resolve() != previous(last).resolve():
                previous(last).unlink(missing_ok=True)
        restore_best(best, self.content)

    def finished(self, config: TrainConfig) -> bool:
        """Whether training came to its end, and no more epochs are asked for since."""
        return self.position.finished and config.trainer.max_epochs <= self.about["config"]["trainer"]["max_epochs"]


def to_resume(run: Run) -> Resumed | None:
    """The checkpoint that a run goes on from: the one named, or the last that is whole; None where none was written.

    Raises:
        UserError: it is damaged, and so is the one before it; or it holds the weights alone.
    """
    last = run.folder / "checkpoints" / "last.ckpt"
    candidates = [run.checkpoint] if run.checkpoint else [last, previous(last)]
    if not run.checkpoint and not any(path.exists() for path in candidates):
        if (run.folder / "metrics.csv").exists():
            print(f"warning: {last} is not there. The run begins again.", file=sys.stderr)
        return None
    for path in candidates:
        try:
            content = read(path)
            if "optimizer_states" not in content:
                raise UserError(f"{path} holds the weights alone. Take last.ckpt, which has the optimizer's state.")
            try:
                position = TypeAdapter(Position).validate_python(Resumable.model_validate(content).position)
            except ValidationError as error:
                raise UserError(f"{path}: a part of what a run goes on from is missing or wrong.") from error
        except UserError as error:
            if path == candidates[-1] or not candidates[-1].exists():
                raise
            print(f"warning: {error} Going on from {candidates[-1]}, the one before it.", file=sys.stderr)
            continue
        if position.epoch > run.config.trainer.max_epochs:
            raise UserError(
                f"trainer.max_epochs={run.config.trainer.max_epochs}: {path} has {position.epoch} epochs behind it."
            )
        return Resumed(path, content, content[ABOUT], position)
    return None


def continued(resumed: Resumed, about: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """What the checkpoints of a continued run say about themselves, and what a reader of its score should know.

    Args:
        about: what results.describe says of this session.

    Raises:
        UserError: the images are not those that the run began with.
    """
    before = resumed.about
    if before["images"] != about["images"]:
        raise UserError(
            f"the images of {about['dataset']} have changed since this run began (checksum "
            f"{about['images']['sha256'][:12]}, then {before['images']['sha256'][:12]}). "
            "Bring the old ones back, or begin another run."
        )
    notes = []
    for what, key in (("precision", "precision"), ("versions", "versions"), ("revision", "git")):
        if before[key] != about[key]:
            notes.append(f"This run began with another {what}: {_named(before[key])}; now {_named(about[key])}.")
    return {**before, "config": about["config"], "precision": about["precision"]}, notes


def _named(value: Any) -> str:
    return ", ".join(f"{key} {item}" for key, item in value.items()) if isinstance(value, dict) else str(value)


def restore_best(best: Path, content: dict[str, Any]) -> None:
    """Bring back the best weights that `content` speaks of, if a part of the run that is lost has replaced them."""
    step = next((state["best_step"] for state in content["callbacks"].values() if "best_step" in state), None)
    older = previous(best)
    if step is not None and older.exists() and _step(best) != step == _step(older):
        older.replace(best)


def _step(path: Path) -> int | None:
    """Of the optimizer, at which the file was written; None where it can't be read."""
    try:
        return torch.load(path, mmap=True, weights_only=True)["global_step"]
    except Exception:  # damaged files raise errors of every kind
        return None
