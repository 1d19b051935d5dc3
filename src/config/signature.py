"""The parameters of a class or function, read from its source text and never imported.

A config is checked against these before torch is loaded, so the signature is the one place that declares
a network's, an optimizer's or a scheduler's options.
"""

from __future__ import annotations

import ast
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any, cast

Parameters = dict[str, tuple[ast.expr | None, Any]]  # name -> (annotation, default or ...)


def parameters(target: str) -> Parameters:
    """The named parameters of `target`, a dotted path such as ``torch.optim.SGD``.

    One whose default is an expression is left out: its value can't be read, so it is no option.

    Raises:
        LookupError: no such module, or no such class or function in it.
    """
    module, _, name = target.rpartition(".")
    arguments = _constructor(module, name).args
    named = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(named) - len(arguments.defaults)) + list(arguments.defaults)
    pairs = [
        *zip(named, defaults, strict=True),
        *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True),
    ]
    found: Parameters = {}
    for argument, default in pairs:
        if default is None:
            found[argument.arg] = (argument.annotation, ...)
        elif _is_literal(default):
            value = ast.literal_eval(default)
            found[argument.arg] = (argument.annotation, list(value) if isinstance(value, tuple) else value)
    found.pop("self", None)
    return found


def networks(folder: Path) -> dict[str, str]:
    """Name -> target of each network in `folder`: a class that takes `in_channels` and `num_classes`.

    A network is named after its file: ``lenet.py`` gives ``lenet``.
    """
    found: dict[str, str] = {}
    for file in sorted(folder.glob("*.py")):
        module = f"src.model.{file.stem}"
        for node in _parse(file).body:
            if isinstance(node, ast.ClassDef) and any(_is_init(item) for item in node.body):
                target = f"{module}.{node.name}"
                if {"in_channels", "num_classes"} <= parameters(target).keys():
                    found.setdefault(file.stem, target)
    return found


def _constructor(module: str, name: str) -> ast.FunctionDef:
    for node in _parse(_source(module)).body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return node
        if isinstance(node, ast.ClassDef) and node.name == name:
            return _init(node, module)
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    package = ".".join(module.split(".")[: -node.level or None]) if node.level else ""
                    return _constructor(f"{package}.{node.module}".lstrip("."), alias.name)
        if isinstance(node, ast.Import) and "." in name:  # a base class, written as L.Callback
            for alias in node.names:
                if (alias.asname or alias.name) == name.rpartition(".")[0]:
                    return _constructor(alias.name, name.rpartition(".")[2])
    raise LookupError(f"{module} has no class or function {name}")


def _init(node: ast.ClassDef, module: str) -> ast.FunctionDef:
    """That of the class, or of the first of its bases; one without parameters where none has any."""
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and _is_init(item):
            return item
    if node.bases:
        return _constructor(module, ast.unparse(node.bases[0]))
    return cast(ast.FunctionDef, ast.parse("def __init__(self): ...").body[0])


def _is_init(item: ast.stmt) -> bool:
    return isinstance(item, ast.FunctionDef) and item.name == "__init__"


def _source(module: str) -> Path:
    # PathFinder looks for the top package only: finding "torch.optim" the usual way would import torch
    package, *rest = module.split(".")
    spec = PathFinder.find_spec(package)
    for root in (spec.submodule_search_locations or []) if spec else []:
        base = Path(root, *rest)
        for file in (base.with_suffix(".py"), base / "__init__.py"):
            if file.is_file():
                return file
    raise LookupError(f"no module {module}")


@cache
def _parse(file: Path) -> ast.Module:
    try:
        return ast.parse(file.read_text(encoding="utf-8"))
    except SyntaxError as error:
        raise LookupError(f"{file}, line {error.lineno}: {error.msg}.") from error


def _is_literal(node: ast.expr) -> bool:
    try:
        ast.literal_eval(node)
    except ValueError:
        return False
    return True


def evaluate(annotation: ast.expr | None, words: dict[str, Any]) -> Any:
    """The type that an annotation means, in the given words; Any where it uses others."""
    if annotation is None:
        return Any
    try:
        return eval(compile(ast.Expression(annotation), "<annotation>", "eval"), {"__builtins__": {}, **words})
    except (NameError, TypeError, AttributeError):
        return Any
