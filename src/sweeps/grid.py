"""A sweep's folder: what was asked of it, which of its runs are to come, and what went wrong in the others."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig

from src.config import compose
from src.config import folder as runs
from src.config.errors import UserError
from src.config.files import write_text
from src.config.schema import TrainConfig

SWEEPS = runs.RUNS / "sweep"
DEFINITION = "sweep.yaml"


@dataclass(frozen=True)
class Sweep:
    """A grid of runs in `folder`.

    `runs` maps the name of each run's folder to its overrides; `notes` say how this differs from what the sweep was
    begun with.
    """

    folder: Path
    overrides: list[str]
    runs: dict[str, list[str]]
    command: str
    config_dir: str | None = None
    notes: list[str] = field(default_factory=list)


def chosen(overrides: list[str], multirun: bool, flags: list[str]) -> tuple[list[str], Path | None]:
    """The overrides without `sweep=`, and the earlier sweep that it names.

    Alone, it stands for the whole command that the sweep was begun with, and its --config-dir joins the `flags`.

    Raises:
        UserError: there is no such sweep.
    """
    named = [text for text in overrides if text.lstrip("+").startswith("sweep=")]
    rest = [text for text in overrides if text not in named]
    if not named:
        return rest, None
    value = named[-1].partition("=")[2].strip("'\"")
    if not multirun:
        raise UserError(f"sweep={value}: several runs are a sweep; add -m.")
    if value == "last":
        found = list(SWEEPS.glob(f"*/{DEFINITION}"))
        if not found:
            raise UserError(f"sweep=last: there is no sweep below {SWEEPS}/.")
        folder = max(found, key=lambda path: path.stat().st_mtime).parent
    else:
        folder = Path(value)
        if not (folder / DEFINITION).exists():
            raise UserError(f"sweep={value}: that folder holds no sweep, for there is no {DEFINITION}.")
    if not rest:
        definition = read_definition(folder)
        if extra := definition.get("config_dir"):
            flags += ["--config-dir", extra]
        rest = list(definition["overrides"])
    return rest, folder


def read_definition(folder: Path) -> dict[str, Any]:
    """What `begin` wrote.

    Raises:
        UserError: it is damaged.
    """
    try:
        found = yaml.safe_load((folder / DEFINITION).read_text(encoding="utf-8"))
        assert isinstance(found["command"], str)
        for texts in (found["overrides"], *found["runs"].values()):
            assert all(isinstance(text, str) for text in texts)
        return found
    except (OSError, ValueError, yaml.YAMLError, AssertionError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{folder / DEFINITION} can't be read: {' '.join(str(error).split())}.") from error


def naming(overrides: list[str]) -> str:
    """Hydra's option for the names of folders: what is the same in all runs stays out of them."""
    varied = {override.key_or_group: override.is_sweep_override() for override in compose.parse(overrides)}
    same = sorted(key for key, several in varied.items() if not several)
    return f"hydra.job.config.override_dirname.exclude_keys=[{','.join(same)}]"


def plan(
    folder: Path,
    overrides: list[str],
    jobs: list[tuple[DictConfig, TrainConfig]],
    command: str,
    config_dir: str | None,
) -> Sweep:
    """The sweep in `folder`, new or begun before.

    Args:
        overrides: of the sweep, as they were written.
        jobs: each composed, and checked.

    Raises:
        UserError: the folder holds another sweep, or one of its runs is another than this command's.
    """
    names = [str(config.hydra.sweep.subdir) for config, _ in jobs]
    if len(set(names)) < len(names):
        name = next(name for name in names if names.count(name) > 1)
        raise UserError(f"two runs of this sweep would write to {name}. A value is named twice.")
    texts = [[text.removeprefix("++") for text in config.hydra.overrides.task] for config, _ in jobs]
    asked = [text.removeprefix("++") for text in overrides]
    sweep = Sweep(folder, asked, dict(zip(names, texts, strict=True)), command, config_dir)
    if not (folder / DEFINITION).exists():
        return sweep
    sweep.notes.extend(_changes(folder, sweep))
    for name, (_, config) in zip(names, jobs, strict=True):
        if (folder / name / "config.yaml").exists():
            runs.settle(folder / name, config, [])
    return sweep


def begin(sweep: Sweep) -> FileLock:
    """Write down what the sweep is, and keep other processes out of it while the lock is held."""
    sweep.folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(sweep.folder / runs.LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise UserError(f"{sweep.folder}: another process works on this sweep. Wait for it, or stop it.") from error
    earlier = read_definition(sweep.folder)["runs"] if (sweep.folder / DEFINITION).exists() else {}
    content: dict[str, Any] = {
        "command": sweep.command,
        "overrides": sweep.overrides,
        "runs": {**earlier, **sweep.runs},
    }
    if sweep.config_dir:
        content["config_dir"] = sweep.config_dir
    write_text(sweep.folder / DEFINITION, yaml.safe_dump(content, sort_keys=False, width=1000))
    for note in sweep.notes:
        print(note)
    return lock


def fail(folder: Path, message: str) -> None:
    """Say what a run of a sweep ended with, on stderr and in its folder: the others go on."""
    for line in message.splitlines():
        print(f"error: {line}", file=sys.stderr, flush=True)
    if not runs.is_alive(folder):  # else it is another process's run
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / runs.ERROR, message.rstrip() + "\n")


def _changes(folder: Path, sweep: Sweep) -> list[str]:
    """What a sweep asks now and did not when it was begun: more or fewer values.

    Raises:
        UserError: it is another sweep.
    """
    definition = read_definition(folder)
    before, now = _values(definition["overrides"]), _values(sweep.overrides)
    notes = []
    for key in sorted(before.keys() | now.keys()):
        old, new = before.get(key, []), now.get(key, [])
        if set(old) == set(new):
            continue
        was, says = (f"{key}={','.join(values)}" if values else f"no {key}" for values in (old, new))
        free = key in runs.FREE and len(old) < 2 and len(new) < 2
        grid = len(old) > 1 and len(new) > 1 and (set(old) <= set(new) or set(new) <= set(old))
        if not free and not grid:
            raise UserError(
                f"{folder} was begun with {was}, and this command says {says}. "
                "Choose another hydra.sweep.dir for another sweep."
            )
        notes.append(f"This sweep was begun with {was}, and goes on with {says}.")
    return notes


def show(folder: Path) -> bool:
    """Write and show the table of a sweep, at its end or before; whether all of its runs are finished."""
    from src.results.table import Table

    definition = read_definition(folder)
    options = {name: values_of(overrides) for name, overrides in definition["runs"].items()}
    table = Table(folder, options, definition["command"])
    table.save()
    table.show()
    return not table.unfinished


def values_of(overrides: list[str]) -> dict[str, str]:
    """Each key of a run's overrides with its value."""
    return {key: ",".join(values) for key, values in _values(overrides).items()}


def _values(overrides: list[str]) -> dict[str, list[str]]:
    """Each key with its values as they are written; what Hydra alone reads is left out."""
    parsed: list[Override] = compose.parse(list(overrides))
    return {
        override.key_or_group: (
            list(override.sweep_string_iterator())
            if override.is_sweep_override()
            else [str(override.get_value_element_as_str())]
        )
        for override in parsed
        if not override.key_or_group.startswith("hydra")
    }
