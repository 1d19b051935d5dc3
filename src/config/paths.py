"""Paths as words of a command line, where Hydra's grammar would read a number, a list or nothing in their place."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from inspect import get_annotations
from pathlib import Path

from hydra.core.override_parser.types import Quote, QuotedString

from src.config.errors import UserError
from src.config.schema import AnyPath, Section

# besides what the schema calls one; none of them can have several values
_OTHERS = {"hydra.run.dir", "hydra.sweep.dir", "hydra.launcher.submitit_folder", "sweep", "dataset.folder"}
_OTHERS |= {"storage", "name", "dataset.path"}  # the first two of a search
_WORDS = ("true", "false", "null", "inf", "nan")
_MEANT = ("last", "null")  # names of something else where they stand alone
_PLAIN = re.compile(r"(?=.*/|[a-z_])[\w./-]+", re.ASCII | re.IGNORECASE)
_QUOTED = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\""""
_ONE_OF = re.compile(rf"({_QUOTED}|(?:\$\{{[^}}]*\}}|[^,])*),", re.DOTALL)
_FUNCTION = re.compile(r"(choice|shuffle|sort|tag)\(.*\)")


def quoted(overrides: Sequence[str], several: bool, *schemas: type[Section]) -> list[str]:
    """The same with their paths in quotes, where Hydra would not take them as they are written.

    Left to Hydra is what has quotes around it, `${...}`, and null where there may be no path. A leading `~` is the home
    folder; where `several` values may stand, a comma is between two.
    """
    known = dict.fromkeys(_OTHERS, False) | {key: optional for schema in schemas for key, optional in _paths(schema)}
    return [_quoted(text, several, known) for text in overrides]


def _quoted(text: str, several: bool, known: Mapping[str, bool]) -> str:
    key, equals, value = text.partition("=")
    name = key.lstrip("+")
    if name not in known or not equals or (several and _FUNCTION.fullmatch(value)):
        return text
    if not value:
        return f"{key}={home(value)}" if name in _OTHERS else text  # the schema says what it wants
    values = _ONE_OF.findall(f"{value},") if several and name not in _OTHERS else [value]
    left = rf"{_QUOTED}|null" if known[name] else _QUOTED
    words = (path if re.fullmatch(left, path, re.DOTALL) else _quote(home(path)) for path in values)
    return f"{key}={','.join(words)}"


def _quote(path: str) -> str:
    if _PLAIN.fullmatch(path) and path.lower() not in _WORDS:
        return path
    path = re.sub(r"\$\{(?![^}]*\})", r"\\${", path)  # one that is not closed is no interpolation
    return QuotedString("./???" if path == "???" else path, Quote.double).with_quotes()  # else it is a missing value


def home(path: str) -> str:
    """The home folder for `~` and what is below it, as the shell has it; another name may begin with it.

    Raises UserError if there is no name, as of a variable that is not set: that would be the folder at hand.
    """
    if not path:
        raise UserError("the name of a folder is empty. Name one, such as . for the one at hand.")
    return os.path.expanduser(path) if re.match(r"~([/\\]|$)", path) else path  # noqa: PTH111 - a Path forgets slashes


def option(key: str, path: Path) -> str:
    """The override that names this path, whatever its name."""
    return f"{key}={_quote(f'./{path}' if str(path) in _MEANT else str(path))}"


def for_shell(word: str) -> str:
    """Quoted as bash and zsh read it; what no terminal can show, such as a byte that is no UTF-8, by its number."""
    if word.isprintable():
        return shlex.quote(word)
    shown = [letter if letter.isprintable() and letter not in "\\'" else _numbered(letter) for letter in word]
    return f"$'{''.join(shown)}'"


def _numbered(letter: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in letter.encode(errors="surrogateescape"))


def _paths(schema: type[Section], prefix: str = "") -> Iterator[tuple[str, bool]]:
    """Each key that is a path, and whether it may be null."""
    for name, kind in get_annotations(schema, eval_str=True).items():
        if kind in (AnyPath, AnyPath | None):
            yield prefix + name, kind != AnyPath
        elif isinstance(kind, type) and issubclass(kind, Section):
            yield from _paths(kind, f"{prefix}{name}.")
