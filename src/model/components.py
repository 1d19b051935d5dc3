"""From the name of a class or function in a config to the thing itself."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from src.config import signature
from src.config.errors import UserError
from src.config.schema import Component, Values


@contextmanager
def told(words: str, *kinds: type[Exception]) -> Iterator[None]:
    """Errors of these `kinds` as a UserError, which begins with `words`."""
    try:
        yield
    except kinds as error:
        first_line = (str(error) or repr(error)).partition("\n")[0]
        raise UserError(f"{words}{first_line.removesuffix('.')}.") from error


def given(component: Component, offered: Values) -> Values:
    """Of what this project offers to a target, that which it takes."""
    try:
        declared = signature.read(component.target)
        known: Any = {**declared.parameters, **declared.computed}
    except LookupError:
        known = inspect.signature(resolve(component)).parameters
    return {key: value for key, value in offered.items() if key in known}


def resolve(component: Component) -> Any:
    """The class or function that it names."""
    module, _, name = component.target.rpartition(".")
    with told(f"_target_={component.target}: ", ImportError, AttributeError):
        return getattr(importlib.import_module(module), name)
