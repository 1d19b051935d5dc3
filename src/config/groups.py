"""The groups of configs, a row each: what its options are made of, where their targets may lie, what we pass to them.

The check of a config, --help, and what a stranger's checkpoint may name all follow from these rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from src.config import signature
from src.config.errors import UserError
from src.config.schema import (
    CONFIGS,
    CallbacksConfig,
    Components,
    DatasetConfig,
    NamedComponent,
    OptimizerConfig,
    Section,
)


@dataclass(frozen=True)
class Group:
    """A row: `base` has the keys of every option, and a target's own parameters join them.

    Targets begin with one of `inside`, and take all of `required`; what is `given` by this project is no key. `several`
    says that an option holds components by name.
    """

    base: type[Section]
    inside: tuple[str, ...]
    required: frozenset[str] = frozenset()
    given: frozenset[str] = frozenset()
    several: bool = False


_OPTIMIZER = frozenset({"params", "fused", "foreach", "differentiable", "capturable", "maximize"})
_BATCH = frozenset({"images", "labels", "generator", "num_classes", "labels_getter"})
_READER, _NETWORK = frozenset({"data_dir", "source"}), frozenset({"in_channels", "num_classes"})

GROUPS = {
    "dataset": Group(DatasetConfig, ("src.data.",), _READER, _READER),
    "dataset/augmentation": Group(Components, ("src.data.", "torchvision.transforms.v2."), given=_BATCH, several=True),
    "model": Group(NamedComponent, ("src.model.",), _NETWORK, _NETWORK),
    "optimizer": Group(OptimizerConfig, ("torch.optim.", "src.model."), frozenset({"params"}), _OPTIMIZER),
    "scheduler": Group(
        NamedComponent,
        ("src.model.", "torch.optim.lr_scheduler."),
        frozenset({"optimizer"}),
        frozenset({"optimizer", "total_steps"}),
    ),
    "callbacks": Group(CallbacksConfig, ("src.training.callbacks.", "lightning.pytorch.callbacks."), several=True),
    "sampler": Group(NamedComponent, ("optuna.samplers.",), frozenset({"seed"})),
    "pruner": Group(NamedComponent, ("optuna.pruners.",)),
}


def is_group(key: str) -> bool:
    """Whether an override of this key chooses an option of a group."""
    return "/" in key or (CONFIGS / key).is_dir()


def options(group: str) -> list[str]:
    """The names that `group=` takes."""
    named = {file.stem for file in (CONFIGS / group).glob("*.yaml")}
    return sorted(named | (networks().keys() if group == "model" else set()))


@cache
def networks() -> dict[str, str]:
    """Name -> target of each network that has a file in src/model and no YAML: its signature is its config."""
    try:
        targets = signature.networks(Path(__file__).parents[1] / "model")
    except LookupError as error:
        raise UserError(str(error)) from error
    return {name: target for name, target in targets.items() if not (CONFIGS / "model" / f"{name}.yaml").exists()}
