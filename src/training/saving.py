"""Checkpoints: what each holds besides the weights, and how it gets onto the disk whole."""

from __future__ import annotations

import io
import os
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import CheckpointIO
from pydantic import ConfigDict
from torch import Tensor
from torch.utils._pytree import tree_map_only

from src.config.errors import RunError
from src.config.files import whole
from src.config.schema import NonNegativeInt, Section
from src.model.saved import Content
from src.training.position import Position


class Saved(Section):
    """What `last.ckpt` holds besides what Lightning saves, for a run to go on from it."""

    model_config = ConfigDict(extra="ignore", strict=False)  # else a dataclass is not read from a dict

    position: Position
    logs: dict[str, NonNegativeInt]
    best_score: float | None  # of what `monitor` names
    best_step: int | None  # after which best.ckpt was written
    best_measured: dict[str, float]  # all that was measured then
    interruptions: int
    seconds: float  # of training
    should_stop: bool  # early, which min_epochs or min_steps may hold back, and no state of Lightning's remembers


def previous(path: Path) -> Path:
    """Where the checkpoint that `path` held before is kept: last.ckpt -> last.previous.ckpt."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


class Writer(CheckpointIO):
    """Copies tensors and writes them in a thread of its own, whose errors are raised by the next call; for Lightning to
    load, it has what is `preloaded`."""

    def __init__(self, preloaded: Content | None = None) -> None:
        self._preloaded = preloaded or {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._written: Future[None] | None = None
        self._checked = False

    @property
    def busy(self) -> bool:
        return self._written is not None and not self._written.done()

    def wait(self) -> None:
        """Return when everything is on the disk; raises what `write` does if it could not be written."""
        written, self._written = self._written, None
        if written is not None:
            written.result()

    def save_checkpoint(self, checkpoint: Content, path: Any, *_: Any, **__: Any) -> None:
        self.wait()
        if not self._checked and "callbacks" in checkpoint:
            self._checked = True
            for name, state in checkpoint["callbacks"].items():
                _check_plain(name, state)
        copy = tree_map_only(Tensor, lambda tensor: tensor.detach().to("cpu", copy=True), checkpoint)
        self._written = self._thread.submit(write, copy, Path(path))

    def load_checkpoint(self, *_: Any, **__: Any) -> Content:
        content = self._preloaded.copy()
        self._preloaded.clear()  # it is large, and Lightning lets go of its own
        return content

    def remove_checkpoint(self, path: Any) -> None:
        """Lightning's own callback would; here it writes none."""


def _check_plain(name: str, state: Any) -> None:
    """Raises RunError if the state of a callback could be saved, but not loaded again."""
    file = io.BytesIO()
    try:
        torch.save(tree_map_only(Tensor, torch.empty_like, state), file)
        torch.load(io.BytesIO(file.getvalue()), weights_only=True)
    except Exception as error:  # of pickle, of anything's own way to be pickled
        advice = "Give it a state_dict() of numbers, words, lists, dicts and tensors"
        raise RunError(f"the callback {name} has a state that no run could go on from. {advice}.") from error


def join(last: Path, best: Path) -> None:
    """Leave a finished run one file of weights, the best, under both names; it has lost the optimizer's state."""
    content = torch.load(last, weights_only=True)
    if best.exists():
        content["state_dict"] = torch.load(best, weights_only=True)["state_dict"]
    if "current_model_state" in content:  # of Lightning's WeightAveraging, which goes on from its averages
        content["current_model_state"] = content["state_dict"]
    write(content, last)
    if best.exists():
        with whole(best) as temporary:
            try:
                temporary.hardlink_to(last)
            except OSError:  # of a file system without links
                shutil.copyfile(last, temporary)


def write(content: Content, path: Path) -> None:
    """Write a checkpoint to `path`; what was there becomes the previous one, and at any instant there is a whole one.

    Raises OSError if it can't be written, or a RuntimeError of torch's whose context that is.
    """
    with whole(path) as temporary:
        with temporary.open("xb") as file:  # "x" follows no link that a stranger's folder has there
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            path.replace(previous(path))
    if os.name == "posix":  # where a folder can be flushed, and the renames with it
        folder = os.open(path.parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)
