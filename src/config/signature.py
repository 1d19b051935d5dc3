"""The parameters of a class or function, read from its source text and never imported.

A config is checked against these before torch is loaded, so the signature is the one place that declares
a network's, an optimizer's or a scheduler's options.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Optional, Union

from src.config.source import Class, bound, is_package, line, locate, look, parse, public
from src.config.source import Unreadable as Unreadable

Parameters = dict[str, tuple[ast.expr | None, Any]]  # name -> (annotation, default or ...)
_EXPRESSION = object()  # a default whose value can't be read


@dataclass(frozen=True)
class Signature:
    """The named parameters; `open` if ``**kwargs`` takes others, and the source doesn't say which."""

    parameters: Parameters
    open: bool
    is_class: bool
    module: str  # that defines it


@cache
def read(target: str) -> Signature:
    """That of a dotted path such as ``torch.optim.SGD``; LookupError if there is no such, or its source can't tell.

    A parameter whose default is an expression is left out: its value can't be read, so it is no option.
    """
    module, node = locate(target)
    if isinstance(node, ast.ClassDef):
        found, is_open = _constructor(line(module, node))
    else:
        found, is_open = _arguments(node.args), node.args.kwarg is not None
    known = {name: pair for name, pair in found.items() if pair[1] is not _EXPRESSION}
    return Signature(known, is_open, isinstance(node, ast.ClassDef), module)


def parameters(target: str) -> Parameters:
    return read(target).parameters


def attribute(target: str, name: str) -> Any:
    """The literal that a class's body, or else the next base's, sets `name` to; None where there is none."""
    module, node = locate(target)
    for base in line(module, node) if isinstance(node, ast.ClassDef) else ():
        if base and name in (names := bound(base[1])):
            with suppress(ValueError):
                return ast.literal_eval(names[name])
            break
    return None


def classes(module: str, required: str) -> dict[str, str]:
    """Lower-case name -> target of each public class of a module, or imported by a package, that takes `required`.

    One with a method that is not implemented is a base for others, and left out.
    """
    found = {}
    for name in (name for name in public(module) if not name.startswith("_")):
        with suppress(LookupError):
            home, node = look(module, name)
            if not isinstance(node, ast.ClassDef) or not (home == module or is_package(module)):
                continue
            last = [item.body[-1] for item in node.body if isinstance(item, ast.FunctionDef)]
            abstract = any(isinstance(item, ast.Raise) and "NotImplemented" in ast.unparse(item) for item in last)
            if required in parameters(f"{module}.{name}") and not abstract:
                found[name.lower()] = f"{module}.{name}"
    return found


def networks(folder: Path) -> dict[str, str]:
    """Name -> target of each network in `folder`: a class that takes `in_channels` and `num_classes`.

    A network is named after its file: ``lenet.py`` gives ``lenet``.
    """
    found: dict[str, str] = {}
    for file in sorted(folder.glob("*.py")):
        for node in parse(file).body:
            if isinstance(node, ast.ClassDef) and "__init__" in bound(node):
                target = f"{__name__.partition('.')[0]}.model.{file.stem}.{node.name}"
                if {"in_channels", "num_classes"} <= parameters(target).keys():
                    found.setdefault(file.stem, target)
    return found


def _constructor(bases: Iterator[Class | None], passed: bool = False) -> tuple[Parameters, bool]:
    """The parameters of the first that is defined, and whether it is open; `passed` says that ``**kwargs`` go there."""
    for base in bases:
        if base is None:
            return {}, passed
        node, names = base[1], bound(base[1])
        method = names.get("__init__") or names.get("__new__")
        if isinstance(method, ast.FunctionDef):
            own = _arguments(method.args)
            own.pop(next(iter(own), ""), None)  # self
            return _with_passed(own, method, bases)
        if _is_dataclass(node):
            fields = [_fields(node), *(_fields(base[1]) for base in bases if base and _is_dataclass(base[1]))]
            return {name: pair for pairs in reversed(fields) for name, pair in pairs}, False
    return {}, False


def _with_passed(own: Parameters, method: ast.FunctionDef, bases: Iterator[Class | None]) -> tuple[Parameters, bool]:
    """A constructor's own parameters, and those of the next of `bases` that its ``**kwargs`` reach by ``super()``."""
    if method.args.kwarg is None:
        return own, False
    kwargs, nodes = method.args.kwarg.arg, list(ast.walk(method))
    for node in nodes:
        match node:
            case ast.Call(ast.Attribute(ast.Call(ast.Name("super")), "__init__" | "__new__" as name), values, words):
                if all(word.arg or ast.unparse(word.value) != kwargs for word in words):
                    continue
                base, is_open = _constructor(bases, passed=True)
                first = sum(not isinstance(value, ast.Starred) for value in values[name == "__new__" :])
                given = {*own, *list(base)[:first], *(word.arg for word in words)}
                own |= {key: pair for key, pair in base.items() if key not in given}
                uses = sum(isinstance(node, ast.Name) and node.id == kwargs for node in nodes)
                return own, is_open or uses > 1  # kwargs.pop takes more
    return own, True


def _arguments(given: ast.arguments) -> Parameters:
    named = [*given.posonlyargs, *given.args]
    defaults = [None] * (len(named) - len(given.defaults)) + list(given.defaults)
    pairs = zip([*named, *given.kwonlyargs], [*defaults, *given.kw_defaults], strict=True)
    return {argument.arg: (argument.annotation, _default(default)) for argument, default in pairs}


def _default(value: ast.expr | None) -> Any:
    if value is None:
        return ...
    with suppress(ValueError):
        literal = ast.literal_eval(value)
        return list(literal) if isinstance(literal, tuple) else literal
    return _EXPRESSION


def _is_dataclass(node: ast.ClassDef) -> bool:
    return any(re.match(r"(\w+\.)*dataclass\b(?!.*init=False)", ast.unparse(item)) for item in node.decorator_list)


def _fields(node: ast.ClassDef) -> Iterator[tuple[str, tuple[ast.expr, Any]]]:
    for item in node.body:
        match item:
            case ast.AnnAssign(ast.Name(), kind) if re.search("ClassVar|KW_ONLY", ast.unparse(kind)):
                continue
            case ast.AnnAssign(ast.Name(name), kind, ast.Call(ast.Name("field") | ast.Attribute(_, "field"), _, words)):
                options = {word.arg: _default(word.value) for word in words}
                if options.get("init") is not False:
                    yield name, (kind, options.get("default", _EXPRESSION if "default_factory" in options else ...))
            case ast.AnnAssign(ast.Name(name), kind, value):
                yield name, (kind, _default(value))


def evaluate(annotation: ast.expr | None, words: Mapping[str, Any]) -> Any:
    """The type that an annotation means, in the given words; Any where it uses others, or where there is none."""
    scope = {"__builtins__": {}, "Optional": Optional, "Union": Union, **words}
    scope |= {word.title(): kind for word, kind in words.items() if word.islower()}  # List is list
    with suppress(NameError, TypeError, AttributeError, SyntaxError):
        while isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
            annotation = ast.parse(annotation.value, mode="eval").body
        if annotation is not None:
            text = re.sub(r"\b(typing|typing_extensions|t)\.", "", ast.unparse(annotation))
            text = text if re.search("Literal|Annotated", text) else text.replace("'", "")
            return eval(text, scope)
    return Any
