"""One copy of the images for all processes of a run on one machine."""

from __future__ import annotations

import atexit
import hashlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from src.data.images import ImageSet, Source


def read_once(read: Callable[[], Source], run: Path) -> Source:
    """What `read` gives, in memory that all processes of the run in folder `run` share.

    The first of them on a machine reads and writes a temporary file, all map it, and the first removes it when it
    ends. A mapped page is held once, by the system's file cache.
    """
    name = hashlib.sha256(str(run.resolve()).encode()).hexdigest()[:16]
    path = Path(tempfile.gettempdir(), f"images-{name}.pt")
    lock = path.with_suffix(".lock")
    with FileLock(lock):
        if not path.exists():
            atexit.register(_remove, path, lock)
            temporary = path.with_suffix(".part")
            torch.save(_as_dict(read()), temporary)
            temporary.replace(path)
        content: dict[str, Any] = torch.load(path, mmap=True, weights_only=True)
    sets = {name: ImageSet(**value) for name, value in content.items() if isinstance(value, dict)}
    return Source(**{**content, **sets})


def _as_dict(source: Source) -> dict[str, Any]:
    return {name: vars(value) if isinstance(value, ImageSet) else value for name, value in vars(source).items()}


def _remove(*files: Path) -> None:
    for file in files:
        file.unlink(missing_ok=True)
