"""Where a dotted name is defined: found in source text, as Python would bind it, and never imported."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec, resolve_name
from pathlib import Path
from typing import Any

Definition = ast.ClassDef | ast.FunctionDef
Class = tuple[str, ast.ClassDef]  # after its module
_EMPTY = ("object", "torch.nn.Module", "torch.nn.modules.module.Module")  # their constructors take nothing


class Unreadable(LookupError):
    """The module is there, but its source can't tell."""


def locate(target: str, seen: tuple[str, ...] = ()) -> tuple[str, Definition]:
    """The class or function of a dotted path, after the module that defines it."""
    words = target.split(".")
    heads = [".".join(words[:end]) for end in range(len(words) - 1, 0, -1)]
    module = next((head for head in heads if all(words) and spec(head)), "")
    name = target.removeprefix(f"{module}.")
    if target in seen:
        raise LookupError(f"{target} is no class or function")
    if not module or (module != heads[0] and name.split(".")[0] not in names(module)):
        raise LookupError(f"no module {heads[0] if heads else target}")
    return look(module, name, (*seen, target))


def look(module: str, name: str, seen: tuple[str, ...] = ()) -> tuple[str, Definition]:
    """What a `name` written in a module stands for, as `locate` gives it."""
    head, dot, rest = name.partition(".")
    found = names(module)
    match found.get(head):
        case ast.ClassDef() | ast.FunctionDef() as node if not rest:
            return module, node
        case str() as path:
            return locate(path + dot + rest, seen)
        case ast.Name() | ast.Attribute() as other if ast.unparse(other).split(".")[0] != head:
            return look(module, ast.unparse(other) + dot + rest, seen)
        case None:
            nodes = ast.walk(_tree(module))
            made = "__getattr__" in found or any(isinstance(node, ast.Name) and node.id == "globals" for node in nodes)
            for star in _stars(found):
                try:
                    if head in public(star):
                        return locate(f"{star}.{name}", seen)
                except LookupError:
                    made = True
            if not made:
                raise LookupError(f"{module} has no class or function {name}")
    raise Unreadable(f"{module} makes {name} when it is imported")


def line(module: str, node: ast.ClassDef) -> Iterator[Class | None]:
    """A class, then its bases in Python's order, looked up only when asked for; None is one that can't be found."""
    yield module, node
    rest: list[Class | None] = []
    for base in node.bases:
        name = ast.unparse(base.value if isinstance(base, ast.Subscript) else base)
        head, dot, leaf = name.partition(".")
        path = names(module).get(head)
        if (path + dot + leaf if isinstance(path, str) else name) in _EMPTY:
            continue
        try:
            home, parent = look(module, name)
        except LookupError:
            home, parent = "", node
        rest += list(line(home, parent)) if isinstance(parent, ast.ClassDef) and parent is not node else [None]
    yield from reversed(dict.fromkeys(reversed(rest)))  # a base that two of them share comes after both


def public(module: str) -> list[str]:
    """The names that ``import *`` takes."""
    found = names(module)
    with suppress(KeyError, ValueError):
        return list(ast.literal_eval(found["__all__"]))
    own = [name for name in found if not name.startswith("_") and not name.endswith("*")]
    return own + [name for star in _stars(found) for name in public(star)]


@cache
def names(module: str) -> dict[str, Any]:
    return bound(_tree(module), module if is_package(module) else module.rpartition(".")[0])


@cache
def bound(node: ast.Module | ast.ClassDef, package: str = "") -> dict[str, Any]:
    """Name -> its definition, its value, or the dotted path that it is imported from; ``a.b.*`` for a star."""
    found: dict[str, Any] = {}
    for item in _statements(node.body):
        match item:
            case ast.ClassDef(name) | ast.FunctionDef(name):
                found[name] = item
            case ast.Import(aliases):
                tops = [(alias.asname, alias.name.split(".")[0], alias.name) for alias in aliases]
                found |= {short or top: path if short else top for short, top, path in tops}
            case ast.ImportFrom(path, aliases, level):
                with suppress(ImportError):  # beyond the top package
                    path = resolve_name("." * level + (path or ""), package)
                    paths = [(alias.asname or alias.name, f"{path}.{alias.name}") for alias in aliases]
                    found |= {whole if name == "*" else name: whole for name, whole in paths}
            case ast.Assign() | ast.AnnAssign(value=ast.expr()) | ast.AugAssign():
                for target in item.targets if isinstance(item, ast.Assign) else [item.target]:
                    for part in getattr(target, "elts", [target]):
                        value = item.value if part is target and not isinstance(item, ast.AugAssign) else item
                        known = isinstance(found.get(getattr(part, "id", "")), str | ast.ClassDef | ast.FunctionDef)
                        if isinstance(part, ast.Name) and (not known or isinstance(value, ast.Name | ast.Attribute)):
                            found[part.id] = value
    return found


def _stars(found: dict[str, Any]) -> list[str]:
    return [name.removesuffix(".*") for name in reversed(found) if name.endswith("*")]  # the last one counts


def _statements(body: list[Any]) -> Iterator[ast.stmt]:
    """Those of a body, and of its branches: the main one last, since the last to bind a name counts."""
    for node in body:
        if isinstance(node, ast.If | ast.Try | ast.ExceptHandler | ast.With):
            for block in ("handlers", "orelse", "finalbody", "body"):
                yield from _statements(getattr(node, block, []))
        yield node


def is_package(module: str) -> bool:
    return getattr(spec(module), "submodule_search_locations", None) is not None


def spec(module: str) -> ModuleSpec | None:
    package, *rest = module.split(".")
    found = None
    with suppress(ValueError):  # __main__ may have none
        found = find_spec(package)  # a name with dots would import its package
    for word in rest:
        found = PathFinder.find_spec(word, found.submodule_search_locations or []) if found else None
    return found


def _tree(module: str) -> ast.Module:
    found = spec(module)
    if found is None:
        raise LookupError(f"no module {module}")
    if not (found.origin or ".py").endswith(".py"):
        raise Unreadable(f"{module} has no source")
    return parse(Path(found.origin)) if found.origin else ast.Module([], [])  # a folder without __init__.py


@cache
def parse(file: Path) -> ast.Module:
    try:
        return ast.parse(file.read_bytes())
    except SyntaxError as error:
        raise LookupError(f"{file}, line {error.lineno}: {error.msg}.") from error
