"""The groups of configs, a row each: what its options are made of, what we pass to them, whom a name is trusted from.

The check of a config, --help, and what a stranger's checkpoint may name all follow from these rows.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from src.config import signature
from src.config.errors import UserError
from src.config.paths import for_shell
from src.config.schema import (
    CONFIGS,
    PACKAGE,
    CallbacksConfig,
    Component,
    Components,
    DatasetConfig,
    MapStyle,
    NamedComponent,
    OptimizerConfig,
    Section,
)

FOLDERS = [CONFIGS]  # where options lie; --config-dir adds one


@dataclass(frozen=True)
class Group:
    """A row: `base` has the keys of every option, and a target's own parameters join them.

    A target takes all of `required`; what is `given` by this project is no key, nor are the first `leading` parameters
    of a function. Yours may lie anywhere; a stranger's only `inside`, or where a YAML of the group names it. Classes of
    a `library` are options by their lower-case names. Several components by name are `Components`.
    """

    base: type[Section]
    inside: tuple[str, ...]
    required: frozenset[str] = frozenset()
    given: frozenset[str] = frozenset()
    leading: int = 0
    library: str = ""

    @property
    def several(self) -> bool:
        return issubclass(self.base, Components)


def _row(base: type[Section], inside: str, required: str = "", given: str = "", *more: Any) -> Group:
    return Group(base, tuple(inside.split()), frozenset(required.split()), frozenset(given.split()), *more)


_DATA, _MODEL, _CALLBACKS = (f"{PACKAGE}.{room}." for room in ("data", "model", "training.callbacks"))
_NETWORK, _SCHEDULES = "in_channels num_classes", "torch.optim.lr_scheduler"
_OPTIMIZER = "params fused foreach differentiable capturable maximize"
_TRANSFORMS = f"{_DATA}augmentation. torchvision.transforms.v2."
_OF_ITEMS = "transform transforms target_transform loader download"
_LOGGER = "save_dir dir name run_name version id run_id experiment_key run_hash experiment sub_dir purge_step"

GROUPS = {
    "dataset": _row(DatasetConfig, _DATA, "data_dir source", "data_dir source"),
    "dataset/augmentation": _row(Components, _TRANSFORMS, "", "num_classes labels_getter", 3),
    "dataset/map_style": _row(MapStyle, f"{_DATA} torchvision.datasets.", "root", _OF_ITEMS),
    "model": _row(NamedComponent, _MODEL, _NETWORK, _NETWORK),
    "loss": _row(Component, f"{_MODEL}losses. torch.nn.", "", "num_classes class_counts", 2),
    "metrics": _row(Components, f"{_MODEL}metrics. torchmetrics.classification.", "", "num_classes validate_args"),
    "optimizer": _row(OptimizerConfig, f"{_MODEL} torch.optim.", "params", _OPTIMIZER, 0, "torch.optim"),
    "scheduler": _row(NamedComponent, f"{_MODEL} {_SCHEDULES}.", "optimizer", "optimizer total_steps", 0, _SCHEDULES),
    "callbacks": _row(CallbacksConfig, f"{_CALLBACKS} lightning.pytorch.callbacks.", "", "monitor"),
    "logger": _row(Components, "lightning.pytorch.loggers.", "", f"{_LOGGER} default_hp_metric"),
    "sampler": _row(NamedComponent, "optuna.samplers.", "seed"),
    "pruner": _row(NamedComponent, "optuna.pruners."),
}


def look_into(*folders: str) -> None:
    """Take options from these folders, too, and trust what their YAML files name; UserError if one is none."""
    for folder in folders:
        if not Path(folder).is_dir():
            raise UserError(f"--config-dir {folder}: there is no such folder.")
    FOLDERS[1:] = [Path(folder).absolute() for folder in folders]


def command(door: str, *words: str, also: tuple[Path, ...] = ()) -> str:
    """For a shell, with the folders that options come from, and `also` others."""
    return " ".join(map(for_shell, ["python", *arguments(door, *words, also=also)]))


def arguments(door: str, *words: str, also: tuple[Path, ...] = ()) -> list[str]:
    """Those of Python, for a command."""
    folders = dict.fromkeys([*FOLDERS[1:], *(folder.absolute() for folder in also)])
    near = [folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder for folder in folders]
    options = [word for folder in near for word in ("--config-dir", str(folder))]
    return ["-m", f"{PACKAGE}.{door}", *options, *words]


def given(group: str, target: str, parameters: Collection[str]) -> frozenset[str]:
    """What this project gives to a target with these parameters; what follows `monitor` has its direction, too."""
    follows = target.endswith(".ReduceLROnPlateau") or (group == "callbacks" and "monitor" in parameters)
    return GROUPS[group].given | ({"mode"} if follows else set())


def is_group(key: str) -> bool:
    """Whether an override of this key chooses an option of a group."""
    return "/" in key or any((folder / key).is_dir() for folder in FOLDERS)


def options(group: str) -> list[str]:
    """The names that `group=` takes."""
    return sorted({file.stem for file in _files(group)} | without_yaml(group).keys())


def is_named(group: str, target: str) -> bool:
    """Whether a YAML file names it for the group, so that a stranger's config may, too."""
    return target in _named(group, tuple(FOLDERS))


def without_yaml(group: str) -> dict[str, str]:
    """Name -> target of each option that has no YAML, for its signature is its config: the networks of src/model, and
    the classes of a group's library."""
    found = dict[str, str]()
    if group == "model":
        try:
            found = signature.networks(Path(__file__).parents[1] / "model")
        except LookupError as error:
            raise UserError(str(error)) from error
    elif group in GROUPS and GROUPS[group].library:
        found = signature.classes(GROUPS[group].library, *GROUPS[group].required)
    taken = {file.stem for file in _files(group)}
    return {name: target for name, target in found.items() if name not in taken}


def _files(group: str) -> list[Path]:
    return [file for folder in FOLDERS for file in (folder / group).glob("*.yaml")]


@cache
def _named(group: str, folders: tuple[Path, ...]) -> frozenset[str]:
    """The targets that YAML files name for the group: its own, and those that set a part of it, such as recipes."""
    found = set[str]()
    for file, values in _read(folders):
        own = any(file.parent == folder / group for folder in folders)
        found.update(_targets(values if own else [dict(values or {}).get(key) for key in group.split("/")]))
    return frozenset(found)


@cache
def _read(folders: tuple[Path, ...]) -> list[tuple[Path, Any]]:
    """What stands in every YAML file; one that is broken is told when it is chosen and composed."""
    found, loader = [], getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the first is ten times as fast
    for file in (file for folder in folders for file in folder.rglob("*.yaml")):
        with suppress(yaml.YAMLError, ValueError):
            found.append((file, yaml.load(file.read_text(encoding="utf-8"), loader)))
    return found


def _targets(values: Any) -> Iterator[str]:
    if isinstance(values, dict):
        yield from (str(value) for key, value in values.items() if key == "_target_")
        values = list(values.values())
    for value in values if isinstance(values, list) else []:
        yield from _targets(value)
