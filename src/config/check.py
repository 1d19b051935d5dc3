"""A composed config against its schema, and what to say of one that does not fit."""

from __future__ import annotations

import difflib
import re
from contextlib import suppress
from importlib.util import find_spec
from typing import Annotated, Any, Literal, TypeVar, get_args

from omegaconf import OmegaConf
from pydantic import Field, Strict, ValidationError, create_model

from src.config import schema, signature
from src.config.architectures import TimmArchitecture, TorchvisionArchitecture
from src.config.errors import UserError
from src.config.groups import GROUPS, given, is_named
from src.config.problems import nearest, problems
from src.config.schema import (
    PACKAGE,
    Component,
    MapStyle,
    NonNegativeFloat,
    OptimizerConfig,
    ParameterGroup,
    Section,
    TrainConfig,
    Values,
    source_file,
)

Checked = TypeVar("Checked", bound=Section)


OPEN = {"extra": "allow"}
RESERVED = {"metrics": ("acc", "loss")}
REPLACED = {  # callbacks of Lightning's that change training in a way that no checkpoint remembers
    "GradientAccumulationScheduler": "Take trainer.accumulate_grad_batches.",
    "LearningRateFinder": f"Search for it: python -m {PACKAGE}.tune 'optimizer.lr=tag(log,interval(1e-4,1e-2))'.",
    "BatchSizeFinder": "Take batch_size.",
    "StochasticWeightAveraging": "Take callbacks=weight_averaging.",
    "ModelCheckpoint": "A run saves itself: callbacks.checkpoint_minutes, checkpoint_steps, and monitor.",
    "Timer": "Take trainer.max_time.",
}
_UNPICKLES = "torchvision.datasets.lsun."  # a file that lies beside the images
_ADDRESS = re.compile(r"://|^(hf[-_]hub|local-dir):|\.(pth|pt|ckpt|safetensors|bin|pkl|npz|onnx)(?!\w)", re.IGNORECASE)


# the words that a signature may use for the type of an option: torch.optim takes lr: float | Tensor, YAML has no tuples
_PLAIN = {"int": int, "float": float, "bool": bool, "str": str, "Tensor": float}
_RANGES = ("Fraction", "Share", "PositiveInt", "NonNegativeInt", "NonNegativeFloat", "PathBelow", "MapStyle")
_TYPES: Any = {name: Annotated[kind, Strict()] for name, kind in _PLAIN.items()}
_TYPES |= {name: getattr(schema, name) for name in _RANGES}
_TYPES |= {"TorchvisionArchitecture": TorchvisionArchitecture, "TimmArchitecture": TimmArchitecture}
_TYPES |= {"list": list, "dict": dict, "tuple": list, "Literal": Literal, "Annotated": Annotated, "Field": Field}


def check(values: Any, base: type[Checked], named: frozenset[str] | None = None) -> Checked:
    """The typed config, from plain values; raises UserError with a line for each key that the schema refuses.

    A stranger's values, of a checkpoint or a run's folder, are given with the targets that this command line has
    `named`: they may name no others but this project's, torch's and those of the YAML files here, and no address.
    """
    if not isinstance(values, dict):
        raise UserError(f"expected keys with their values, not {values!r:.40}.")
    if key := next((key for key, text in flat(values).items() if "${" in str(text)), ""):
        # composed values have none left; to expand a stranger's may never end, or tell him of this machine
        raise UserError(f"{key}: expected a value, not an interpolation.")
    if base is TrainConfig:
        values = values | {"monitor_mode": direction(values)}
    sections: Any = {
        name: (_section(name, values[name], named), ...)
        for name in GROUPS
        if name in base.model_fields and isinstance(values.get(name), dict)
    }
    model = create_model(base.__name__, __base__=base, **sections)
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise UserError("\n".join(problems(error, model))) from error


def direction(values: Values) -> Any:
    """Whether more or less of what `monitor` names is better; raises UserError if nothing of that name is measured, or
    the metric doesn't say, and monitor_mode neither."""
    monitor, mode, metrics = values.get("monitor"), values.get("monitor_mode"), values.get("metrics")
    known = {"val/acc": "max", "val/loss": "min"}
    for name, metric in (metrics if isinstance(metrics, dict) else {}).items():
        if isinstance(metric, dict):
            known[f"val/{name}"] = ""
            with suppress(LookupError):  # a wrong target is told as one
                higher = signature.attribute(str(metric.get("_target_")), "higher_is_better")
                known[f"val/{name}"] = "" if higher is None else "max" if higher else "min"
    if isinstance(monitor, str) and monitor not in known:
        raise UserError(f"monitor={monitor}: expected one of {', '.join(known)}.{nearest(monitor, list(known))}")
    if mode is None and known.get(str(monitor)) == "":
        raise UserError(
            f"monitor={monitor}: its metric doesn't say whether more is better. Add monitor_mode=max or min."
        )
    return mode or known.get(str(monitor))


def _section(name: str, values: dict[Any, Any], named: frozenset[str] | None) -> type[Section]:
    """The schema of a group's option: what the group declares, and what the signature of its target does."""
    group, fields = GROUPS[name], Values()
    for key, value in values.items():
        if isinstance(value, dict) and f"{name}/{key}" in GROUPS:
            fields[key] = (_section(f"{name}/{key}", value, named), ...)
        elif group.several and key not in group.base.model_fields:
            if key in RESERVED.get(name, ()):
                raise UserError(f"{name}.{key}: every run has {key} already. Choose another name.")
            if value is None:
                fields[key] = (None, None)
            elif isinstance(value, dict) and "_target_" in value:
                fields[key] = (_component(name, f"{name}.{key}".replace("/", "."), value, Component, named), ...)
    base = group.base if group.several else _component(name, name, values, group.base, named)
    return create_model(base.__name__, __base__=base, **fields)


def _component(
    name: str, key: str, values: dict[Any, Any], base: type[Section], named: frozenset[str] | None
) -> type[Section]:
    target, group = values.get("_target_"), GROUPS[name]
    if not isinstance(target, str):
        return base  # which refuses it
    wrong = f"{key}._target_={target}"
    if name == "callbacks":
        refuse_replaced(wrong, target.rpartition(".")[2])
    declared = _signature(name, wrong, target, named)
    kept = named is not None or name == "logger"  # a tracker's address has a variable of the environment
    if kept and (address := next(filter(_ADDRESS.search, map(str, flat(values).values())), None)):
        raise UserError(f"{key}: {address!r} is an address or a file of weights, which a checkpoint may not name.")
    if declared is None:
        return create_model(base.__name__, __base__=base, __cls_kwargs__=OPEN)
    if (base is MapStyle or (group.several and not group.leading)) and not declared.is_class:
        raise UserError(f"{wrong}: that is a function; expected a class.")
    if (missing := sorted(group.required - declared.parameters.keys())) and not (declared.open and named is None):
        raise UserError(f"{wrong}: expected a {name.removeprefix('dataset/')} that takes {' and '.join(missing)}.")
    leading, ours = 0 if declared.is_class else group.leading, given(name, target, declared.parameters)
    if taken := sorted((values.keys() & ours) - base.model_fields.keys()):
        why = "follows monitor and monitor_mode" if taken[0] in ("monitor", "mode") else "is set by this project"
        raise UserError(f"{key}.{taken[0]}: it {why}. Leave it out.")
    fields: Any = {
        parameter: (_kind(f"{key}.{parameter}", annotation, values.get(parameter), named), default)
        for parameter, (annotation, default) in list(declared.parameters.items())[leading:]
        if parameter not in ours and parameter not in base.model_fields
    }
    set_here = values.keys() & declared.computed.keys() - ours
    fields |= {key: (signature.evaluate(declared.computed[key], _TYPES), ...) for key in sorted(set_here)}
    unknown = values.keys() - fields.keys() - base.model_fields.keys() - {"_target_"}
    for word in unknown if declared.open else ():  # what is nearly one of its keys is a typo
        if near := difflib.get_close_matches(word, fields, 1, 0.8):
            raise UserError(f"{key}.{word}: there is no such key. Did you mean {key}.{near[0]}?")
    if base is OptimizerConfig:
        rates = {"lr": (NonNegativeFloat, ...), "weight_decay": (NonNegativeFloat, ...)}
        options: Any = {parameter: (kind | None, None) for parameter, (kind, _) in (rates | fields).items()}
        fields["groups"] = (list[create_model("Group", __base__=ParameterGroup, **options)], [])  # type: ignore[misc]
    title, more = f"{target.rpartition('.')[2]}Config", OPEN if declared.open else {}
    return create_model(title, __base__=base, __cls_kwargs__=more, **fields)


def _kind(key: str, annotation: Any, value: Any, named: frozenset[str] | None) -> Any:
    """The type of an option; a class of map-style data sets has the keys that its own signature declares."""
    kind = signature.evaluate(annotation, _TYPES)
    is_inner = MapStyle in (kind, *get_args(kind)) and isinstance(value, dict)
    return _component("dataset/map_style", key, value, MapStyle, named) if is_inner else kind


def _signature(name: str, wrong: str, target: str, named: frozenset[str] | None) -> signature.Signature | None:
    """That of a target; None where only a call can tell. Raises UserError if it is not there, or a stranger's own."""
    inside = GROUPS[name].inside
    stranger = named is not None and target not in named and not is_named(name.removesuffix("/map_style"), target)
    strange = UserError(
        f"{wrong}: no YAML file here names it, so it is not called. If you trust it, add --config-dir FOLDER with one."
    )
    if not all(map(str.isidentifier, target.split("."))):
        raise UserError(f"{wrong}: expected a dotted path, such as package.module.Name.")
    if stranger and not target.startswith(inside):
        raise strange
    try:
        declared = signature.read(target)
    except LookupError as error:
        if stranger and target.startswith(f"{PACKAGE}."):
            missing = f"{error}. Weights come without code: get {source_file(target)} from where it was trained"
            raise UserError(f"{wrong}: {missing}.") from error
        if stranger:
            raise strange from error
        # who reads a checkpoint need not have what only its training calls
        if named is not None or isinstance(error, signature.Unreadable):
            return None
        package = target.partition(".")[0]
        absent = f"the package {package} is not there. Install it, or put its folder's parent on PYTHONPATH"
        raise UserError(f"{wrong}: {error if find_spec(package) else absent}.") from error
    defined = f"{declared.module}."  # which is another than the target says: torch.nn.modules.module.torch.hub.load
    if stranger and (defined.startswith(_UNPICKLES) or not defined.startswith(inside)):
        raise strange
    return declared


def refuse_replaced(wrong: str, name: str) -> None:
    """Raises UserError if `name` is a callback with which no run goes on as it was."""
    if name in REPLACED:
        raise UserError(f"{wrong}: a run with it would not be the same after an interruption. {REPLACED[name]}")


def plain(config: Section) -> Values:
    """The config as dicts, lists, strings and numbers, which weights_only=True loads."""
    return config.model_dump(by_alias=True)


def targets(config: Section) -> frozenset[str]:
    """All that a config names to be called."""
    return frozenset(str(value) for key, value in flat(plain(config)).items() if key.endswith("._target_"))


def flat(values: Values, prefix: str = "") -> Values:
    """Nested dicts as one, with dotted keys."""
    dotted: Values = {}
    for key, value in values.items():
        dotted |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + str(key): value}
    return dotted


def as_yaml(config: Section) -> str:
    return OmegaConf.to_yaml(OmegaConf.create(plain(config)))
