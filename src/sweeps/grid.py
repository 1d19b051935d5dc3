"""A sweep over a grid of options: its folder, what was asked of it, and its runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import yaml
from omegaconf import OmegaConf
from pydantic import Field

from src.config.check import check
from src.config.cli import Arguments, Request, check_needs, importing
from src.config.compose import compose, declared, grid, parse, written
from src.config.errors import UserError
from src.config.files import check_writable, write_text
from src.config.folder import CONFIG, RUNS, lock, refuse_another, settle
from src.config.groups import look_into
from src.config.naming import as_folder
from src.config.process import world_size
from src.config.schema import PACKAGE, Section, TrainConfig
from src.sweeps.jobs import Job, Task, is_parallel, start

SWEEPS = RUNS / "sweep"
DEFINITION = "sweep.yaml"


class Definition(Section):
    """What `sweep.yaml` says of a sweep or a search: its command, and the overrides of it and of each run's folder."""

    command: str
    overrides: list[str]
    runs: dict[str, list[str]]
    config_dirs: list[str] = Field([])
    search: bool = False

    @classmethod
    def read(cls, folder: Path) -> Definition:
        """Raises UserError if it is damaged."""
        try:
            return cls.model_validate(yaml.safe_load((folder / DEFINITION).read_text(encoding="utf-8")))
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise UserError(f"{folder / DEFINITION} can't be read: {' '.join(str(error).split())}.") from error

    def write(self, folder: Path) -> None:
        content = self.model_dump(exclude_defaults=True)
        write_text(folder / DEFINITION, yaml.safe_dump(content, sort_keys=False, width=1000))


def run(arguments: Arguments, task: Task) -> bool:
    """Do the sweep that a command line asks for, and show its table; whether all of its runs are finished.

    Raises UserError, before the first job starts, if one can't be served or the folder holds another sweep.
    """
    if (world_size() or 1) > 1:
        raise UserError("a sweep (-m) starts the processes of its runs itself. Start it without srun or torchrun.")
    arguments, folder = chosen(arguments)
    asked = declared(arguments.overrides)
    folder, jobs = _jobs(arguments, asked, folder)
    _try_networks(jobs)
    runs = {job.request.folder.name: list(job.request.named) for job in jobs}
    overrides = [text.removeprefix("++") for text in asked]
    with lock(folder, "sweep"):
        if (folder / DEFINITION).exists():
            earlier = Definition.read(folder)
            if earlier.search:
                raise UserError(f"{folder} holds a search, which {PACKAGE}.tune goes on with. Choose another folder.")
            _compare(folder, earlier.overrides, overrides)
            runs = earlier.runs | runs
        for job in jobs:
            if (job.request.folder / CONFIG).exists():  # refuses another run that lies there
                settle(folder / job.request.folder.name, job.request.config, [])
        command, folders = arguments.command(["-m", *overrides]), list(arguments.config_dirs)
        Definition(command=command, overrides=overrides, runs=runs, config_dirs=folders).write(folder)
        print(f"{len(jobs)} runs in {folder} (the screen of each: output.txt)", flush=True)
        start(jobs, task)
        return show(folder)


def show(folder: Path) -> bool:
    """Write and show the table of a sweep or search, at its end or before; whether all of its runs are finished."""
    from src.results.table import Table  # needs pandas

    definition = Definition.read(folder)
    table = Table(folder, definition.runs, definition.command, definition.search)
    table.show()
    return bool((table.runs.state == "finished").all())


def chosen(arguments: Arguments) -> tuple[Arguments, Path | None]:
    """The command line without `sweep=`, which alone stands for all of it, and the folder of the sweep that it names.

    Raises UserError if there is no such sweep.
    """
    named = [text for text in arguments.overrides if text.lstrip("+").startswith("sweep=")]
    if not named:
        return arguments, None
    value = str(parse(named)[-1].value())
    definitions = list(SWEEPS.glob(f"*/{DEFINITION}") if value == "last" else Path(value).glob(DEFINITION))
    if not definitions:
        none = f"there is no sweep below {SWEEPS}/" if value == "last" else f"that folder has no {DEFINITION}"
        raise UserError(f"sweep={value}: {none}.")
    folder = max(definitions, key=lambda path: path.stat().st_mtime).parent
    rest = [text for text in arguments.overrides if text not in named]
    if not rest:
        begun = Definition.read(folder)
        rest, folders = begun.overrides, arguments.config_dirs or tuple(begun.config_dirs)
        look_into(*folders)
        arguments = replace(arguments, config_dirs=folders)
    return replace(arguments, overrides=tuple(rest)), folder


def _jobs(arguments: Arguments, asked: Sequence[str], folder: Path | None) -> tuple[Path, list[Job]]:
    """The sweep's folder, a new one if none is given, and each job, composed, checked and named by what is varied."""
    varied = {override.get_key_element() for override in parse(asked) if override.is_sweep_override()}
    jobs, every = dict[str, Job](), grid(asked)
    for number, overrides in enumerate(every, start=1):
        own = [text for text in overrides if text.partition("=")[0] in varied]
        title = f"job {number} of {len(every)}: {' '.join(text.lstrip('+') for text in own)}"
        with _telling(title):
            composed = compose(arguments.door, overrides)
            config, hydra = check(composed.values, TrainConfig), composed.whole.hydra
        if config.resume:
            words = "a sweep (-m) goes on where it stopped when it is started again in its hydra.sweep.dir."
            raise UserError(f"resume: {words}")
        if config.again:
            raise UserError("again: one run is trained anew, and no sweep. Leave out -m.")
        if config.devices > 1 and is_parallel(hydra):
            raise UserError("devices: hydra/launcher=joblib gives each run one device. Leave out one of the two.")
        check_needs(config)
        if folder is None:
            folder = Path(hydra.sweep.dir)
        name = as_folder(",".join(sorted(own)))
        if name in jobs:
            raise UserError(f"two runs of this sweep would write to {name}. A value is named twice.")
        OmegaConf.set_readonly(hydra, False)  # launchers write there, too
        hydra.sweep.dir, hydra.sweep.subdir = str(folder), name
        named = tuple(written(overrides))
        # absolute, for what a launcher starts may work in another folder
        request = Request(config, folder.absolute() / name, arguments.command(named), named)
        jobs[name] = Job(request, composed.whole, title)
    assert folder is not None
    check_writable(folder)
    return folder, list(jobs.values())


def _try_networks(jobs: Sequence[Job]) -> None:
    """Raises UserError if a job's network can't be built, or takes no images of the size that it is to be given."""
    with importing():
        from src.model.network import try_network
    distinct = dict[str, Job]()
    for job in jobs:
        config = job.request.config
        distinct.setdefault(repr((config.model, config.dataset.image_size, config.dataset.mean, config.init)), job)
    for job in distinct.values():
        with _telling(job.title):
            try_network(job.request.config)


@contextmanager
def _telling(title: str) -> Iterator[None]:
    """Have a UserError say which job it is of."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{error} ({title})") from error


def _compare(folder: Path, begun: Sequence[str], asked: Sequence[str]) -> None:
    """Say which keys have more or fewer values than the sweep was begun with; raises UserError if it is another one."""
    before, now = _values(begun), _values(asked)
    grown = {}
    for key in before.keys() & now.keys():
        old, new = set(before[key].split(",")), set(now[key].split(","))
        if len(old) > 1 and len(new) > 1 and (old < new or new < old):
            grown[key] = before[key]
    refuse_another(folder, before, now | grown, "Choose another hydra.sweep.dir for another sweep.")
    for key, values in grown.items():
        print(f"This sweep was begun with {key}={values}, and goes on with {key}={now[key]}.")


def _values(overrides: Sequence[str]) -> dict[str, str]:
    """Each key with its values in the order of their words; what Hydra alone reads is left out."""
    values = {}
    for override in parse(overrides):
        if not override.key_or_group.startswith("hydra"):
            several = override.is_sweep_override()
            texts = override.sweep_string_iterator() if several else [override.get_value_element_as_str()]
            values[override.key_or_group] = ",".join(sorted(texts))
    return values
