"""The parameters of a class or function, read from source text: they declare the options of a config, unimported."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec, resolve_name
from pathlib import Path
from typing import Any, Optional, Union

from src.config.schema import PACKAGE

Parameters = dict[str, tuple[ast.expr | None, Any]]  # name -> (annotation, default or ...)
Lineage = Iterator[ast.ClassDef | None]  # a class, then its bases, depth first; None is one that can't be found
_EXPRESSION = object()  # a default whose value can't be read, so that its parameter is no option
_UNFIT = ("Optimizer", "LRScheduler", "SparseAdam", "LBFGS", "LambdaLR", "MultiplicativeLR", "SequentialLR")  # for code
_EMPTY = ("object", "nn.Module", "torch.nn.Module", "torch.nn.modules.module.Module")  # they take no parameters


class Unreadable(LookupError):
    """The module is there, but its source can't tell."""


@dataclass(frozen=True)
class Signature:
    """The named parameters, but for those with `computed` defaults; `open` if it takes others that nothing says."""

    parameters: Parameters
    open: bool
    is_class: bool
    module: str  # that defines it
    computed: Mapping[str, Any] = field(default_factory=dict)  # name -> annotation


@cache
def read(target: str) -> Signature:
    """That of a dotted path such as ``torch.optim.SGD``; LookupError if there is no such, or its source can't tell."""
    module, node = _locate(target)
    found, is_open = _constructor(_lineage(module, node)) if isinstance(node, ast.ClassDef) else _arguments(node.args)
    known = {name: pair for name, pair in found.items() if pair[1] is not _EXPRESSION}
    computed = {name: kind for name, (kind, default) in found.items() if default is _EXPRESSION}
    return Signature(known, is_open, isinstance(node, ast.ClassDef), module, computed)


def attribute(target: str, name: str) -> Any:
    """The literal that a class's body, or else the next base's, sets `name` to; None where there is none."""
    module, node = _locate(target)
    bodies = map(_bound, filter(None, _lineage(module, node) if isinstance(node, ast.ClassDef) else ()))
    with suppress(ValueError):
        return ast.literal_eval(next((body[name] for body in bodies if name in body), ast.Constant(None)))
    return None


def classes(module: str, required: str) -> dict[str, str]:
    """Lower-case name -> target of each public class of a module or package that takes `required`."""
    found = {}
    for name, value in _names(module).items():
        own = isinstance(value, ast.ClassDef) or str(value).startswith(f"{module}.")
        if own and not name.startswith("_") and name not in _UNFIT:
            with suppress(LookupError):
                if required in read(f"{module}.{name}").parameters:
                    found[name.lower()] = f"{module}.{name}"
    return found


def networks(folder: Path) -> dict[str, str]:
    """Name -> target of each class in `folder` that takes what a network does; ``lenet.py`` gives ``lenet``."""
    found: dict[str, str] = {}
    for file in sorted(folder.glob("*.py")):
        module = f"{PACKAGE}.{folder.name}.{file.stem}"
        for name, node in _names(module).items():
            own = isinstance(node, ast.ClassDef) and "__init__" in _bound(node)  # a base may lie in a slow library
            if own and {"in_channels", "num_classes"} <= read(f"{module}.{name}").parameters.keys():
                found.setdefault(file.stem, f"{module}.{name}")
    return found


def evaluate(annotation: ast.expr | None, words: Mapping[str, Any]) -> Any:
    """The type that an annotation means, in the given words; Any where it uses others, or where there is none."""
    scope = {"__builtins__": {}, "Any": Any, "Optional": Optional, "Union": Union, **words}
    scope |= {word.title(): kind for word, kind in words.items() if word.islower()}  # List is list
    text = annotation.value if isinstance(annotation, ast.Constant) else ast.unparse(annotation or ast.Name("Any"))
    text = re.sub(r"\b(typing|t)\.", "", str(text))
    with suppress(NameError, TypeError, AttributeError, SyntaxError):
        return eval(text if re.search("Literal|Annotated", text) else text.replace("'", ""), scope)
    return Any


def _constructor(lineage: Lineage) -> tuple[Parameters, bool]:
    """The parameters of the first that is defined, and whether it is open."""
    for node in lineage:
        if node is None:
            return {}, True
        method = _bound(node).get("__init__") or _bound(node).get("__new__")
        if isinstance(method, ast.FunctionDef):
            own, is_open = _arguments(method.args)
            own.pop(next(iter(own), ""), None)  # self
            return _with_passed(own, method, lineage) if is_open else (own, False)
        if any("dataclass" in ast.unparse(item) for item in node.decorator_list):
            base, is_open = _constructor(lineage)
            return base | dict(_fields(node)), is_open
    return {}, False


def _with_passed(own: Parameters, method: ast.FunctionDef, bases: Lineage) -> tuple[Parameters, bool]:
    """A constructor's own parameters, and those of the next of `bases` that its ``**kwargs`` reach by ``super()``."""
    kwargs = method.args.kwarg and method.args.kwarg.arg
    uses = [node for node in ast.walk(method) if isinstance(node, ast.Name) and node.id == kwargs]
    for node in ast.walk(method):
        match node:
            case ast.Call(ast.Attribute(ast.Call(ast.Name("super")), "__init__"), values, words):
                if any(word.value in uses for word in words):
                    base, is_open = _constructor(bases)
                    first = sum(not isinstance(value, ast.Starred) for value in values)
                    given = {*own, *list(base)[:first], *(word.arg for word in words)}
                    passed = {key: pair for key, pair in base.items() if key not in given}
                    return own | passed, is_open or len(uses) > 1  # kwargs.pop takes more
    return own, True


def _arguments(given: ast.arguments) -> tuple[Parameters, bool]:
    named = [*given.posonlyargs, *given.args]
    defaults = [None] * (len(named) - len(given.defaults)) + list(given.defaults)
    pairs = zip([*named, *given.kwonlyargs], [*defaults, *given.kw_defaults], strict=True)
    return {argument.arg: (argument.annotation, _default(default)) for argument, default in pairs}, bool(given.kwarg)


def _default(value: ast.expr | None) -> Any:
    if value is None:
        return ...
    with suppress(ValueError):
        literal = ast.literal_eval(value)
        return list(literal) if isinstance(literal, tuple) else literal
    return _EXPRESSION


def _fields(node: ast.ClassDef) -> Iterator[tuple[str, tuple[ast.expr, Any]]]:
    for item in node.body:
        match item:
            case ast.AnnAssign(ast.Name(name), kind, value) if "ClassVar" not in ast.unparse(kind):
                if isinstance(value, ast.Call) and ast.unparse(value.func).endswith("field"):
                    options = {word.arg: word.value for word in value.keywords}
                    if _default(options.get("init")) is not False:
                        yield name, (kind, _default(options.get("default", options.get("default_factory"))))
                else:
                    yield name, (kind, _default(value))


def _lineage(module: str, node: ast.ClassDef) -> Lineage:
    yield node  # and its bases only when they are asked for
    for name in (ast.unparse(base).partition("[")[0] for base in node.bases):
        if name in _EMPTY or _names(module).get(name) in _EMPTY:
            continue
        with suppress(LookupError):
            home, parent = _look(module, name)
            if isinstance(parent, ast.ClassDef) and parent is not node:
                yield from _lineage(home, parent)
                continue
        yield None


def _locate(target: str, seen: tuple[str, ...] = ()) -> tuple[str, ast.ClassDef | ast.FunctionDef]:
    """The class or function of a dotted path, after the module that defines it."""
    words = target.split(".")
    for end in range(len(words) - 1, 0, -1):
        if target not in seen and _spec(module := ".".join(words[:end])):
            return _look(module, ".".join(words[end:]), (*seen, target))
    raise LookupError(f"there is no class or function {target}")


def _look(module: str, name: str, seen: tuple[str, ...] = ()) -> tuple[str, ast.ClassDef | ast.FunctionDef]:
    """What a `name` written in a module stands for, as `_locate` gives it."""
    head, dot, rest = name.partition(".")
    found = _names(module)
    match found.get(head):
        case ast.ClassDef() | ast.FunctionDef() as node if not rest:
            return module, node
        case str() as path:
            return _locate(path + dot + rest, seen)
        case None:
            made = "__getattr__" in found and not rest
            for star in found.get("*", []):
                try:
                    return _locate(f"{star}.{name}", seen)
                except LookupError as error:
                    made = made or isinstance(error, Unreadable)
            if not made:
                raise LookupError(f"no module {module}.{head}" if rest else f"{module} has no class or function {name}")
    raise Unreadable(f"{module} makes {name} when it is imported")


@cache
def _names(module: str) -> dict[str, Any]:
    spec = _spec(module)
    if spec is None or spec.origin is None:  # a folder without __init__.py
        return {}
    if not spec.origin.endswith(".py"):
        raise Unreadable(f"{module} has no source")
    try:
        tree = ast.parse(Path(spec.origin).read_bytes())
    except SyntaxError as error:
        raise LookupError(f"{spec.origin}, line {error.lineno}: {error.msg}.") from error
    return _bound(tree, module if spec.submodule_search_locations else module.rpartition(".")[0])


@cache
def _bound(node: ast.Module | ast.ClassDef, package: str = "") -> dict[str, Any]:
    """Name -> its definition, its value, or the dotted path that it is imported from; ``*``: the modules of stars."""
    found: dict[str, Any] = {}
    for item in _statements(node.body):
        match item:
            case ast.ClassDef(name) | ast.FunctionDef(name):
                found[name] = item
            case ast.Import(aliases):
                for alias in aliases:
                    top = alias.name.partition(".")[0]
                    found[alias.asname or top] = alias.name if alias.asname else top
            case ast.ImportFrom(path, aliases, level):
                with suppress(ImportError):  # beyond the top package
                    home = resolve_name("." * level + (path or ""), package)
                    paths = {alias.asname or alias.name: f"{home}.{alias.name}" for alias in aliases}
                    found |= {"*": [home, *found.get("*", [])]} if "*" in paths else paths
            case ast.Assign([ast.Name(name)], value) | ast.AnnAssign(ast.Name(name), value=ast.expr() as value):
                found[name] = value
    return found


def _statements(body: list[Any]) -> Iterator[ast.stmt]:
    """Those of a body, and of its branches: the main one last, since the last to bind a name counts."""
    for node in body:
        if isinstance(node, ast.If | ast.Try | ast.ExceptHandler | ast.With):
            for block in ("handlers", "orelse", "body"):
                yield from _statements(getattr(node, block, []))
        yield node


def _spec(module: str) -> ModuleSpec | None:
    package, *rest = module.split(".")
    spec = None
    with suppress(ValueError):  # __main__ may have none
        spec = find_spec(package)  # a name with dots would import its package
    for word in rest:
        spec = PathFinder.find_spec(word, spec.submodule_search_locations or []) if spec else None
    return spec
