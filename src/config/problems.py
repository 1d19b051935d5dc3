"""What to say of a config that does not fit its schema: the key, the value, what to do."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from src.config.groups import GROUPS, options

_ALIASES = {"e": "epochs", "n_epochs": "epochs", "b": "batch_size", "batch": "batch_size"}  # of other programs
_ALIASES |= {"gpus": "devices", "pretrained": "weights", "ckpt": "checkpoint"}
_ENDS = {"Gt": "above", "Ge": "of at least", "Lt": "below", "Le": "at most"}
_WORDS = {
    "Value error, ": "",
    "Input should be ": "",
    "a valid ": "a ",
    "a integer": "a whole number",
    "a boolean": "true or false",
    "greater": "a number greater",
    "less": "a number less",
}


def problems(error: ValidationError, schema: type[BaseModel]) -> list[str]:
    """One line for each key that was refused: what, the value, what to do. What may be a typo comes first."""
    expected: dict[str, list[str]] = {}
    lines, described = {}, keys(schema)
    for item in error.errors():
        # a union reports once for each of its members, and names the member behind the key
        words = (str(word) for word in item["loc"])
        key = ".".join(word for word in words if not re.match(r"constrained-|literal\[|list\[|int$|float$|bool$", word))
        if item["type"] == "extra_forbidden":
            lines[key] = unknown(key, described)
        elif item["type"] == "missing":
            lines[key] = f"{key}: a value is needed.{f' Expected {text}.' if (text := described.get(key)) else ''}"
        else:
            expected.setdefault(key, []).append(_expectation(key, item, schema))
            lines[key] = f"{key}={show(item['input'])}: expected {' or '.join(dict.fromkeys(expected[key]))}."
    for section in [key.removesuffix("._target_") for key in lines if key.endswith("._target_")]:
        named = options(section.replace(".", "/"))
        if named and lines[f"{section}._target_"].endswith("a value is needed."):  # the rest follows from that
            lines = {key: line for key, line in lines.items() if not key.startswith(f"{section}.")}
            lines[section] = f"{section}: no option of it is named. Add {section}=NAME, which --help lists."
    meant = " ".join(lines.values())
    lines = {key: line for key, line in lines.items() if f" Did you mean {key}?" not in meant}
    return sorted(lines.values(), key=lambda line: "there is no such key" not in line)


def show(value: Any) -> str:
    """As a command line has it."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _expectation(key: str, item: ErrorDetails, schema: type[BaseModel]) -> str:
    if item["type"] in ("model_type", "dict_type"):
        group = key.replace(".", "/")
        whole = f"or a whole option as {group}=NAME" if options(group) else f"as {key}.KEY=VALUE"
        return f"its keys one by one, {whole}"
    if item["type"] == "string_too_short":
        return "a value"
    if item["type"] == "list_type":
        default = getattr(_field(key, schema), "default", None)
        example = default if isinstance(default, list) and default else [item["input"]]
        return "a list" if default is None else f"a list, such as [{','.join(map(str, example))}]"
    if item["type"] == "string_pattern_mismatch" and key.endswith("max_time"):
        return "days, hours, minutes and seconds as DD:HH:MM:SS"
    message = _range(key, schema) or item["msg"]
    for theirs, ours in _WORDS.items():
        message = message.replace(theirs, ours, 1)
    return message


def _field(key: str, schema: type[BaseModel]) -> FieldInfo | None:
    field: Any = FieldInfo(annotation=schema)
    for word in key.split("."):
        field = getattr(getattr(field, "annotation", None), "model_fields", {}).get(word)
    return field


def _range(key: str, schema: type[BaseModel]) -> str | None:
    """The range of a key that has two ends, in words."""
    ends: Any = {type(end).__name__: end for end in getattr(_field(key, schema), "metadata", [])}
    words = [f"{word} {getattr(ends[kind], kind.lower()):.10g}" for kind, word in _ENDS.items() if kind in ends]
    if len(words) == 2 and ends.keys() >= {"Ge", "Le"}:
        return f"a number between {ends['Ge'].ge:.10g} and {ends['Le'].le:.10g}"
    return f"a number {' and '.join(words)}" if len(words) == 2 else None


def keys(schema: type[BaseModel], prefix: str = "") -> dict[str, str]:
    """Every dotted key of a schema, sections included, with its description."""
    found = dict[str, str]()
    for name, field in schema.model_fields.items():
        key = prefix + (field.alias or name)
        found[key] = field.description or ""
        for kind, more in (field.annotation, "."), *((item, ".0.") for item in get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                found |= keys(kind, key + more)
    return found


def unknown(key: str, known: Mapping[str, str]) -> str:
    """What to say of a key that there is not; where none is near, which ones its section has."""
    section = key.rpartition(".")[0]
    beside = [other.rpartition(".")[2] for other in known if other.rpartition(".")[0] == section]
    names = ", ".join(name for name in beside if name != "_target_")
    every = f" There are: {names}." if section and names else "" if section else " --help shows what can be said."
    return f"{key}: there is no such key.{nearest(key, known) or every}"


def as_option(words: Sequence[str], *schemas: type[BaseModel]) -> str:
    """The KEY=VALUE that is meant by `--epochs 5`, `epochs: 5`, `mnist` or `gpu`; nothing where none is near."""
    word, value = re.fullmatch(r"-*([^=:]*)[=:]?(.*)", words[0], re.DOTALL).groups()  # type: ignore[union-attr]
    known = {key: text for schema in schemas for key, text in keys(schema).items()}
    choices = [group for group in GROUPS if group in known and word in options(group)]
    fields = [item for schema in schemas for item in schema.model_fields.items()]
    choices += [key for key, field in fields if word in get_args(field.annotation)]
    if choices:
        return f"{choices[0]}={word}"
    if "checkpoint" in known and re.search(r"[./]|^last$", word):
        return f"{'input' if 'input' in known and not word.endswith('.ckpt') else 'checkpoint'}={word}"
    following = next(filter(None, (text.lstrip("=") for text in words[1:])), "")
    value = value or ("VALUE" if not following or "=" in following or following.startswith("-") else following)
    key = closest(word.replace("-", "_"), known)
    return f"{key}={value}" if key else ""


def nearest(word: str, words: Iterable[str]) -> str:
    """A sentence that names the word meant, or nothing where none is near."""
    meant = closest(word, words)
    return f" Did you mean {meant}?" if meant else ""


def closest(word: str, words: Iterable[str]) -> str:
    """The word meant, or nothing where none is near; of keys also by what describes them."""
    word = _ALIASES.get(word, word)
    described = dict(words) if isinstance(words, dict) else dict.fromkeys(words if word else (), "")
    section, _, leaf = word.rpartition(".")
    beside = {key: text for key, text in described.items() if key.rpartition(".")[0] == section}
    leaves = [(key.rpartition(".")[2], key) for key in described]
    leaves += [(name.partition("_")[2], key) for name, key in leaves]  # epochs is max_epochs
    leaves += [(text.replace(" ", "_"), key) for key, text in described.items()]
    tries: list[tuple[str, list[tuple[str, str]], float]] = [
        (leaf, [(key.rpartition(".")[2], key) for key in beside], 0.65 if section else 0.7),
        (leaf, [(text.replace(" ", "_"), key) for key, text in beside.items()], 0.75),  # learning_rat is lr
        (word, [(key, key) for key in described], 0.85),
        (leaf, leaves, 1 if section in described else 0.8),  # in another section
    ]
    for asked, names, cutoff in tries:
        scores = [(difflib.SequenceMatcher(None, name.lower(), asked.lower()).ratio(), key) for name, key in names]
        score, key = max(scores, key=itemgetter(0), default=(0.0, ""))  # of equal ones the first
        if score >= cutoff:
            return key
    return ""
