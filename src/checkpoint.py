"""What a checkpoint says about itself, and loading one without running anything in it."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from src.config import TrainConfig, UserError
from src.results import FORMAT
from src.validation import check

ABOUT = "about"  # the key under which Classifier saves it


class Checkpoint(NamedTuple):
    """`state_dict` is the network's; `config` is the run's, with what `auto` and `null` came to.

    `about` is what results.describe said when the run began.
    """

    path: Path
    config: TrainConfig
    about: dict[str, Any]
    state_dict: dict[str, Tensor]


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
    if not isinstance(about, dict) or about.get("format") != FORMAT or "state_dict" not in content:
        raise UserError(f"checkpoint={path}: another program wrote it. Only checkpoints of this project are read.")
    try:
        config = check(about["config"], TrainConfig)
    except UserError as error:
        raise UserError(f"checkpoint={path}: its config does not fit this version: {error}") from error
    prefix = "network."
    weights = {
        name.removeprefix(prefix): value for name, value in content["state_dict"].items() if name.startswith(prefix)
    }
    return Checkpoint(path, config, about, weights)


def find(resume: str) -> Path:
    """The checkpoint that `resume=` means: the file itself, or the last one of a run folder."""
    path = Path(resume)
    last = path / "checkpoints" / "last.ckpt"
    if path.is_dir() and not last.exists():
        raise UserError(f"resume={resume}: that folder holds no checkpoints/last.ckpt to go on from.")
    return last if path.is_dir() else path
