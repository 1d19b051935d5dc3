"""A sweep over a grid of options: its folder, what was asked of it, and its runs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import yaml
from filelock import FileLock, Timeout
from omegaconf import OmegaConf

from src.config.check import check
from src.config.cli import Arguments, Request, need_loggers
from src.config.compose import as_folder, compose, declared, grid, parse, written
from src.config.errors import UserError
from src.config.files import check_writable, write_text
from src.config.folder import CONFIG, FREE, LOCK, RUNS, settle
from src.config.process import launch_name, world_size
from src.config.schema import TrainConfig
from src.sweeps.jobs import Job, Task, is_parallel, start

SWEEPS = RUNS / "sweep"
DEFINITION = "sweep.yaml"


@dataclass(frozen=True)
class Definition:
    """What `sweep.yaml` says: the command, its overrides as they were written, and those of each run by its folder."""

    command: str
    overrides: list[str]
    runs: dict[str, list[str]]
    config_dir: str | None = None

    @classmethod
    def read(cls, folder: Path) -> Definition:
        """Raises UserError if it is damaged."""
        try:
            definition = cls(**yaml.safe_load((folder / DEFINITION).read_text(encoding="utf-8")))
            assert isinstance(definition.command, str)
            for texts in (definition.overrides, *definition.runs.values()):
                assert all(isinstance(text, str) for text in texts)
            return definition
        except (OSError, ValueError, yaml.YAMLError, AssertionError, TypeError, AttributeError) as error:
            raise UserError(f"{folder / DEFINITION} can't be read: {' '.join(str(error).split())}.") from error

    def write(self, folder: Path) -> None:
        content = {key: value for key, value in vars(self).items() if value is not None}
        write_text(folder / DEFINITION, yaml.safe_dump(content, sort_keys=False, width=1000))

    @property
    def options(self) -> dict[str, dict[str, str]]:
        """Each run's options by their keys."""
        return {name: {key: ",".join(v) for key, v in values(texts).items()} for name, texts in self.runs.items()}


def run(arguments: Arguments, task: Task) -> bool:
    """Do the sweep that a command line asks for, and show its table; whether all of its runs are finished.

    Every job is composed and checked before the first one starts.

    Raises:
        UserError: something of it can't be served, or its folder holds another sweep.
    """
    if (world_size() or 1) > 1:
        raise UserError("a sweep (-m) starts the processes of its runs itself. Start it without srun or torchrun.")
    arguments, folder = chosen(arguments)
    asked = declared(arguments.overrides)
    folder, jobs = _jobs(arguments, asked, folder)
    runs = {job.request.folder.name: list(job.request.named) for job in jobs}
    overrides = [text.removeprefix("++") for text in asked]
    definition = Definition(arguments.command(["-m", *overrides]), overrides, runs, arguments.config_dir)
    notes = _changes(folder, definition) if (folder / DEFINITION).exists() else []
    for job in jobs:
        if (job.request.folder / CONFIG).exists():
            settle(job.request.folder, job.request.config, [])
    with _begun(folder, definition):
        for note in notes:
            print(note)
        start(jobs, task)
        return show(folder)


def chosen(arguments: Arguments) -> tuple[Arguments, Path | None]:
    """The command line without `sweep=`, and the folder of the earlier sweep that it names.

    Alone, it stands for the whole command that the sweep was begun with, its --config-dir included.

    Raises:
        UserError: there is no such sweep.
    """
    named = [text for text in arguments.overrides if text.lstrip("+").startswith("sweep=")]
    if not named:
        return arguments, None
    value = named[-1].partition("=")[2].strip("'\"")
    if value == "last":
        definitions = list(SWEEPS.glob(f"*/{DEFINITION}"))
        if not definitions:
            raise UserError(f"sweep=last: there is no sweep below {SWEEPS}/.")
        folder = max(definitions, key=lambda path: path.stat().st_mtime).parent
    else:
        folder = Path(value)
        if not (folder / DEFINITION).exists():
            raise UserError(f"sweep={value}: that folder holds no sweep, for there is no {DEFINITION}.")
    rest = tuple(text for text in arguments.overrides if text not in named)
    if rest:
        return replace(arguments, overrides=rest), folder
    definition = Definition.read(folder)
    return replace(arguments, overrides=tuple(definition.overrides), config_dir=definition.config_dir), folder


def _jobs(arguments: Arguments, asked: Sequence[str], folder: Path | None) -> tuple[Path, list[Job]]:
    """The sweep's folder, a new one if none is given, and each job, composed, checked and named by what is varied."""
    varied = {override.get_key_element() for override in parse(asked) if override.is_sweep_override()}
    jobs: list[Job] = []
    for overrides in grid(asked):
        composed = compose(arguments.door, overrides, arguments.config_dir)
        config = check(composed.values, TrainConfig)
        if config.resume:
            raise UserError(
                "resume: a sweep (-m) goes on where it stopped when it is started again in its hydra.sweep.dir."
            )
        if config.devices > 1 and is_parallel(composed.whole):
            raise UserError("devices: hydra/launcher=joblib gives each run one device. Leave out one of the two.")
        need_loggers(config.logger)
        if folder is None:
            folder = _folder(Path(composed.whole.hydra.sweep.dir), asked)
        name = as_folder(",".join(sorted(text for text in overrides if text.partition("=")[0] in varied)))
        if any(job.request.folder.name == name for job in jobs):
            raise UserError(f"two runs of this sweep would write to {name}. A value is named twice.")
        OmegaConf.set_readonly(composed.whole.hydra, False)  # launchers write there, too
        composed.whole.hydra.sweep.dir, composed.whole.hydra.sweep.subdir = str(folder), name
        named = written(overrides)
        request = Request(config, folder.absolute() / name, arguments.command(named), tuple(named))
        jobs.append(Job(request, overrides, composed.whole))
    assert folder is not None
    check_writable(folder)
    return folder, jobs


def _folder(folder: Path, asked: Sequence[str]) -> Path:
    """One that SLURM may start again is told from others of its job by all of its overrides."""
    launch = launch_name()
    if launch is None or any(text.startswith("hydra.sweep.dir=") for text in asked):
        return folder
    return folder.with_name(f"{launch}_{hashlib.md5(' '.join(sorted(asked)).encode()).hexdigest()[:6]}")


@contextmanager
def _begun(folder: Path, definition: Definition) -> Iterator[None]:
    """Write down what the sweep is, and keep other processes out of it."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise UserError(f"{folder}: another process works on this sweep. Wait for it, or stop it.") from error
    try:
        earlier = Definition.read(folder).runs if (folder / DEFINITION).exists() else {}
        replace(definition, runs={**earlier, **definition.runs}).write(folder)
        yield
        for path in folder.glob(".slot-*.lock"):
            path.unlink(missing_ok=True)
    finally:
        lock.release()


def _changes(folder: Path, definition: Definition) -> list[str]:
    """What a sweep asks now and did not when it was begun: more or fewer values.

    Raises:
        UserError: it is another sweep.
    """
    before, now = values(Definition.read(folder).overrides), values(definition.overrides)
    notes = []
    for key in sorted(before.keys() | now.keys()):
        old, new = before.get(key, []), now.get(key, [])
        if set(old) == set(new):
            continue
        was, says = (f"{key}={','.join(texts)}" if texts else f"no {key}" for texts in (old, new))
        free = key in FREE and len(old) < 2 and len(new) < 2
        more_or_fewer = len(old) > 1 and len(new) > 1 and (set(old) <= set(new) or set(new) <= set(old))
        if not free and not more_or_fewer:
            raise UserError(
                f"{folder} was begun with {was}, and this command says {says}. "
                "Choose another hydra.sweep.dir for another sweep."
            )
        notes.append(f"This sweep was begun with {was}, and goes on with {says}.")
    return notes


def show(folder: Path) -> bool:
    """Write and show the table of a sweep, at its end or before; whether all of its runs are finished."""
    from src.results.table import Table  # needs pandas

    definition = Definition.read(folder)
    table = Table(folder, definition.options, definition.command)
    table.save()
    table.show()
    return not table.unfinished


def values(overrides: Sequence[str]) -> dict[str, list[str]]:
    """Each key with its values as they are written; what Hydra alone reads is left out."""
    return {
        override.key_or_group: (
            list(override.sweep_string_iterator())
            if override.is_sweep_override()
            else [str(override.get_value_element_as_str())]
        )
        for override in parse(overrides)
        if not override.key_or_group.startswith("hydra")
    }
