"""Files that are written whole or not at all."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pydantic_core import to_jsonable_python

from src.config.errors import UserError
from src.config.schema import Values


def write_json(path: Path, content: Values) -> None:
    """Write `content` whole or not at all; a number that is none (NaN, infinity) becomes null, as JSON has it."""
    text = json.dumps(to_jsonable_python(content, inf_nan_mode="null"), indent=2, ensure_ascii=False)
    readable = text.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")  # where names are read as C's
    write_text(path, f"{readable}\n", "backslashreplace")  # JSON has no bytes but UTF-8


def write_text(path: Path, text: str, errors: str = "surrogateescape") -> None:
    """A name of a file has its bytes again, whether they are UTF-8 or not."""
    # "x" follows no link that a stranger's folder has there
    with whole(path) as temporary, temporary.open("x", encoding="utf-8", errors=errors) as file:
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


def check_target(key: str, path: Path, suffixes: tuple[str, ...] = ()) -> None:
    """Raises UserError, before any work is done, if such a file, or without suffixes a folder, can't be written."""
    in_the_way = path.is_file() or (path.is_dir() and any(path.iterdir()))
    problems = {
        f"expected a file that ends in {' or '.join(suffixes)}": bool(suffixes) and path.suffix.lower() not in suffixes,
        "that is a folder. Name a file in it": bool(suffixes) and path.is_dir(),
        "something lies there. Name a new folder, or remove that first": not suffixes and in_the_way,
        f"there is no folder {path.parent}. Make it first": not path.parent.is_dir(),
        f"the folder {path.parent} is read-only": not os.access(path.parent, os.W_OK),
    }
    _refuse(f"{key}={path}", problems)


def check_weights(weights: str) -> None:
    """Raises UserError if `init.weights` names no file."""
    problems = {
        "that is an address. Download it, and name the file": "://" in weights,
        "that is a folder. Name a file of weights in it": Path(weights).is_dir(),
        "there is no such file": not Path(weights).is_file(),
    }
    _refuse(f"init.weights={weights}", problems)


def check_classes(root: Path) -> None:
    """Raises UserError if that is no folder with folders in it."""
    advice = "Set data_dir=FOLDER, or dataset.folder=NAME in it, to where each class has a sub-folder of images"
    problems = {
        f"there is no such folder. {advice}": not root.is_dir(),
        f"it holds no sub-folder. {advice}": root.is_dir() and not any(path.is_dir() for path in root.iterdir()),
    }
    _refuse(str(root), problems)


def _refuse(what: str, problems: Mapping[str, bool]) -> None:
    """Raises UserError with the first of the problems that there is."""
    if problem := next((words for words, holds in problems.items() if holds), None):
        raise UserError(f"{what}: {problem}.")


def check_writable(folder: Path) -> None:
    """Raises UserError if no run can be written there."""
    if re.search("[\udc80-\udcff]", str(folder.absolute())):  # bytes, which TensorBoard takes for none
        raise UserError(f"{folder}: can't write a run there, for its name is not in UTF-8. Set hydra.run.dir.")
    existing = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        what = "read-only" if existing.is_dir() else "a file"
        raise UserError(f"{folder}: can't write a run there, for {existing} is {what}. Set hydra.run.dir.")
