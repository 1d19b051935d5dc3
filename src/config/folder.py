"""A run's folder: which one a command means, what may change when its run goes on, and who works in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout
from omegaconf import OmegaConf
from yaml import AliasEvent, YAMLError

from src.config.check import check, flat, plain, targets
from src.config.errors import UserError
from src.config.groups import command
from src.config.paths import option
from src.config.problems import show
from src.config.process import is_child
from src.config.schema import PACKAGE, TrainConfig, Values

RUNS = Path("logs")
SEARCHES = RUNS / "tune"
CONFIG, RESULTS = "config.yaml", "results.json"  # of every run; the second of a finished one
ERROR = "error.txt"  # what a run of a sweep ended with
PRUNED = "pruned.txt"  # why a search has ended a trial
LOCK = ".lock"
PATIENCE = 2  # seconds; is_alive holds a lock for an instant

# what may differ between a run and its continuation; all else would make it another run
_TRAINER = "enable_progress_bar log_every_n_steps max_epochs max_time profiler"
FREE = {"again", "data_dir", "device", "num_workers", "report", "resume", *(f"trainer.{k}" for k in _TRAINER.split())}
FREE |= {"callbacks.checkpoint_minutes", "callbacks.checkpoint_steps", "callbacks.keep_optimizer", "dataset.on_broken"}
CAUSES = {"dataset.name", "seed"}  # they move others, so they are named first
# in the images, where the command leaves them open
MEASURED = {"dataset.source", "dataset.in_memory", "dataset.mean", "dataset.std", "dataset.image_size"}


@dataclass(frozen=True)
class Run:
    """A run's folder and config, the `saved` one if it was begun before, and the `checkpoint` that was named."""

    folder: Path
    config: TrainConfig
    saved: TrainConfig | None = None
    checkpoint: Path | None = None

    @property
    def finished(self) -> bool:
        """It came to its end, and no more epochs are asked for."""
        epochs = self.config.trainer.max_epochs
        return is_finished(self.folder) and self.saved is not None and epochs <= self.saved.trainer.max_epochs


def is_finished(folder: Path) -> bool:
    return (folder / RESULTS).exists()


def check_finished(folder: Path) -> None:
    """Raises UserError if it is not that of a finished run."""
    if not is_finished(folder) and (folder / CONFIG).exists():
        again = command("train", option("resume", folder))
        raise UserError(f"{folder}: this run is unfinished, no results.json is there. Finish it with {again}")
    if not is_finished(folder):
        none = " holds no run and no sweep. Name one, such as logs/NAME or logs/sweep/NAME."
        raise UserError(f"{folder}{none if folder.is_dir() else ': there is no such folder.'}")


def is_alive(folder: Path) -> bool:
    """Whether a process works in the folder."""
    if not (folder / LOCK).exists():
        return False
    try:
        with FileLock(folder / LOCK, timeout=0):
            return False
    except Timeout:
        return True


@contextmanager
def lock(folder: Path, what: str = "run") -> Iterator[None]:
    """Keep other processes out of a run's or a sweep's folder, until this one ends; UserError if one works there.

    The folder is made, and goes again if nothing was written there. A search that holds a trial's folder takes it once
    more for the run.
    """
    if is_child():
        yield
        return
    new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: it can't be made: {error.strerror}. Name another folder.") from error
    held = FileLock(folder / LOCK, is_singleton=True)
    try:
        held.acquire(timeout=PATIENCE)
    except Timeout as error:
        raise UserError(f"{folder}: another process works on this {what}. Wait for it, or stop it.") from error
    try:
        (folder / ERROR).unlink(missing_ok=True)
        yield
    finally:
        with suppress(OSError):  # the folder may be gone or read-only; Windows removes no file that is open
            if held.lock_counter == 1:
                (folder / LOCK).unlink()
        held.release()
        with suppress(OSError):  # it is not empty
            if new:
                folder.rmdir()


def folder_to_resume(resume: str) -> Path:
    """The run folder that `resume=` means; UserError if there is none."""
    if resume == "last":
        # a search takes up its own trials, and a pruned one is not to go on
        own = [folder for folder in _runs(RUNS) if not folder.is_relative_to(SEARCHES)]
        unfinished = [folder for folder in own if not is_finished(folder) and not is_alive(folder)]
        if not unfinished:
            raise UserError(f"resume=last: there is no unfinished run below {RUNS}/.")
        return max(unfinished, key=lambda folder: (folder / CONFIG).stat().st_mtime)
    path = Path(resume)
    if not path.exists():
        raise UserError(f"resume={resume}: there is no such run or checkpoint.")
    folder = path if path.is_dir() else path.absolute().parent.parent
    if not (folder / CONFIG).exists():
        what = "that folder holds no run" if path.is_dir() else "that file does not lie in a run's checkpoints"
        raise UserError(f"resume={resume}: {what}, for there is no {CONFIG}. Name a run, such as logs/NAME.")
    return folder


def finished_runs() -> list[Path]:
    """Those that have a checkpoint, the newest first; UserError if there is none."""
    finished = [folder for folder in _runs(RUNS) if is_finished(folder) and checkpoint_in(folder)]
    if not finished:
        raise UserError(f"there is no finished run below {RUNS}/. Train one, or name a run's folder or a .ckpt file.")
    return sorted(finished, key=lambda folder: (folder / RESULTS).stat().st_mtime, reverse=True)


def checkpoint_in(folder: Path) -> Path | None:
    """The one that a run was scored with, or would be now; of any other folder with checkpoints likewise."""
    names = ("best.ckpt", "last.ckpt")  # the first where anything was validated
    paths = (place / name for place in (folder / "checkpoints", folder) for name in names)
    return next((path for path in paths if path.exists()), None)


def find_checkpoint(named: str) -> tuple[Path, str]:
    """The file that `checkpoint=` means, by its own name, by its run's folder or as `last`; and which one it is, in
    words, if it was not named itself. UserError if there is none."""
    path = finished_runs()[0] if named == "last" else Path(named)
    if not path.is_dir():
        return path, ""
    if (found := checkpoint_in(path)) is None:
        raise UserError(f"checkpoint={named}: no checkpoint lies in that folder. Name a run, such as logs/NAME.")
    state = "newest finished" if named == "last" else "" if is_finished(path) else "unfinished"
    return found, f"checkpoint: {found}{f', of the {state} run' if state and (path / CONFIG).exists() else ''}"


def settle(folder: Path, config: TrainConfig, named: Sequence[str]) -> Run:
    """What a command comes to in `folder`.

    With `resume=`, only what the user's overrides, `named`, say is compared with the saved config and taken over from
    `config`; without, `config` is the whole of what is asked for. Raises UserError if another run lies there, or
    something that is none.
    """
    if not (folder / CONFIG).exists():
        for name in ("checkpoints", "tensorboard", "metrics.csv", RESULTS):
            if (folder / name).exists():
                raise UserError(f"{folder}: {name} lies there without a {CONFIG}. Choose another folder.")
        return Run(folder, config)
    saved = read_config(folder, targets(config))
    is_named = _names(named) if config.resume else lambda key: True
    advice = "Leave it out, or begin another run." if config.resume else "Choose another folder for another run."
    refuse_another(folder, flat(plain(saved)), flat(plain(config)), advice, is_named)
    path = Path(config.resume) if config.resume and Path(config.resume).is_file() else None
    return Run(folder, _continued(config, saved, named, is_named), saved, path)


def _continued(
    config: TrainConfig, saved: TrainConfig, named: Sequence[str], is_named: Callable[[str], bool]
) -> TrainConfig:
    """The saved config with what the command may change of it."""
    before, now = flat(plain(saved)), flat(plain(config))
    by_itself = {text.partition("=")[0].lstrip("+") for text in named}
    values: Any = plain(saved)
    if is_named("callbacks"):
        free = {name for name in values["callbacks"] if is_free(f"callbacks.{name}", before, now)}
        gone = free - plain(config)["callbacks"].keys()
        values["callbacks"] = {name: value for name, value in values["callbacks"].items() if name not in gone}
    whole = OmegaConf.create(values)
    for key, value in now.items():
        # a group or a recipe that is named again, as trainer=debug, changes nothing that was said since
        by_group = key.startswith(("logger.", "callbacks.")) and is_named(key)
        if is_free(key, before, now) and (not config.resume or key in by_itself or by_group):
            OmegaConf.update(whole, key, value, merge=False)
    whole.resume = None
    return check(OmegaConf.to_container(whole), TrainConfig)


def read_config(folder: Path, named: frozenset[str] = frozenset()) -> TrainConfig:
    """The config that a run was begun with, where this command has `named` targets; UserError if it is damaged, or of
    another version of this project."""
    path = folder / CONFIG
    try:
        text = path.read_text(encoding="utf-8")
        if any(isinstance(event, AliasEvent) for event in yaml.parse(text)):
            raise YAMLError("it has aliases, which this project never writes")
        return check(yaml.safe_load(text), TrainConfig, named)
    except (OSError, YAMLError, ValueError) as error:
        raise UserError(f"{path} can't be read: {' '.join(str(error).split())}.") from error
    except UserError as error:
        raise UserError(f"{path} can't be used: {str(error).splitlines()[0]}") from error


def refuse_another(
    folder: Path, before: Values, now: Values, advice: str, is_named: Callable[[str], bool] = lambda key: True
) -> None:
    """Raises UserError if the flat config `now` asks for something else than what was begun in the folder.

    For what is measured in the images, `auto` and `null` agree with what they came to.
    """
    for key in sorted(before.keys() | now.keys(), key=lambda key: (key not in CAUSES, key)):
        same = now.get(key) == before.get(key) or (key in MEASURED and now.get(key) in (None, "auto"))
        if is_named(key) and not same and not is_free(key, before, now):
            was, says = (f"{key}={show(values[key])}" if key in values else f"no {key}" for values in (before, now))
            raise UserError(f"{folder} was begun with {was}, and this command says {says}. {advice}")


def is_free(key: str, *configs: Values) -> bool:
    """Whether a run may go on with another value; of callbacks, those of this project only look at it."""
    if key in FREE or key.split(".")[0] == "logger":
        return True
    group, name, *_ = *key.split("."), ""
    targets = {config.get(f"callbacks.{name}._target_") for config in configs if group == "callbacks"} - {None}
    return bool(targets) and all(str(target).startswith(f"{PACKAGE}.training.callbacks.") for target in targets)


def _runs(root: Path) -> list[Path]:
    folders = (path.parent for path in root.glob(f"**/{CONFIG}"))
    return [folder for folder in folders if folder.parent.parent.name != "wandb"]  # W&B writes files of that name


def _names(overrides: Sequence[str]) -> Callable[[str], bool]:
    """Whether overrides name a key, by itself, by a group, or by a whole recipe."""
    names = [text.partition("=")[0].lstrip("+~").replace("/", ".") for text in overrides]
    if "experiment" in names:
        return lambda key: True
    return lambda key: any(key == name or key.startswith(f"{name}.") for name in names)
