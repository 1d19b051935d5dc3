"""The names that torchvision and timm give their architectures, read from their source text: neither is imported."""

from __future__ import annotations

import difflib
import re
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Strict

from src.config.errors import need


def _known(library: str, arch: str) -> str:
    """The name as it is, if it is in the library's own list: no address, path or tag of weights; else ValueError."""
    if arch not in (names := architectures(library)):
        nearest = ", ".join(difflib.get_close_matches(arch, names, cutoff=0))
        raise ValueError(f"an architecture of {library}; the nearest are {nearest}")
    return arch


@cache
def architectures(library: str) -> list[str]:
    """Those that classify images; raises UserError if the library is not installed."""
    need(library, library, f"model={library}")
    spec = find_spec(library)
    files = Path(spec.origin).parent.joinpath("models").glob("*.py") if spec and spec.origin else []
    registered = re.compile(r"^@register_model\b.*?^def (\w+)", re.MULTILINE | re.DOTALL)
    return sorted(name for file in files for name in registered.findall(file.read_text(encoding="utf-8")))


TorchvisionArchitecture = Annotated[str, Strict(), AfterValidator(partial(_known, "torchvision"))]
TimmArchitecture = Annotated[str, Strict(), AfterValidator(partial(_known, "timm"))]
