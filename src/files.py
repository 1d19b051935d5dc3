"""Files that are written whole or not at all."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

from src.config import Section
from src.validation import as_yaml


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write `content` whole or not at all; a number that is none (NaN, infinity) becomes null, as JSON has it."""
    write_text(path, json.dumps(_finite(content), indent=2, allow_nan=False) + "\n")


def write_config(path: Path, config: Section) -> None:
    """Write the resolved config as YAML."""
    write_text(path, as_yaml(config))


def write_text(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    temporary.unlink(missing_ok=True)
    with temporary.open("x", encoding="utf-8") as file:  # "x" follows no link that a stranger's folder has there
        file.write(text)
    temporary.replace(path)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
