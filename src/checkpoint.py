"""What a checkpoint says about itself, and loading one without running anything in it."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from src.config import TrainConfig, UserError
from src.results import FORMAT, flat, plain
from src.validation import check

ABOUT = "about"  # the key under which Classifier saves it


class Checkpoint(NamedTuple):
    """`state_dict` is the network's; `config` is the run's, with what `auto` and `null` came to.

    `about` is what results.describe said when the run began; `resumable` says whether the optimizer's state is there.
    """

    path: Path
    config: TrainConfig
    about: dict[str, Any]
    state_dict: dict[str, Tensor]
    resumable: bool


def load(path: str | Path) -> Checkpoint:
    """Read a checkpoint with torch's ``weights_only=True``, which runs no code from the file.

    Raises:
        UserError: no such file, or it is truncated, not ours, or holds more than plain values and tensors.
    """
    path = Path(path)
    if path.is_dir() or not path.exists():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise UserError(f"checkpoint={path}: it {what}. Name a .ckpt file, such as checkpoints/best.ckpt of a run.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"checkpoint={path}: it holds more than tensors and plain values, which could run code, or is no "
            "checkpoint at all. It was not loaded."
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise UserError(f"checkpoint={path}: it is damaged or no checkpoint. Take another one.") from error
    about = content.get(ABOUT) if isinstance(content, dict) else None
    if not isinstance(about, dict) or about.get("format") != FORMAT or not _is_ours(content):
        raise UserError(f"checkpoint={path}: another program wrote it. Only checkpoints of this project are read.")
    try:
        config = check(about["config"], TrainConfig)
    except UserError as error:
        raise UserError(f"checkpoint={path}: its config does not fit this version: {error}") from error
    prefix = "network."
    weights = {
        name.removeprefix(prefix): value for name, value in content["state_dict"].items() if name.startswith(prefix)
    }
    return Checkpoint(path, config, about, weights, "optimizer_states" in content)


def _is_ours(content: dict[str, Any]) -> bool:
    return isinstance(content[ABOUT].get("config"), dict) and isinstance(content.get("state_dict"), dict)


def to_resume(resume: str) -> Checkpoint:
    """The checkpoint that `resume=` means: the file itself, or the last one of a run folder.

    Raises:
        UserError: there is none, or it holds weights only.
    """
    path = Path(resume)
    last = path / "checkpoints" / "last.ckpt"
    if not path.exists() or (path.is_dir() and not last.exists()):
        what = "that folder holds no checkpoints/last.ckpt" if path.is_dir() else "there is no such run or checkpoint"
        raise UserError(f"resume={resume}: {what} to go on from.")
    saved = load(last if path.is_dir() else path)
    if not saved.resumable:
        raise UserError(
            f"resume={resume}: it holds the weights alone. Take last.ckpt, which has the optimizer's state."
        )
    return saved


# what may differ between a run and its continuation
_FREE = ("trainer", "callbacks", "logger", "data_dir", "num_workers", "device", "devices", "compile", "resume")


def refuse_other(saved: Checkpoint, config: TrainConfig) -> None:
    """A run goes on with the images, the network and the optimizer that it began with."""
    before, now = (flat(plain(each)) for each in (saved.config, config))
    for key in sorted(before.keys() | now.keys(), key=lambda key: (key != "seed", key)):  # the seed moves the others
        if key.partition(".")[0] not in _FREE and before.get(key) != now.get(key):
            raise UserError(
                f"resume: the run began with {key}={before.get(key)}, and this command says {now.get(key)}."
            )
