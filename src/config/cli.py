"""From a command line to a checked config: what every front door shares, and none of it imports torch."""

from __future__ import annotations

import gc
import hashlib
import os
import shlex
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn, cast

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from src.config import compose, extras
from src.config import folder as runs
from src.config import process as cluster
from src.config.check import Checked, check
from src.config.errors import RunError, Stopped, UserError
from src.config.help import help_text
from src.config.schema import CONFIGS, Section, TrainConfig
from src.sweeps import grid as sweeps
from src.sweeps import jobs

Task = Callable[[Checked, Path], float | None]


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


def launch(door: str, schema: type[Checked], task: Task[Checked]) -> None:
    """Run `task` with the checked config and output folder of each job that the command line names.

    A wrong request ends in a sentence on stderr and exit code 2, before `task` is called for any job, and a failed
    run in one and exit code 1; HYDRA_FULL_ERROR=1 shows where it was raised. A run that was asked to stop exits with
    128 and the signal's number. A sweep goes on after a job that failed, shows all of them at its end, and exits with
    1 if one has failed.
    """
    try:
        args = get_args_parser().parse_intermixed_args()
        if args.help:
            compose.register()
            print(help_text(door, schema))
            return
        sweep = prepare(door, schema, args)
        held = sweeps.begin(sweep) if sweep else None
    except UserError as error:
        end(error, 2)
    total = len(sweep.runs) if sweep else 0

    def job(config: DictConfig) -> float | None:
        if total:
            return jobs.run(command_line(door), total, config, cast(jobs.Task, task))
        return _run_alone(config, schema, task)

    try:
        hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name=door)(job)()
    except KeyboardInterrupt:  # before a job began or between two
        print("stopped by SIGINT.", file=sys.stderr)
        raise SystemExit(130) from None
    if sweep and held:
        for path in sweep.folder.glob(".slot-*.lock"):
            path.unlink(missing_ok=True)
        finished = sweeps.show(sweep.folder)
        held.release()
        raise SystemExit(0 if finished else 1)


def prepare(door: str, schema: type[Section], args: Namespace) -> sweeps.Sweep | None:
    """Check every job that the command line names, and write into it the folder that it goes on in, if it does.

    Gives the sweep that it is, if it is one.

    Raises:
        UserError: something of it can't be served.
    """
    compose.register()
    _refuse(args)
    training = schema is TrainConfig and not (args.cfg or args.info)
    flags = [text for text in sys.argv[1:] if text not in args.overrides]
    asked, earlier = sweeps.chosen(args.overrides, args.multirun, flags)
    config_dir = flags[flags.index("--config-dir") + 1] if "--config-dir" in flags else args.config_dir
    overrides = compose.declared(asked, args.multirun)
    if args.multirun and training:
        overrides += [sweeps.naming(overrides)]
        if earlier:
            overrides = compose.put(overrides, "hydra.sweep.dir", earlier)
    composed = [
        compose.compose(args.config_name or door, config_dir, job) for job in compose.jobs(overrides, args.multirun)
    ]
    checked = [check(config, schema) for config in composed]
    for one in checked:
        if training and isinstance(one, TrainConfig):
            extras.need_loggers(one.logger)
    sweep = None
    if training and args.multirun:
        found = [(config, one) for config, one in zip(composed, checked, strict=True) if isinstance(one, TrainConfig)]
        if any(one.resume for _, one in found):
            raise UserError(
                "resume: a sweep (-m) goes on where it stopped when it is started again in its hydra.sweep.dir."
            )
        if any(one.devices > 1 for _, one in found) and "JoblibLauncher" in str(composed[0].hydra.launcher["_target_"]):
            raise UserError("devices: hydra/launcher=joblib gives each run one device. Leave out one of the two.")
        folder = _folder_of(composed[0], overrides)
        sweep = sweeps.plan(
            folder, asked, found, shlex.join(["python", "-m", f"src.{door}", *flags, *asked]), config_dir
        )
        overrides = compose.put(overrides, "hydra.sweep.dir", folder)
    elif training and isinstance(checked[0], TrainConfig):
        cluster.check_processes(checked[0])
        overrides = _continued(overrides, checked[0])
    sys.argv[1:] = [*flags, *overrides]
    return sweep


def _folder_of(first: DictConfig, overrides: list[str]) -> Path:
    """A sweep's folder. One that SLURM may start again is told from others of its job by all of its overrides."""
    folder = Path(first.hydra.sweep.dir)
    named = any(text.startswith("hydra.sweep.dir=") for text in overrides)
    if named or cluster.launch() is None:
        return folder
    return folder.with_name(f"{cluster.launch()}_{hashlib.md5(' '.join(sorted(overrides)).encode()).hexdigest()[:6]}")


def _refuse(args: Namespace) -> None:
    if args.config_path:
        raise UserError("--config-path would hide the project's configs; --config-dir adds a folder to them.")
    if args.config_dir and not Path(args.config_dir).is_dir():
        raise UserError(f"--config-dir {args.config_dir}: there is no such folder.")
    if any(text.lstrip("+").startswith(("hydra.mode=", "hydra.sweeper")) for text in args.overrides):
        raise UserError("hydra.mode and hydra.sweeper are not for users here: -m runs a sweep over KEY=A,B.")
    if args.multirun and (args.cfg or args.info):
        raise UserError("--cfg and --info show one run's config. Leave out -m, and name one value of each key.")
    if args.multirun and (cluster.world_size() or 1) > 1:
        raise UserError("a sweep (-m) starts the processes of its runs itself. Start it without srun or torchrun.")
    if cluster.unnamed() and not any(text.startswith("hydra.run.dir=") for text in args.overrides):
        raise UserError(
            "torchrun: its processes share a folder. Name it with hydra.run.dir=FOLDER, or the run with --rdzv-id=NAME."
        )


def _continued(overrides: list[str], config: TrainConfig) -> list[str]:
    """The overrides with the folder of the run that the command goes on with, if it does."""
    if not config.resume:
        return overrides
    folder = runs.folder_to_resume(config.resume)
    if config.resume == "last":
        overrides = compose.put(overrides, "resume", folder)
    return compose.put(overrides, "hydra.run.dir", folder.absolute())


def _run_alone(config: DictConfig, schema: type[Checked], task: Task[Checked]) -> float | None:
    folder = Path(HydraConfig.get().runtime.output_dir)
    try:
        return task(check(config, schema), folder)
    except UserError as error:
        discard(folder)
        end(error, 2)
    except RunError as error:
        discard(folder)
        # Lightning kills all processes of a run at once when one that it has started fails
        end(error, 0 if runs.is_child() and error.everywhere else 1)
    except Stopped as error:
        discard(folder)
        end(error, 0 if runs.is_child() else error.code)


def command_line(door: str) -> str:
    """The command that runs the job at hand again, alone and in a folder of its own."""
    sources = [source.path for source in HydraConfig.get().runtime.config_sources if source.provider == "command-line"]
    extra = [word for path in sources for word in ("--config-dir", path)]
    return shlex.join(["python", "-m", f"src.{door}", *extra, *task_overrides()])


def task_overrides() -> list[str]:
    """What the command line says of the job at hand, as the user wrote it."""
    return [text.removeprefix("++") for text in HydraConfig.get().overrides.task]


def discard(folder: Path) -> None:
    """Remove the output folder of a job that made nothing in it."""
    if folder != Path.cwd() and folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def end(error: BaseException, code: int) -> NoReturn:
    """Say what an error says and leave with an exit code."""
    if os.environ.get("HYDRA_FULL_ERROR") == "1" and not isinstance(error, Stopped):
        raise error
    said = runs.is_child() and code == 0  # by the process that leads the run
    for line in [] if said else str(error).splitlines():
        print(line if isinstance(error, Stopped) else f"error: {line}", file=sys.stderr)
    raise SystemExit(code) from error
