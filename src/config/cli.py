"""From a command line to typed requests and their calls: what every door shares, and none of it imports torch."""

from __future__ import annotations

import errno
import gc
import os
import re
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from types import ModuleType
from typing import Generic, NoReturn

from omegaconf import OmegaConf

from src.config.check import Checked, check
from src.config.compose import compose, declared, grid, written
from src.config.errors import RunError, Stopped, UserError, need
from src.config.files import check_classes, check_writable
from src.config.folder import find_checkpoint, folder_to_resume
from src.config.groups import command, look_into
from src.config.help import help_text
from src.config.naming import anew, run_of
from src.config.paths import home, quoted
from src.config.problems import as_option
from src.config.process import FOLDER, forget_launches, inherited_folder, is_child, launch_name, world_size
from src.config.schema import PACKAGE, Section, TrainConfig
from src.config.streams import steady

LOGGERS = {  # of Lightning's, with what each needs: package and extra
    "WandbLogger": ("wandb", "wandb"),
    "MLFlowLogger": ("mlflow", "mlflow"),
    "CometLogger": ("comet_ml", ""),
}


@dataclass(frozen=True)
class Arguments:
    """A command line, parsed: `overrides` as the user wrote them, paths quoted for Hydra, and what stands before."""

    door: str
    overrides: tuple[str, ...]
    multirun: bool = False
    config_dirs: tuple[str, ...] = ()
    help: bool = False
    show: bool = False

    def command(self, overrides: Sequence[str]) -> str:
        """The command that does the same with these overrides, for a shell."""
        return command(self.door, *overrides)


@dataclass(frozen=True)
class Request(Generic[Checked]):
    """One call of a door: in the `folder` of a run, for src.train; `command` does the same again in one of its own.

    `named` are the overrides that the user wrote; `is_new` says that the folder has the name of a new run.
    """

    config: Checked
    folder: Path
    command: str
    named: tuple[str, ...]
    is_new: bool = False


class Parser(ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}. --help shows what can be said.")


def read(door: str, words: Sequence[str], *schemas: type[Section]) -> Arguments:
    """Parse a command line; UserError if it has an option that there is not, or two that don't go together."""
    parser = Parser(f"python -m {PACKAGE}.{door}", add_help=False, allow_abbrev=False)
    parser.add_argument("--help", "-h", action="store_true")
    parser.add_argument("--multirun", "-m", action="store_true")
    parser.add_argument("--cfg", "-c", choices=["job"])
    parser.add_argument("--config-dir", "-cd", action="append", default=[], type=home)
    parser.add_argument("--config-path", "-cp")
    parser.add_argument("--config-name", "-cn")
    parser.add_argument("overrides", nargs="*")
    found, flags = parser.parse_known_intermixed_args(list(words))
    bare = [text for text in found.overrides if "=" not in text and not text.startswith("~")]
    if stray := [number for number, text in enumerate(words) if text in (*flags, *bare)]:
        example = "trainer.max_epochs=5" if TrainConfig in schemas else "checkpoint=FILE"
        meant = as_option(words[stray[0] :], *schemas)
        written = f"options are KEY=VALUE{f': {meant}' if meant else f', such as {example}'}"
        raise UserError(f"{words[stray[0]]}: {written}. --help shows them.")
    if found.config_path or found.config_name:
        advice = "KEY=VALUE changes them, --config-dir adds a folder to them"
        raise UserError(f"--config-path and --config-name would hide the project's configs; {advice}.")
    if any(text.lstrip("+").startswith(("hydra.mode=", "hydra.sweeper")) for text in found.overrides):
        raise UserError("hydra.mode and hydra.sweeper are not for users here: -m runs a sweep over KEY=A,B.")
    if (sweeps := [text for text in found.overrides if text.lstrip("+").startswith("sweep=")]) and not found.multirun:
        raise UserError(f"{sweeps[-1]}: several runs are a sweep; add -m.")
    if found.multirun and found.cfg:
        raise UserError("--cfg shows one run's config. Leave out -m, and name one value of each key.")
    look_into(*found.config_dir)
    if any("checkpoint" in schema.model_fields for schema in schemas):
        short = [re.sub(r"^(\+*)run=", r"\1checkpoint=", text) for text in found.overrides]
        if short != found.overrides and sum(text.lstrip("+").startswith("checkpoint=") for text in short) > 1:
            raise UserError("checkpoint and run mean the same. Name one of them.")
        found.overrides = short
    overrides = tuple(quoted(found.overrides, found.multirun or door == "tune", *schemas))
    return Arguments(door, overrides, found.multirun, tuple(found.config_dir), found.help, bool(found.cfg))


def launch(
    door: str,
    schema: type[Checked],
    task: Callable[[Request[Checked]], object],
    sweep: Callable[[Arguments], bool] | None = None,
) -> None:
    """Do what the command line says: call `task`, or `sweep`, which says whether all of its runs were finished.

    A wrong request ends in a sentence and exit code 2, before any job begins, and a failed run in one and exit code 1;
    HYDRA_FULL_ERROR=1 shows where it was raised. A run that was asked to stop exits with 128 and the signal's number.
    """
    steady()
    forget_launches()
    try:
        arguments = read(door, sys.argv[1:], schema)
        if arguments.help:
            print(help_text(door, schema, arguments.overrides))
        elif arguments.multirun and sweep:
            raise SystemExit(0 if sweep(arguments) else 1)
        else:
            for request in _requests(arguments, schema):
                try:
                    task(request)
                finally:
                    for made in (request.folder, request.folder.parent) if request.is_new else ():
                        with suppress(OSError):  # in that of a request that was refused nothing lies
                            made.rmdir()
    except UserError as error:
        end(error, 2)
    except OSError as error:
        end(unusable(error), 2)
    except RunError as error:
        # Lightning kills all processes of a run at once when one that it has started fails
        end(error, 0 if is_child() and error.everywhere else 1)
    except Stopped as error:
        end(error, 0 if is_child() else error.code)
    except KeyboardInterrupt:  # before a run began
        end(Stopped(2), 130)


def _requests(arguments: Arguments, schema: type[Checked]) -> list[Request[Checked]]:
    """Each composed and checked; none where the config is only to be shown."""
    requests = []
    for overrides in grid(declared(arguments.overrides), arguments.multirun):
        composed = compose(arguments.door, overrides)
        config = check(composed.values, schema)
        if arguments.show:
            print(OmegaConf.to_yaml(OmegaConf.create(composed.values)), end="")
            return []
        folder, named = Path(composed.whole.hydra.run.dir), tuple(written(overrides))
        is_new = "${started:}" in OmegaConf.to_yaml(composed.whole.hydra.run)
        if isinstance(config, TrainConfig):
            if is_new and not config.resume and not config.again:
                check_needs(config)
            folder = _folder_of(folder, config, is_new)
        elif asked := getattr(config, "checkpoint", None):
            checkpoint, note = find_checkpoint(asked)
            config = config.model_copy(update={"checkpoint": str(checkpoint)})
            if note:
                print(note, flush=True)
        requests.append(Request(config, folder, arguments.command(named), named, is_new))
    return requests


def _folder_of(folder: Path, config: TrainConfig, is_new: bool) -> Path:
    """That of the run's other processes, of the run that goes on, or this one, made with a number behind it if it
    `is_new` and another run has its name; UserError if it can't be had."""
    if inherited := inherited_folder():
        return inherited
    if launch_name() == "torchrun-none" and is_new:
        advice = "Name it with hydra.run.dir=FOLDER, or the run with --rdzv-id=NAME."
        raise UserError(f"torchrun: its processes share a folder. {advice}")
    key = "again" if config.again else "resume"
    if getattr(config, key) == "last" and (world_size() or 1) > 1:  # each would look at a moment of its own
        raise UserError(f"{key}=last: the processes of srun or torchrun share a folder. Name it: {key}=FOLDER.")
    if config.again and is_new:
        folder = folder.with_name(anew(run_of(config.again).absolute().name))
    folder = (folder_to_resume(config.resume) if config.resume and not config.again else folder).absolute()
    check_writable(folder)
    if is_new and not (config.resume or launch_name() or is_child()):
        name = folder.name
        for suffix in chain([""], map("_{}".format, count(2))):
            with suppress(FileExistsError):  # of a run that was begun in the same second
                (folder := folder.with_name(name + suffix)).mkdir(parents=True)
                break
    os.environ[FOLDER] = str(folder)
    return folder


def unusable(error: OSError) -> UserError:
    """What to say of a path that can't even be looked at; raises any other error again."""
    if error.errno not in (errno.ENAMETOOLONG, errno.EACCES, errno.EPERM, errno.ELOOP):
        raise error
    return UserError(f"{str(error.filename)[:80]}: {error.strerror}. Name another file or folder.")


def end(error: BaseException, code: int) -> NoReturn:
    """Say what an error says and leave with an exit code."""
    if os.environ.get("HYDRA_FULL_ERROR") == "1" and not isinstance(error, Stopped):
        raise error
    told = is_child() and code == 0  # by the process that leads the run
    for line in [] if told else str(error).splitlines():
        print(line if isinstance(error, Stopped) else f"error: {line}", file=sys.stderr)
    raise SystemExit(code) from error


@contextmanager
def importing() -> Iterator[None]:
    """Around the import of torch and Lightning, which makes a million objects and no garbage to search them for."""
    if "torch" in sys.modules:  # a later job of a sweep: what the job before has left is let go, not frozen
        gc.collect()
        yield
        return
    gc.disable()
    # torchmetrics imports it only to patch it for another package: a second, for nothing that is used here
    stub = ModuleType("scipy.signal")
    stub.__dict__["hamming"] = None
    sys.modules.setdefault("scipy.signal", stub)
    try:
        yield
    finally:
        if sys.modules["scipy.signal"] is stub:
            del sys.modules["scipy.signal"]
        gc.enable()
        gc.freeze()


def check_needs(config: TrainConfig) -> None:
    """Raises UserError if a package is not installed that the data set or one of Lightning's loggers needs, as the
    config names it, or a folder of images isn't there."""
    if config.dataset.target.endswith(".data.image_folder.read_folder"):
        check_classes(Path(config.data_dir, config.dataset.arguments().get("folder", ".")))
    if config.dataset.target.endswith(".data.hub.read_hub"):
        need("datasets", "huggingface", "dataset=huggingface")
    for name, component in config.logger.components().items():
        if needed := LOGGERS.get(component.target.rpartition(".")[2]):
            need(*needed, f"logger={name}")
