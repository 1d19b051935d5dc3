"""The groups of configs, a row each: what its options are made of, what we pass to them, whom a name is trusted from.

The check of a config, --help, and what a stranger's checkpoint may name all follow from these rows.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from yaml import YAMLError

from src.config import signature
from src.config.errors import UserError
from src.config.schema import (
    CONFIGS,
    PACKAGE,
    CallbacksConfig,
    Component,
    Components,
    DatasetConfig,
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


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_OPTIMIZER = "params fused foreach differentiable capturable maximize"
_LOGGER = "save_dir dir name run_name version id run_id experiment_key run_hash experiment sub_dir purge_step"
_READER, _NETWORK = _words("data_dir source"), _words("in_channels num_classes")
_SCHEDULES = "torch.optim.lr_scheduler"

GROUPS = {
    "dataset": Group(DatasetConfig, (f"{PACKAGE}.data.",), _READER, _READER),
    "dataset/augmentation": Group(
        Components,
        (f"{PACKAGE}.data.augmentation.", "torchvision.transforms.v2."),
        given=_words("num_classes labels_getter"),
        leading=3,
    ),
    "model": Group(NamedComponent, (f"{PACKAGE}.model.",), _NETWORK, _NETWORK),
    "loss": Group(
        Component, (f"{PACKAGE}.model.losses.", "torch.nn."), given=_words("num_classes class_counts"), leading=2
    ),
    "metrics": Group(
        Components,
        (f"{PACKAGE}.model.metrics.", "torchmetrics.classification."),
        given=_words("num_classes validate_args"),
    ),
    "optimizer": Group(
        OptimizerConfig,
        ("torch.optim.", f"{PACKAGE}.model."),
        _words("params"),
        _words(_OPTIMIZER),
        library="torch.optim",
    ),
    "scheduler": Group(
        NamedComponent,
        (f"{PACKAGE}.model.", f"{_SCHEDULES}."),
        _words("optimizer"),
        _words("optimizer total_steps"),
        library=_SCHEDULES,
    ),
    "callbacks": Group(
        CallbacksConfig, (f"{PACKAGE}.training.callbacks.", "lightning.pytorch.callbacks."), given=_words("monitor")
    ),
    "logger": Group(Components, ("lightning.pytorch.loggers.",), given=_words(_LOGGER) | {"default_hp_metric"}),
    "sampler": Group(NamedComponent, ("optuna.samplers.",), _words("seed")),
    "pruner": Group(NamedComponent, ("optuna.pruners.",)),
}


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
    for folder in folders:
        for file in folder.rglob("*.yaml"):
            try:
                values: Any = OmegaConf.to_container(OmegaConf.load(file))
            except (YAMLError, ValueError):  # one that is chosen is told when it is composed
                continue
            own = file.parent == folder / group
            found.update(_targets(values if own else [dict(values or {}).get(key) for key in group.split("/")]))
    return frozenset(found)


def _targets(values: Any) -> Iterator[str]:
    if isinstance(values, dict):
        yield from (str(value) for key, value in values.items() if key == "_target_")
        values = list(values.values())
    for value in values if isinstance(values, list) else []:
        yield from _targets(value)
