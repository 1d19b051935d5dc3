"""Pages that need no network, of the templates beside this file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader

from src.results.intervals import percent


def render(template: str, **values: Any) -> str:
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True)
    environment.filters["percent"] = lambda share: "-" if share is None else percent(share)
    return environment.get_template(template).render(values)
