"""A composed config against its schema, and what to say of one that does not fit."""

from __future__ import annotations

import difflib
import re
from typing import Annotated, Any, Literal, TypeVar

from omegaconf import OmegaConf
from pydantic import BaseModel, Field, Strict, ValidationError, create_model
from pydantic_core import ErrorDetails

from src.config import signature
from src.config.architectures import TimmArchitecture, TorchvisionArchitecture
from src.config.errors import UserError
from src.config.groups import GROUPS, Group
from src.config.schema import (
    Component,
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    PathBelow,
    PositiveInt,
    Section,
    Values,
)

Checked = TypeVar("Checked", bound=Section)


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


def check(values: Any, base: type[Checked]) -> Checked:
    """The typed config, from plain values; raises UserError with a line for each key that the schema refuses."""
    if not isinstance(values, dict):
        raise UserError(f"expected keys with their values, not {values!r:.40}.")
    if key := next((key for key, text in flat(values).items() if "${" in str(text)), ""):
        # composed values have none left; to expand a stranger's may never end, or tell him of this machine
        raise UserError(f"{key}: expected a value, not an interpolation.")
    sections: Any = {
        name: (_section(name, group, values[name]), ...)
        for name, group in GROUPS.items()
        if name in base.model_fields and isinstance(values.get(name), dict)
    }
    schema = create_model(base.__name__, __base__=base, **sections)
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        raise UserError("\n".join(_problems(error, schema))) from error


def _section(name: str, group: Group, values: dict[Any, Any]) -> type[Section]:
    """The schema of a group's option: what the group declares, and what the signature of its target does."""
    if not group.several:
        return _component(name, group, group.base, values)
    fields: Any = {}
    for key, value in values.items():
        if key in group.base.model_fields:
            continue
        if value is None:
            fields[key] = (None, None)
        elif isinstance(value, dict) and "_target_" in value:
            fields[key] = (_component(f"{name}.{key}", group, Component, value), ...)
    return create_model(group.base.__name__, __base__=group.base, **fields)


def _component(key: str, group: Group, base: type[Section], values: dict[Any, Any]) -> type[Section]:
    target = values.get("_target_")
    if not isinstance(target, str):
        return base  # which refuses it
    wrong = f"{key}._target_={target}"
    takes = f" that takes {' and '.join(sorted(group.required))}" if group.required else ""
    refused = UserError(f"{wrong}: expected one of {'... or '.join(group.inside)}...{takes}.")
    if not target.startswith(group.inside) or not all(word.isidentifier() for word in target.split(".")):
        raise refused
    try:
        declared = signature.parameters(target)
    except LookupError as error:
        raise UserError(f"{wrong}: {error}.") from error
    if not group.required <= declared.keys():
        raise refused
    fields: Any = {}
    for parameter, (annotation, default) in declared.items():
        if parameter not in group.given and parameter not in base.model_fields:
            fields[parameter] = (signature.evaluate(annotation, _TYPES), default)
    return create_model(target.rpartition(".")[2] + "Config", __base__=base, **fields)


def plain(config: Section) -> Values:
    """The config as dicts, lists, strings and numbers, which weights_only=True loads."""
    return config.model_dump(by_alias=True)


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
        key = ".".join(word for word in words if not re.match(r"constrained-|literal\[|int$|float$|bool$", word))
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


def keys(schema: type[BaseModel], prefix: str = "") -> list[str]:
    """Every dotted key of a schema, sections included."""
    found = []
    for name, field in schema.model_fields.items():
        key = prefix + (field.alias or name)
        found.append(key)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found += keys(field.annotation, key + ".")
    return found


def nearest(word: str, words: list[str]) -> str:
    """A sentence that names the word meant, or nothing where none is near."""
    close = difflib.get_close_matches(word, words, n=1, cutoff=0.6)
    if not close:  # the right leaf in the wrong section, or with no section
        leaf = word.rpartition(".")[2]
        leaves = {name.rpartition(".")[2]: name for name in words}
        close = [leaves[name] for name in difflib.get_close_matches(leaf, list(leaves), n=1, cutoff=0.7)]
    return f" Did you mean {close[0]}?" if close else ""
