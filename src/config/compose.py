"""From overrides to composed configs, by Hydra, with errors in words; imports no torch."""

from __future__ import annotations

import hashlib
import os
import re
from datetime import datetime
from pathlib import Path
from uuid import uuid4

import hydra
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from src.config import launchers, signature
from src.config import process as cluster
from src.config.check import nearest
from src.config.errors import UserError
from src.config.groups import is_group, networks, options
from src.config.schema import CONFIGS


def register() -> None:
    """Tell Hydra of each network that has a file but no YAML, and what its launchers are told here."""
    launchers.register()
    for name, target in networks().items():
        defaults = {key: value for key, (_, value) in signature.parameters(target).items() if value is not ...}
        ConfigStore.instance().store(group="model", name=name, node={"name": name, "_target_": target, **defaults})


def parse(overrides: list[str]) -> list[Override]:
    try:
        return OverridesParser.create().parse_overrides(overrides)
    except HydraException as error:
        raise UserError(f"{_first_line(error)} Options are written KEY=VALUE.") from error


PATHS = ("data_dir", "checkpoint", "resume", "input", "output", "sheet", "hydra.run.dir", "hydra.sweep.dir")


def declared(overrides: list[str], multirun: bool = True) -> list[str]:
    """Let `key=value` set any declared key, listed in the YAML or not: the schema judges it, not Hydra.

    Paths are quoted where Hydra's grammar would stumble over a character of theirs.
    """
    quoted = [quote_path(text, multirun) for text in overrides]
    rewritten = []
    for text, override in zip(quoted, parse(quoted), strict=True):
        key = override.key_or_group
        change = override.type is OverrideType.CHANGE and not key.startswith("hydra.") and not is_group(key)
        rewritten.append(f"++{text}" if change else text)
    return rewritten


def put(overrides: list[str], key: str, path: Path) -> list[str]:
    """The overrides with `key` set to a path, and to nothing else."""
    kept = [text for text in overrides if text.lstrip("+").partition("=")[0] != key]
    escaped = str(path).replace("\\", "\\\\").replace("'", "\\'")
    return [*kept, f"{'' if key.startswith('hydra.') else '++'}{key}='{escaped}'"]


def quote_path(text: str, multirun: bool = True) -> str:
    key, _, value = text.partition("=")
    apart = r"\$\{|," if multirun else r"\$\{"  # a comma is a sweep's
    plain = re.fullmatch(rf"[\w./:~-]*|\".*\"|'.*'|.*({apart}).*", value)
    if key.lstrip("+") not in PATHS or plain:
        return text
    escaped = value.replace("'", "\\'")
    return f"{key}='{escaped}'"


def jobs(overrides: list[str], multirun: bool) -> list[list[str]]:
    """The overrides of each job: one list, or one for each point of a sweep's grid."""
    parsed = parse(overrides)
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


def compose(name: str, extra: str | None, overrides: list[str]) -> DictConfig:
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


def _started() -> str:
    """When the run was begun, or the name of its launch: all its processes find one folder by it, now and later."""
    return cluster.launch() or datetime.now().strftime("%Y-%m-%d_%H-%M-%S")


def _unique(overrides: str) -> str:
    """Tells runs of one second apart, and those of one launch by what they were asked."""
    launched = cluster.launch() is not None
    return hashlib.md5(overrides.encode()).hexdigest()[:6] if launched else uuid4().hex[:6]


def as_folder(text: str) -> str:
    """A sweep's overrides as the name of a folder, on every file system and in Hydra's own grammar."""
    name = re.sub(r"[^\w.-]+", "_", text.replace("+", "").replace("=", "-")).strip("_") or "job"
    return name if len(name) <= 200 else f"{name[:190]}_{hashlib.md5(text.encode()).hexdigest()[:8]}"


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0].rstrip(".") + "."


# here and not in a function: a sweep's launcher imports this in processes of its own
OmegaConf.register_new_resolver("started", _started, replace=True, use_cache=True)
OmegaConf.register_new_resolver("unique", _unique, replace=True, use_cache=True)
OmegaConf.register_new_resolver("as_folder", as_folder, replace=True)
