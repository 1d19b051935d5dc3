"""From a command line to a checked config: what every front door shares, and none of it imports torch."""

from __future__ import annotations

import gc
import hashlib
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn
from uuid import uuid4

import hydra
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import get_args_parser
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from src import cluster, runs, signature
from src.config import CONFIGS, RunError, Section, Stopped, TrainConfig, UserError
from src.help import help_text, networks, options
from src.validation import Checked, check, nearest


@contextmanager
def importing() -> Iterator[None]:
    """Around the import of torch and Lightning, which makes a million objects and no garbage to search them for."""
    if "torch" in sys.modules:  # a later job of a sweep: what the job before has left is let go, not frozen
        gc.collect()
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.freeze()


def launch(door: str, schema: type[Checked], task: Callable[[Checked, Path], float | None]) -> None:
    """Run `task` with the checked config and output folder of each job that the command line names.

    A wrong request ends in a sentence on stderr and exit code 2, before `task` is called for any job, and a failed
    run in one and exit code 1; HYDRA_FULL_ERROR=1 shows where it was raised. A run that was asked to stop exits with
    128 and the signal's number.
    """

    def job(config: DictConfig) -> float | None:
        folder = Path(HydraConfig.get().runtime.output_dir)
        if HydraConfig.get().mode is RunMode.MULTIRUN:
            print(f"job {HydraConfig.get().job.num + 1}: {command_line(door)}", flush=True)
        try:
            return task(check(config, schema), folder)
        except UserError as error:
            discard(folder)
            _end(error, 2)
        except RunError as error:
            discard(folder)
            # Lightning kills all processes of a run at once when one that it has started fails
            _end(error, 0 if runs.is_child() and error.everywhere else 1)
        except Stopped as error:  # a sweep stops with its job
            discard(folder)
            if HydraConfig.get().mode is RunMode.MULTIRUN:
                place = shlex.quote(HydraConfig.get().sweep.dir)
                words = f"{Stopped(error.number)} The sweep goes on with its command and hydra.sweep.dir={place}"
                error = Stopped(error.number, words)
            _end(error, 0 if runs.is_child() else error.code)

    try:
        register()
        args = get_args_parser().parse_args()
        if args.help:
            print(help_text(door, schema))
            return
        if args.config_path:
            raise UserError("--config-path would hide the project's configs; --config-dir adds a folder to them.")
        if args.config_dir and not Path(args.config_dir).is_dir():
            raise UserError(f"--config-dir {args.config_dir}: there is no such folder.")
        sys.argv[1:] = _declared(sys.argv[1:], args.overrides)
        for overrides in _jobs(args.overrides, args.multirun):
            config = check(_compose(args.config_name or door, args.config_dir, overrides), schema)
            if args.multirun:
                _refuse_in_sweep(config)
            elif isinstance(config, TrainConfig) and not args.cfg:
                sys.argv[1:] = _continued(sys.argv[1:], config)
    except UserError as error:
        _end(error, 2)
    try:
        hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name=door)(job)()
    except KeyboardInterrupt:  # before a job began or between two
        print("stopped by SIGINT.", file=sys.stderr)
        raise SystemExit(130) from None


def _refuse_in_sweep(config: Section) -> None:
    if getattr(config, "devices", 1) > 1:
        # Lightning starts the other processes by this same command line, which would sweep again
        raise UserError("devices: a sweep (-m) runs on one device for each job. Run several devices without -m.")
    if getattr(config, "resume", None):
        raise UserError(
            "resume: a sweep (-m) goes on where it stopped when it is started again in its hydra.sweep.dir."
        )


def _continued(argv: list[str], config: TrainConfig) -> list[str]:
    """The command line with the folder of the run that it goes on with, if it does."""
    if config.resume:
        folder = runs.folder_to_resume(config.resume)
        if config.resume == "last":
            argv = [text for text in argv if text.lstrip("+").partition("=")[0] != "resume"]
            argv.append(_quote_path(f"++resume={folder}"))
    elif (found := runs.folder_of_job(config)) is None:
        return argv
    else:
        folder = found
    kept = [text for text in argv if text.lstrip("+").partition("=")[0] != "hydra.run.dir"]
    return [*kept, _quote_path(f"hydra.run.dir={folder.absolute()}")]


def command_line(door: str) -> str:
    """The command that runs the job at hand again, alone and in a folder of its own."""
    extra = get_args_parser().parse_args().config_dir
    words = ["python", "-m", f"src.{door}", *(["--config-dir", extra] if extra else [])]
    return shlex.join([*words, *task_overrides()])


def task_overrides() -> list[str]:
    """What the command line says of the job at hand, as the user wrote it."""
    return [text.removeprefix("++") for text in HydraConfig.get().overrides.task]


def register() -> None:
    """Tell Hydra the names that configs use, and each network that has a file but no YAML."""
    OmegaConf.register_new_resolver("unique", _unique, replace=True, use_cache=True)
    OmegaConf.register_new_resolver("as_folder", _as_folder, replace=True)
    for name, target in networks().items():
        defaults = {key: value for key, (_, value) in signature.parameters(target).items() if value is not ...}
        ConfigStore.instance().store(group="model", name=name, node={"name": name, "_target_": target, **defaults})


def discard(folder: Path) -> None:
    """Remove the output folder of a job that made nothing in it."""
    if folder != Path.cwd() and folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _end(error: BaseException, code: int) -> NoReturn:
    if os.environ.get("HYDRA_FULL_ERROR") == "1" and not isinstance(error, Stopped):
        raise error
    said = runs.is_child() and code == 0  # by the process that leads the run
    for line in [] if said else str(error).splitlines():
        print(line if isinstance(error, Stopped) else f"error: {line}", file=sys.stderr)
    raise SystemExit(code) from error


def _parse(overrides: list[str]) -> list[Override]:
    try:
        return OverridesParser.create().parse_overrides(overrides)
    except HydraException as error:
        raise UserError(f"{_first_line(error)} Options are written KEY=VALUE.") from error


PATHS = ("data_dir", "checkpoint", "resume", "hydra.run.dir", "hydra.sweep.dir")


def _declared(argv: list[str], overrides: list[str]) -> list[str]:
    """Let `key=value` set any declared key, listed in the YAML or not: the schema judges it, not Hydra.

    Paths are quoted where Hydra's grammar would stumble over a character of theirs.
    """
    rewritten = {}
    quoted = [_quote_path(text) for text in overrides]
    for given, text, override in zip(overrides, quoted, _parse(quoted), strict=True):
        key = override.key_or_group
        change = override.type is OverrideType.CHANGE and not key.startswith("hydra.") and not _is_group(key)
        rewritten[given] = f"++{text}" if change else text
    overrides[:] = [rewritten[text] for text in overrides]
    return [rewritten.get(text, text) for text in argv]


def _quote_path(text: str) -> str:
    key, _, value = text.partition("=")
    plain = re.fullmatch(r"[\w./:~-]*|\".*\"|'.*'|.*(\$\{|,).*", value)  # a comma is a sweep's
    if key.lstrip("+") not in PATHS or plain:
        return text
    escaped = value.replace("'", "\\'")
    return f"{key}='{escaped}'"


def _is_group(key: str) -> bool:
    return "/" in key or (CONFIGS / key).is_dir()


def _jobs(overrides: list[str], multirun: bool) -> list[list[str]]:
    """The overrides of each job: one list, or one for each point of a sweep's grid."""
    parsed = _parse(overrides)
    if multirun:
        try:
            return [job for batch in BasicSweeper.split_arguments(parsed, None) for job in batch]
        except HydraException as error:
            raise UserError(f"{_first_line(error)} A sweep takes KEY=A,B or range(...).") from error
    for override in parsed:
        if override.is_sweep_override():
            given = str(override.input_line).removeprefix("++")
            raise UserError(f"{given}: several values are a sweep; add -m to run one job for each.")
    return [overrides]


def _compose(name: str, extra: str | None, overrides: list[str]) -> DictConfig:
    try:
        with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
            if extra:
                overrides = [*overrides, f"hydra.searchpath=['file://{Path(extra).absolute().as_posix()}']"]
            config = hydra.compose(name, overrides, return_hydra_config=True)
            HydraConfig.instance().set_config(config)  # for ${hydra:...} in a value
            _check_writable(Path(config.hydra.run.dir))
            _check_writable(Path(config.hydra.sweep.dir))
    except MissingConfigException as error:
        raise UserError(_no_such_option(error)) from error
    except YAMLError as error:
        raise UserError(f"a config file is no YAML: {' '.join(str(error).split())}.") from error
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise UserError(_first_line(error)) from error
    finally:
        GlobalHydra.instance().clear()
    return config


def _no_such_option(error: MissingConfigException) -> str:
    group, _, name = str(error.missing_cfg_file).removesuffix(".yaml").rpartition("/")
    names = sorted({*(error.options or []), *(options(group) if group else [])})
    if not group or not names:
        return _first_line(error)
    return f"{group}={name}: there is no such {group}.{nearest(name, names)} There are: {', '.join(names)}."


def _check_writable(folder: Path) -> None:
    existing = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    if not existing.is_dir():
        raise UserError(f"{folder}: can't write a run there, for {existing} is a file. Set hydra.run.dir.")
    if not os.access(existing, os.W_OK):
        raise UserError(f"{folder}: can't write a run there, for {existing} is read-only. Set hydra.run.dir.")


def _unique() -> str:
    """Tells runs of one second apart; in SLURM the job's number, by which it finds its run when it is requeued."""
    number = cluster.job()
    return uuid4().hex[:6] if number is None else runs.job_suffix(number)


def _as_folder(text: str) -> str:
    """A sweep's overrides as the name of a folder, on every file system and in Hydra's own grammar."""
    name = re.sub(r"[^\w.-]+", "_", text.replace("+", "").replace("=", "-")).strip("_") or "job"
    return name if len(name) <= 200 else f"{name[:190]}_{hashlib.md5(text.encode()).hexdigest()[:8]}"


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0].rstrip(".") + "."
