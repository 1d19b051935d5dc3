"""The parameters of a class or function, read from its source text and never imported.

A config is checked against these before torch is loaded, so the signature is the one place that declares
a network's, an optimizer's or a scheduler's options.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

Parameters = dict[str, tuple[ast.expr | None, Any]]  # name -> (annotation, default or ...)
_NONE = ast.arguments([], [], None, [], [], None, [])


def parameters(target: str) -> Parameters:
    """The named parameters of `target`, a dotted path such as ``torch.optim.SGD``; LookupError if there is no such.

    One whose default is an expression is left out: its value can't be read, so it is no option.
    """
    arguments = _arguments(*target.rpartition(".")[::2])
    named = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(named) - len(arguments.defaults)) + list(arguments.defaults)
    found: Parameters = {}
    for argument, default in zip([*named, *arguments.kwonlyargs], [*defaults, *arguments.kw_defaults], strict=True):
        if default is None:
            found[argument.arg] = (argument.annotation, ...)
            continue
        with suppress(ValueError):  # an expression
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
        for node in _parse(file).body:
            target = f"src.model.{file.stem}.{getattr(node, 'name', '')}"
            own = isinstance(node, ast.ClassDef) and any(map(_is_init, node.body))
            if own and {"in_channels", "num_classes"} <= parameters(target).keys():
                found.setdefault(file.stem, target)
    return found


def _arguments(module: str, name: str) -> ast.arguments:
    """Those of a function, of a class's constructor, or of what a module has imported under this name."""
    file = _source(module)
    for node in _parse(file).body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return node.args
        if isinstance(node, ast.ClassDef) and node.name == name:
            own = next((item.args for item in node.body if isinstance(item, ast.FunctionDef) and _is_init(item)), None)
            return own or (_arguments(module, ast.unparse(node.bases[0])) if node.bases else _NONE)
        if isinstance(node, ast.ImportFrom | ast.Import):
            prefix, _, leaf = name.rpartition(".")  # a base class may be written as L.Callback
            for alias in node.names:
                if isinstance(node, ast.Import) and (alias.asname or alias.name) == prefix:
                    return _arguments(alias.name, leaf)
                if isinstance(node, ast.ImportFrom) and node.module and (alias.asname or alias.name) == name:
                    up = node.level - (file.name == "__init__.py")  # from . is of the package itself there
                    package = ".".join(module.split(".")[: -up or None]) if node.level else ""
                    return _arguments(f"{package}.{node.module}".lstrip("."), alias.name)
    raise LookupError(f"{module} has no class or function {name}")


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


def evaluate(annotation: ast.expr | None, words: Mapping[str, Any]) -> Any:
    """The type that an annotation means, in the given words; Any where it uses others, or where there is none."""
    with suppress(NameError, TypeError, AttributeError):
        if annotation is not None:
            return eval(compile(ast.Expression(annotation), "<annotation>", "eval"), {"__builtins__": {}, **words})
    return Any
