"""A composed config against its schema, and what to say of one that does not fit."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from contextlib import suppress
from importlib.util import find_spec
from typing import Annotated, Any, Literal, TypeVar

from omegaconf import OmegaConf
from pydantic import BaseModel, Field, Strict, ValidationError, create_model
from pydantic_core import ErrorDetails

from src.config import signature
from src.config.architectures import TimmArchitecture, TorchvisionArchitecture
from src.config.errors import UserError
from src.config.groups import GROUPS, is_named
from src.config.schema import (
    Component,
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    OptimizerConfig,
    ParameterGroup,
    PathBelow,
    PositiveInt,
    Section,
    TrainConfig,
    Values,
)

Checked = TypeVar("Checked", bound=Section)


OPEN = {"extra": "allow"}
RESERVED = {"metrics": ("acc", "loss")}
REPLACED = {  # callbacks of Lightning's that change training in a way that no checkpoint remembers
    "GradientAccumulationScheduler": "Take trainer.accumulate_grad_batches.",
    "LearningRateFinder": "Search with src.tune, and optimizer.lr=tag(log,interval(1e-4,1e-2)).",
    "BatchSizeFinder": "Take batch_size.",
    "StochasticWeightAveraging": "Take callbacks=weight_averaging.",
    "ModelCheckpoint": "A run saves itself: callbacks.checkpoint_minutes, checkpoint_steps, and monitor.",
    "Timer": "Take trainer.max_time.",
}
_ADDRESS = re.compile(r"://|^(hf[-_]hub|local-dir):|\.(pth|pt|ckpt|safetensors|bin|pkl|npz|onnx)(?!\w)", re.IGNORECASE)


class _Tuple:
    """YAML has lists only."""

    def __class_getitem__(cls, items: tuple[Any, ...]) -> Any:
        return list[items[0]]  # type: ignore[valid-type]


# the words that a signature may use for the type of an option; torch.optim takes lr: float | Tensor
_NUMBERS: Any = {"Fraction": Fraction, "PositiveInt": PositiveInt, "NonNegativeInt": NonNegativeInt}
_NUMBERS |= {"NonNegativeFloat": NonNegativeFloat, "PathBelow": PathBelow}
_NUMBERS |= {"TorchvisionArchitecture": TorchvisionArchitecture, "TimmArchitecture": TimmArchitecture}
_PLAIN = {"int": int, "float": float, "bool": bool, "str": str, "Tensor": float}
_TYPES: Any = {name: Annotated[kind, Strict()] for name, kind in _PLAIN.items()} | _NUMBERS
_TYPES |= {"list": list, "dict": dict, "tuple": _Tuple, "Literal": Literal, "Annotated": Annotated, "Field": Field}


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
    schema = create_model(base.__name__, __base__=base, **sections)
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        raise UserError("\n".join(_problems(error, schema))) from error


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
    group, fields = GROUPS[name], dict[str, Any]()
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
    if named is not None and (address := next(filter(_ADDRESS.search, map(str, flat(values).values())), None)):
        raise UserError(f"{key}: {address!r} is an address or a file of weights, which a checkpoint may not name.")
    if declared is None:
        return create_model(base.__name__, __base__=base, __cls_kwargs__=OPEN)
    if missing := sorted(group.required - declared.parameters.keys()):
        raise UserError(f"{wrong}: expected a {name} that takes {' and '.join(missing)}.")
    follows = target.endswith(".ReduceLROnPlateau") or (name == "callbacks" and "monitor" in declared.parameters)
    given = group.given | ({"mode"} if follows else set())  # as monitor says
    leading = 0 if declared.is_class else group.leading
    fields: Any = {
        parameter: (signature.evaluate(annotation, _TYPES), default)
        for parameter, (annotation, default) in list(declared.parameters.items())[leading:]
        if parameter not in given and parameter not in base.model_fields
    }
    unknown = values.keys() - fields.keys() - base.model_fields.keys() - {"_target_"}
    for word in unknown if declared.open else ():  # what is nearly one of its keys is a typo
        if near := nearest(f"{key}.{word}", [f"{key}.{field}" for field in fields]):
            raise UserError(f"{key}.{word}: there is no such key.{near}")
    if base is OptimizerConfig:
        rates = {"lr": (NonNegativeFloat, ...), "weight_decay": (NonNegativeFloat, ...)}
        ours: Any = {parameter: (kind | None, None) for parameter, (kind, _) in (rates | fields).items()}
        fields["groups"] = (list[create_model("Group", __base__=ParameterGroup, **ours)], [])  # type: ignore[misc]
    title, more = f"{target.rpartition('.')[2]}Config", OPEN if declared.open else {}
    return create_model(title, __base__=base, __cls_kwargs__=more, **fields)


def _signature(name: str, wrong: str, target: str, named: frozenset[str] | None) -> signature.Signature | None:
    """That of a target; None where only a call can tell. Raises UserError if it is not there, or a stranger's own."""
    inside = GROUPS[name].inside
    stranger = named is not None and target not in named and not is_named(name, target)
    strange = UserError(
        f"{wrong}: nothing here names it, so it is not called. If you trust it, name it in a YAML file."
    )
    if stranger and not target.startswith(inside):
        raise strange
    try:
        declared = signature.read(target)
    except LookupError as error:
        if stranger:
            raise strange from error
        # who reads a checkpoint need not have what only its training calls
        if named is not None or isinstance(error, signature.Unreadable):
            return None
        package = target.partition(".")[0]
        absent = f"the package {package} is not installed, nor on the path. pip install {package}, or change the name"
        raise UserError(f"{wrong}: {error if find_spec(package) else absent}.") from error
    if stranger and not f"{declared.module}.".startswith(inside):  # torch.nn.modules.module.torch.hub.load
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


_ENDS = (("Gt", "Ge"), ("Lt", "Le"))
_WORDS = {
    "Value error, ": "",
    "Input should be ": "",
    "a valid ": "a ",
    "a integer": "a whole number",
    "a boolean": "true or false",
    "greater": "a number greater",
    "less": "a number less",
}


def _problems(error: ValidationError, schema: type[BaseModel]) -> list[str]:
    """One line for each key that was refused: what, the value, what to do."""
    expected: dict[str, list[str]] = {}
    lines = {}
    for item in error.errors():
        # a union reports once for each of its members, and names the member behind the key
        words = (str(word) for word in item["loc"])
        key = ".".join(word for word in words if not re.match(r"constrained-|literal\[|list\[|int$|float$|bool$", word))
        value = item["input"]
        if item["type"] == "extra_forbidden":
            lines[key] = f"{key}: there is no such key.{nearest(key, keys(schema))}"
        elif item["type"] == "missing":
            lines[key] = f"{key}: a value is needed."
        else:
            expected.setdefault(key, []).append(_expectation(key, item, schema))
            shown = "null" if value is None else str(value).lower() if isinstance(value, bool) else value
            lines[key] = f"{key}={shown}: expected {' or '.join(dict.fromkeys(expected[key]))}."
    return list(lines.values())


def _expectation(key: str, item: ErrorDetails, schema: type[BaseModel]) -> str:
    if item["type"] in ("model_type", "dict_type"):
        return f"its keys one by one, or a whole option as {key.replace('.', '/')}=NAME"
    if item["type"] == "string_pattern_mismatch" and key.endswith("max_time"):
        return "days, hours, minutes and seconds as DD:HH:MM:SS"
    message = _range(key, schema) or item["msg"]
    for theirs, ours in _WORDS.items():
        message = message.replace(theirs, ours, 1)
    return message


def _range(key: str, schema: type[BaseModel]) -> str | None:
    """The range of a key that has two ends, in words."""
    section: Any = schema
    ends: Any = {}
    for word in key.split("."):
        field = getattr(section, "model_fields", {}).get(word)
        if field is None:
            return None
        section, ends = field.annotation, {type(end).__name__: end for end in field.metadata}
    low, high = (next((getattr(ends[kind], kind.lower()) for kind in kinds if kind in ends), None) for kinds in _ENDS)
    return None if low is None or high is None else f"a number between {low:g} and {high:g}"


def keys(schema: type[BaseModel], prefix: str = "") -> dict[str, str]:
    """Every dotted key of a schema, sections included, with its description."""
    found = dict[str, str]()
    for name, field in schema.model_fields.items():
        key = prefix + (field.alias or name)
        found[key] = field.description or ""
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found |= keys(field.annotation, key + ".")
    return found


def nearest(word: str, words: Iterable[str]) -> str:
    """A sentence that names the word meant, or nothing where none is near; of keys also by what describes them."""
    described = dict(words) if isinstance(words, dict) else dict.fromkeys(words, "")
    section, _, leaf = word.rpartition(".")
    beside = {key: text for key, text in described.items() if key.rpartition(".")[0] == section}
    tries: list[tuple[str, dict[str, str], float]] = [
        (word, {key: key for key in beside}, 0.8),
        (leaf, {text.replace(" ", "_"): key for key, text in beside.items()}, 0.75),  # learning_rat is lr
        (word, {key: key for key in described}, 0.6),
        (leaf, {key.rpartition(".")[2]: key for key in described}, 0.7),  # in the wrong section, or with no section
    ]
    for asked, names, cutoff in tries:
        if close := difflib.get_close_matches(asked, names, 1, cutoff):
            return f" Did you mean {names[close[0]]}?"
    return ""
