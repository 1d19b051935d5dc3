"""Which run a command means: a new one, or one that was interrupted and goes on in its folder."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import AliasEvent, YAMLError

from src.config import process as cluster
from src.config.check import check, flat, plain
from src.config.errors import Stopped, UserError
from src.config.schema import CONFIGS, DashboardConfig, DatasetConfig, LoggerConfig, TrainConfig

RUNS = Path("logs")
LOCK = ".lock"
ERROR = "error.txt"  # what a run of a sweep ended with
PRUNED = "pruned.txt"  # why a search has ended a trial

# what may differ between a run and its continuation; all else would make it another run
FREE = {
    "callbacks.checkpoint_minutes",
    "callbacks.checkpoint_steps",
    *(f"dashboard.{key}" for key in DashboardConfig.model_fields),
    "data_dir",
    "device",
    *(f"logger.{key}" for key in LoggerConfig.model_fields),
    "num_workers",
    "on_nan",
    "resume",
    "report",
    "trainer.enable_progress_bar",
    "trainer.log_every_n_steps",
    "trainer.max_epochs",
    "trainer.max_time",
    "trainer.profiler",
}


FOUND = {"dataset.source", "dataset.mean", "dataset.std"}


@dataclass(frozen=True)
class Run:
    """A run's folder, the config that it goes by, and the `saved` one if it was begun before.

    `checkpoint` is the one to go on from, if the command named one.
    """

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
    return (folder / "results.json").exists()


def is_alive(folder: Path) -> bool:
    """Whether a process works in the folder."""
    lock = FileLock(folder / LOCK)
    if not (folder / LOCK).exists():
        return False
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False


@contextmanager
def lock(run: Run) -> Iterator[None]:
    """Keep other processes out of a run's folder; the kernel lets them in again when this one ends.

    A search that holds the folder of a trial may take it once more, for the run.

    Raises:
        UserError: another process works there.
    """
    if is_child():
        yield
        return
    run.folder.mkdir(parents=True, exist_ok=True)
    held = FileLock(run.folder / LOCK, is_singleton=True)
    try:
        held.acquire(timeout=0)
    except Timeout as error:
        raise UserError(f"{run.folder}: another process works on this run. Wait for it, or stop it.") from error
    try:
        (run.folder / ERROR).unlink(missing_ok=True)
        yield
    finally:
        with suppress(OSError):  # the folder may be gone or read-only; Windows removes no file that is open
            if held.lock_counter == 1:
                (run.folder / LOCK).unlink()
        held.release()


def is_child() -> bool:
    """Whether another process of the same run leads it."""
    return cluster.rank() != 0


def show_finished(run: Run) -> float | None:
    """Say that there is nothing to do, and give what the run gave."""
    results = json.loads((run.folder / "results.json").read_text(encoding="utf-8"))
    if is_child():
        return results["val"]["accuracy"]
    name = "test" if results["test"] else "val"
    scored = results[name]
    accuracy = "no validation" if scored["accuracy"] is None else f"{scored['accuracy']:.2%}"
    print(
        f"This run is finished: {accuracy} of {scored['images']:,} {name} images after "
        f"{results['train']['epochs']} epochs.\n{run.folder}: nothing to do. A greater trainer.max_epochs goes on."
    )
    return results["val"]["accuracy"]


def how_to_go_on(stop: Stopped, folder: Path) -> Stopped:
    """The same, with the command that goes on."""
    began = (folder / "checkpoints" / "last.ckpt").exists()
    near = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
    word = (
        f"python -m src.train resume={shlex.quote(str(near))}" if began else "the same command; nothing was saved yet"
    )
    return Stopped(stop.number, f"{stop} It goes on with: {word}")


def folder_to_resume(resume: str) -> Path:
    """The run folder that `resume=` means.

    Raises:
        UserError: there is none.
    """
    if resume == "last":
        unfinished = [folder for folder in _runs(RUNS) if not is_finished(folder) and not is_alive(folder)]
        if not unfinished:
            raise UserError(f"resume=last: there is no unfinished run below {RUNS}/.")
        return max(unfinished, key=lambda folder: (folder / "config.yaml").stat().st_mtime)
    path = Path(resume)
    if not path.exists():
        raise UserError(f"resume={resume}: there is no such run or checkpoint.")
    folder = path if path.is_dir() else path.absolute().parent.parent
    if not (folder / "config.yaml").exists():
        what = "that folder holds no run" if path.is_dir() else "that file does not lie in a run's checkpoints"
        raise UserError(f"resume={resume}: {what}, for there is no config.yaml. Name a run, such as logs/NAME.")
    return folder


def newest_checkpoint() -> Path:
    """The one that the run which was finished last was scored with.

    Raises:
        UserError: there is none.
    """
    finished = [folder for folder in _runs(RUNS) if is_finished(folder)]
    for folder in sorted(finished, key=lambda folder: (folder / "results.json").stat().st_mtime, reverse=True):
        for name in ("best.ckpt", "last.ckpt"):  # the first where anything was validated
            if (path := folder / "checkpoints" / name).exists():
                return path
    raise UserError(f"checkpoint: there is no finished run below {RUNS}/. Train one, or name a .ckpt file.")


def settle(folder: Path, config: TrainConfig, overrides: list[str]) -> Run:
    """What a command comes to in `folder`.

    Args:
        overrides: the command line's. With `resume=`, only what they name is compared with the saved config and
            taken over from `config`; without, `config` is the whole of what is asked for.

    Raises:
        UserError: a run with other options lies there, or something that is no run.
    """
    if not (folder / "config.yaml").exists():
        for name in ("checkpoints", "tensorboard", "metrics.csv", "results.json"):
            if (folder / name).exists():
                raise UserError(f"{folder}: {name} lies there without a config.yaml. Choose another folder.")
        return Run(folder, config)
    saved = read_config(folder)
    named = _named(overrides) if config.resume else lambda key: True
    wrong = differences(config, saved, named)
    if wrong:
        key, before, now = wrong[0]
        advice = "Leave it out, or begin another run." if config.resume else "Choose another folder for another run."
        raise UserError(f"{folder} was begun with {key}={before}, and this command says {key}={now}. {advice}")
    values = plain(saved)
    by_name = {text.partition("=")[0].lstrip("+") for text in overrides}
    for key, value in flat(plain(config)).items():
        # a group or a recipe that is named again, as trainer=debug, changes nothing that was said since
        by_group = key.startswith(("logger.", "dashboard.")) and named(key)
        if key in FREE and (not config.resume or key in by_name or by_group):
            _put(values, key, value)
    values["resume"] = None
    path = Path(config.resume) if config.resume and Path(config.resume).is_file() else None
    return Run(folder, check(values, TrainConfig), saved, path)


def read_config(folder: Path) -> TrainConfig:
    """The config that a run was begun with.

    Raises:
        UserError: it is damaged, or of another version of this project.
    """
    path = folder / "config.yaml"
    try:
        text = path.read_text(encoding="utf-8")
        if any(isinstance(event, AliasEvent) for event in yaml.parse(text)):
            raise YAMLError("it has aliases, which this project never writes")
        return check(OmegaConf.to_container(OmegaConf.create(text)), TrainConfig)  # type: ignore[arg-type]
    except (OSError, YAMLError, AssertionError, ValueError, OmegaConfBaseException) as error:
        raise UserError(f"{path} can't be read: {' '.join(str(error).split())}.") from error
    except UserError as error:
        raise UserError(f"{path} does not fit this version: {str(error).splitlines()[0]}") from error


def differences(config: TrainConfig, saved: TrainConfig, named: Callable[[str], bool]) -> list[tuple[str, Any, Any]]:
    """Each key, with its two values, that makes `config` another run than `saved`; the seed first.

    For what is found in the images, `auto` and `null` agree with what they came to.
    """
    before, now = flat(plain(saved)), flat(plain(config))
    keys = sorted(before.keys() | now.keys(), key=lambda key: (key != "seed", key))  # the seed moves the others
    return [
        (key, before.get(key), now.get(key))
        for key in keys
        if named(key)
        and key not in FREE
        and now.get(key) != before.get(key)
        and not (key in FOUND and now.get(key) in (None, "auto"))
    ]


def without_strange_mirrors(dataset: DatasetConfig) -> DatasetConfig:
    """A stranger's checkpoint or run may not say what is downloaded from where, unless this project's config does."""
    own = CONFIGS / "dataset" / f"{dataset.name}.yaml"
    known: Any = OmegaConf.to_container(OmegaConf.load(own)) if dataset.name.isidentifier() and own.exists() else {}
    facts = {key: value for key, value in dataset.arguments().items() if key in ("folder", "archive", "mirrors", "md5")}
    strange = "mirrors" in facts and any(known.get(key) != value for key, value in facts.items())
    return dataset.model_copy(update={"mirrors": []}) if strange else dataset


def _runs(root: Path) -> Iterable[Path]:
    found = (path.parent for path in root.glob("**/config.yaml"))
    return (folder for folder in found if folder.parent.parent.name != "wandb")  # W&B writes files of that name


def _named(overrides: list[str]) -> Callable[[str], bool]:
    """Whether the command line names a key, by itself, by a group, or by a whole recipe."""
    names = [text.partition("=")[0].lstrip("+~").replace("/", ".") for text in overrides]
    if "experiment" in names:
        return lambda key: True
    return lambda key: any(key == name or key.startswith(f"{name}.") for name in names)


def _put(values: dict[str, Any], key: str, value: Any) -> None:
    *path, leaf = key.split(".")
    for part in path:
        values = values[part]
    values[leaf] = value
