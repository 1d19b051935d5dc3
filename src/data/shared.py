"""One copy of the images for all processes of a run on one machine."""

from __future__ import annotations

import atexit
import os
import re
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from filelock import FileLock

from src.config import process as cluster
from src.data.images import ImageSet, Source

VARIABLE = "IMAGES_OF_THIS_RUN"  # in the environment, which the processes that Lightning starts inherit


def read_once(read: Callable[[], Source]) -> Source:
    """What `read` gives, in memory that this process shares with those that it starts.

    The first of them reads and writes a temporary file, all map it, and the first removes it when it ends. A mapped
    page is held once, by the system's file cache.
    """
    path = _place()
    lock, temporary = path.with_suffix(".lock"), path.with_suffix(".part")
    with FileLock(lock):
        if not path.exists():
            atexit.register(_remove, path, lock, temporary)
            torch.save(_as_dict(read()), temporary)
            temporary.replace(path)
        content: dict[str, Any] = torch.load(path, mmap=True, weights_only=True)
    sets = {name: ImageSet(**value) for name, value in content.items() if isinstance(value, dict)}
    return Source(**{**content, **sets})


def _place() -> Path:
    """The file of the process that started this one, or a new one: no run finds what another has left."""
    if cluster.world_size() is not None:  # the processes of srun and torchrun have one parent on each machine
        _remove(*_abandoned())
        return Path(tempfile.gettempdir(), f"images-{os.getppid()}-{cluster.launch_name()}.pt")
    inherited = os.environ.get(VARIABLE) if "LOCAL_RANK" in os.environ else None  # Lightning gives each one its rank
    if inherited is None or Path(inherited).name.startswith(f"images-{os.getpid()}-"):
        _remove(*_abandoned())
        os.environ[VARIABLE] = str(Path(tempfile.gettempdir(), f"images-{os.getpid()}-{uuid4().hex}.pt"))
    return Path(os.environ[VARIABLE])


def _abandoned() -> list[Path]:
    """What runs on this machine have left that were killed."""
    if not Path("/proc/self").exists():
        return []
    files = Path(tempfile.gettempdir()).glob("images-*-*.*")
    ours = (re.fullmatch(r"images-(\d+)-.+\.(pt|part|lock)", file.name) for file in files)
    return [Path(tempfile.gettempdir(), one[0]) for one in ours if one and not Path("/proc", one[1]).exists()]


def _as_dict(source: Source) -> dict[str, Any]:
    return {name: vars(value) if isinstance(value, ImageSet) else value for name, value in vars(source).items()}


def _remove(*files: Path) -> None:
    for file in files:
        with suppress(OSError):  # another user's, which only he can remove
            file.unlink()
