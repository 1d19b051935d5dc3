"""Files that are written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic_core import to_json

from src.config.errors import UserError
from src.config.schema import Values


def write_json(path: Path, content: Values) -> None:
    """Write `content` whole or not at all; a number that is none (NaN, infinity) becomes null, as JSON has it."""
    write_text(path, to_json(content, indent=2, inf_nan_mode="null").decode() + "\n")


def write_text(path: Path, text: str) -> None:
    # "x" follows no link that a stranger's folder has there
    with whole(path) as temporary, temporary.open("x", encoding="utf-8") as file:
        file.write(text)


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A free name beside `path`, whose file becomes `path` at the end; an error leaves nothing of it behind."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    temporary.unlink(missing_ok=True)
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def check_target(key: str, path: Path, suffixes: tuple[str, ...]) -> None:
    """Raises UserError, before any work is done, if such a file could not be written."""
    problems = {
        f"expected a file that ends in {' or '.join(suffixes)}": path.suffix.lower() not in suffixes,
        "that is a folder. Name a file in it": path.is_dir(),
        f"there is no folder {path.parent}. Make it first": not path.parent.is_dir(),
        f"the folder {path.parent} is read-only": not os.access(path.parent, os.W_OK),
    }
    if problem := next((words for words, holds in problems.items() if holds), None):
        raise UserError(f"{key}={path}: {problem}.")


def check_weights(weights: str) -> None:
    """Raises UserError if `init.weights` names no file."""
    problems = {
        "that is an address. Download it, and name the file": "://" in weights,
        "that is a folder. Name a file of weights in it": Path(weights).is_dir(),
        "there is no such file": not Path(weights).is_file(),
    }
    if problem := next((words for words, holds in problems.items() if holds), None):
        raise UserError(f"init.weights={weights}: {problem}.")


def check_writable(folder: Path) -> None:
    """Raises UserError if no run can be written there."""
    existing = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        what = "read-only" if existing.is_dir() else "a file"
        raise UserError(f"{folder}: can't write a run there, for {existing} is {what}. Set hydra.run.dir.")
