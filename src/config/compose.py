"""From overrides to plain values, by Hydra, with errors in words; imports no torch."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType, Quote, QuotedString
from hydra.core.plugins import Plugins
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from yaml import YAMLError

from src.config import naming, signature
from src.config.architectures import architectures
from src.config.check import check
from src.config.errors import UserError
from src.config.groups import FOLDERS, GROUPS, given, is_group, options, without_yaml
from src.config.paths import quoted
from src.config.problems import closest, nearest
from src.config.schema import CONFIGS, TrainConfig, Values

# what Hydra's launchers, which start the jobs of a sweep, are told here. No YAML: Hydra has a deprecation warning for a
# file that is named as a launcher is, in every job
LAUNCHERS: dict[str, Values] = {
    "joblib": {"n_jobs": "${devices_here:}"},
    "submitit_local": {"timeout_min": 1440, "tasks_per_node": 1},
    "submitit_slurm": {
        "timeout_min": 1440,
        "nodes": "${oc.select:trainer.num_nodes,1}",
        "tasks_per_node": "${devices}",
        "gpus_per_node": "${devices}",
        "cpus_per_task": 8,
        "mem_gb": 32,
        "max_num_timeout": 1000,  # a run that has used its time goes on in another job
        "additional_parameters": {"requeue": True},
    },
}
_WORDS = {  # Hydra's, and what is said in their place
    r"Could not override '(.*)'\.": r"\1: there is no such key.",
    r"Could not delete from config\. '(.*?)'": r"\1: there is no such key.",
    r"Could not append to config\. .* at '(.*?)'": r"\1: it is there already. Leave out the +.",
    r"Multiple values for (.*?)\. ": r"\1: it is there already. Leave out the +.",
    r"(?:force-add|Error merging).*?(hydra[^']*)'?\.$": r"\1: expected keys, such as hydra.run.dir=FOLDER.",
}


@dataclass(frozen=True)
class Composed:
    """A config's plain `values`, all resolved, and the `whole` with Hydra's own part."""

    values: Values
    whole: DictConfig


def compose(name: str, overrides: Sequence[str]) -> Composed:
    """The config `name` of configs/ and of groups.FOLDERS with these overrides, as `declared` gives them.

    Raises UserError if there is no such option, a value is missing, or a file is no YAML.
    """
    if folders := [f"file://{folder.as_posix()}" for folder in FOLDERS[1:]]:
        more = ",".join(QuotedString(folder, Quote.double).with_quotes() for folder in folders)
        overrides = [*overrides, f"hydra.searchpath=[{more}]"]
    _register_launchers()
    try:
        with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
            try:
                whole = hydra.compose(name, list(overrides), return_hydra_config=True)
            except MissingConfigException:  # perhaps of an option that has no YAML: to find them takes a while
                _register_options()
                whole = hydra.compose(name, list(overrides), return_hydra_config=True)
        HydraConfig.instance().set_config(whole)  # for ${hydra:...} in a value
        str(whole.hydra.run.dir + whole.hydra.sweep.dir)  # what they name must be there
        if whole.hydra.job.chdir:
            raise UserError("hydra.job.chdir: a run works in the folder that its paths are seen from. Leave it out.")
        # what the command line must name is left to the schema, which knows what was named in its place
        keys = [str(key) for key in whole if key != "hydra" and not OmegaConf.is_missing(whole, key)]
        own = OmegaConf.masked_copy(whole, keys)
        values: Any = OmegaConf.to_container(own, resolve=True, throw_on_missing=True)
    except MissingConfigException as error:
        raise UserError(_no_such_option(error)) from error
    except MissingMandatoryValue as error:
        raise UserError(f"{error.full_key}: a value is needed.") from error
    except YAMLError as error:
        raise UserError(f"a config file is no YAML: {' '.join(str(error).split())}.") from error
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise UserError(_first_line(error)) from error
    finally:
        HydraConfig.instance().cfg = None  # Lightning would start a run's processes with Hydra's options
        GlobalHydra.instance().clear()
    return Composed(values, whole)


def configure(overrides: Sequence[str]) -> TrainConfig:
    """The checked config of a run, of overrides as they stand on a command line; raises UserError as that does."""
    return check(compose("train", declared(quoted(overrides, False, TrainConfig))).values, TrainConfig)


def _register_options() -> None:
    """Tell Hydra of each option that has no YAML, for its signature has its values."""
    for group in GROUPS:
        for name, target in without_yaml(group).items():
            declared = signature.read(target).parameters
            own = {key: value for key, (_, value) in declared.items() if key not in given(group, target, declared)}
            values = {key: value for key, value in own.items() if value is not ...}
            ConfigStore.instance().store(group=group, name=name, node={"name": name, "_target_": target, **values})


@cache  # to merge them once more would ask for the devices, and import torch
def _register_launchers() -> None:
    """Tell Hydra of our values for its launchers."""
    Plugins.instance()  # loads the launchers
    store = ConfigStore.instance()
    launchers = store.repo.get("hydra", {}).get("launcher", {})
    for name, values in LAUNCHERS.items():
        if stored := launchers.get(f"{name}.yaml"):
            node = OmegaConf.merge(stored.node, values)
            store.store(group="hydra/launcher", name=name, node=node, provider=stored.provider)


def parse(overrides: Sequence[str]) -> list[Override]:
    try:
        return OverridesParser.create().parse_overrides(list(overrides))
    except OverrideParseException as error:
        raise UserError(f"{error.override}: it can't be read. Options are written KEY=VALUE.") from error


def declared(overrides: Sequence[str]) -> list[str]:
    """Let `key=value` set any declared key, listed in the YAML or not: the schema judges it, not Hydra."""
    rewritten = []
    for text, override in zip(overrides, parse(overrides), strict=True):
        key = override.key_or_group
        if not key:
            raise UserError(f"{text}: the key is missing. Options are written KEY=VALUE.")
        named = override.is_sweep_override() or isinstance(override.value(), str | QuotedString | list)
        if is_group(key) and not named and override.type is not OverrideType.DEL:
            raise UserError(f"{text}: expected {key}=NAME, which --help lists.")
        change = override.type is OverrideType.CHANGE and not key.startswith("hydra.") and not is_group(key)
        rewritten.append(f"++{text}" if change else text)
    return rewritten


def written(overrides: Sequence[str]) -> list[str]:
    """Declared overrides as a user writes them, without those that Hydra alone reads."""
    return [text.removeprefix("++") for text in overrides if not text.lstrip("+~").startswith("hydra")]


def grid(overrides: Sequence[str], several: bool = True) -> list[list[str]]:
    """The overrides of each job, the last key's values changing first; of one job, if not `several`.

    Raises UserError if a key has several values and may not, or an interval of them.
    """
    values: dict[str, list[str]] = {}
    for override in parse(overrides):
        key, given = override.get_key_element(), str(override.input_line).removeprefix("++")
        if not override.is_sweep_override():
            values[key] = [f"{key}={override.get_value_element_as_str()}"]
        elif not several:
            raise UserError(f"{given}: several values are a sweep; add -m to run one job for each.")
        elif override.is_discrete_sweep():
            values[key] = [f"{key}={value}" for value in override.sweep_string_iterator()]
        else:
            raise UserError(f"{given}: A sweep takes KEY=A,B or range(...).")
    return [list(job) for job in itertools.product(*values.values())] if several else [list(overrides)]


def _no_such_option(error: MissingConfigException) -> str:
    group, _, name = str(error.missing_cfg_file).removesuffix(".yaml").rpartition("/")
    names = sorted({*(error.options or []), *(options(group) if group else [])})
    if not group or not names:
        return _first_line(error)
    meant = nearest(name, names)
    if group == "model" and not meant and (arch := closest(name, architectures("torchvision"))):
        meant = f" Did you mean model=torchvision model.arch={arch}?"
    return f"{group}={name}: there is no such {group}.{meant} There are: {', '.join(names)}."


def _first_line(error: Exception) -> str:
    line = str(error).strip().splitlines()[0].rstrip(".") + "."
    for theirs, ours in _WORDS.items():
        line = re.sub(f"^{theirs}.*", ours, line)
    return line


def _devices_here() -> int:
    """GPUs, or processor cores where there are none: so many jobs run at one time."""
    from torch.cuda import device_count

    return device_count() or os.cpu_count() or 1


def _published(name: str, value: Any = None) -> Any:
    """The file of weights of that name, or `value` instead, if it lies where torch keeps what it downloads."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "torch")
    path = Path(os.environ.get("TORCH_HOME") or cache, "hub", "checkpoints", name)
    if not path.exists():
        return None if value is None else []
    return str(path) if value is None else value


naming.register()
OmegaConf.register_new_resolver("devices_here", _devices_here, replace=True)
OmegaConf.register_new_resolver("published", _published, replace=True)
