"""Checkpoints onto the disk, whole or not at all, while training goes on."""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import CheckpointIO
from torch import Tensor
from torch.utils._pytree import tree_map_only

PREVIOUS = ".previous"  # last.ckpt -> last.previous.ckpt


def previous(path: Path) -> Path:
    """Where the checkpoint that `path` held before is kept."""
    return path.with_name(f"{path.stem}{PREVIOUS}{path.suffix}")


class Writer(CheckpointIO):
    """Copies a checkpoint's tensors and writes them in a thread of its own.

    A file is written under another name, flushed and renamed, and the one before it is kept; so at any instant
    there is a whole one. An error in the thread is raised by the next call.

    Args:
        preloaded: the content of the checkpoint that Lightning asks for first, if it was read already.
    """

    def __init__(self, preloaded: dict[str, Any] | None = None) -> None:
        self._preloaded = preloaded
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._written: Future[None] | None = None

    @property
    def busy(self) -> bool:
        return self._written is not None and not self._written.done()

    def wait(self) -> None:
        """Return when everything is on the disk.

        Raises:
            OSError, RuntimeError: it could not be written; the checkpoint before it stands.
        """
        written, self._written = self._written, None
        if written is not None:
            written.result()

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        self.wait()
        copy = tree_map_only(Tensor, _copy, checkpoint)
        self._written = self._thread.submit(write, copy, Path(path))

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = True) -> dict[str, Any]:
        content, self._preloaded = self._preloaded, None
        return content or torch.load(path, map_location=map_location or "cpu", weights_only=True)

    def remove_checkpoint(self, path: Any) -> None:
        Path(path).unlink(missing_ok=True)

    def teardown(self) -> None:
        self.wait()


def write(content: dict[str, Any], path: Path) -> None:
    """Write a checkpoint to `path`, whole or not at all; what was there before becomes the previous one."""
    temporary = path.with_name(f".{path.name}.part")
    try:
        temporary.unlink(missing_ok=True)
        with temporary.open("xb") as file:  # "x" follows no link that a stranger's folder has there
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            path.replace(previous(path))
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _flush(path.parent)


def _copy(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", copy=True)


def _flush(folder: Path) -> None:
    """Bring a rename onto the disk, where folders can be flushed."""
    if os.name == "posix":
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
