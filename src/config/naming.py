"""How the folders of runs and sweeps are named: when they began, and what was changed."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from datetime import datetime
from itertools import accumulate
from pathlib import Path
from uuid import uuid4

from omegaconf import OmegaConf

from src.config.folder import FREE, check_finished, finished_runs
from src.config.process import launch_name
from src.config.schema import Values

# of what was changed: what no result depends on, and what stands in a run's name already or is a path
_BESIDE, _NAMED = FREE - {"trainer.max_epochs", "trainer.max_time"}, {"dataset", "model", "optimizer", "init.weights"}
_OUTSIDE, _PATH, _MARKS = re.compile("-|hydra|logger"), re.compile(r"[/~]|\.\.?/|\w:\\"), re.compile(r"[][{}'\"]")
_BEGUN = re.compile(r"^(\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d|job\d+(_\d+)?)_")
LONGEST = 40  # letters of it in a run's name


def changed(words: Sequence[str]) -> Values:
    """What overrides, or the words of a command, change of a run, in their order: not where it lies, or on what."""
    options = dict(word.lstrip("+~").partition("=")[::2] for word in words if "=" in word)
    return {key: value for key, value in options.items() if key not in _BESIDE and not _OUTSIDE.match(key)}


def _started() -> str:  # all processes of a launch find one folder by its name, now and later
    return launch_name() or datetime.now().strftime("%Y-%m-%d_%H-%M-%S")


def run_of(again: str) -> Path:
    """The folder of the finished run that `again=` means; UserError if there is none."""
    folder = finished_runs()[0] if again == "last" else Path(again)
    check_finished(folder)
    return folder


def anew(name: str) -> str:
    """Of the folder of a run that is begun again now, from the name that it has."""
    return f"{_started()}_{_BEGUN.sub('', name)}"


def _unique(overrides: str) -> str:  # sweeps of one second, and that of a launch
    return _digest(overrides)[:6] if launch_name() else uuid4().hex[:6]


def _changed(overrides: Sequence[str]) -> str:  # what follows a run's date, data set, network and optimizer
    options = {key: _MARKS.sub("", value) for key, value in changed(overrides).items() if key not in _NAMED}
    shown = {key: value for key, value in options.items() if not _PATH.match(value)}
    leaves = [re.split("[./]", key)[-1] for key in shown]
    keys = [leaf if leaves.count(leaf) == 1 else key for key, leaf in zip(shown, leaves, strict=True)]
    parts = [f"_{as_folder(f'{key}={value}')}" for key, value in zip(keys, shown.values(), strict=True)]
    kept = [part for part, end in zip(parts, accumulate(map(len, parts)), strict=True) if end <= LONGEST]
    is_whole = kept == parts and not launch_name()  # runs of one launch are told apart by all that they were asked
    return "".join(kept if is_whole else [*kept, f"_{_digest(str(overrides))[:6]}"])


def as_folder(text: str) -> str:
    """Overrides as the name of a folder, on every file system and in Hydra's own grammar."""
    name = re.sub(r"[^\w.-]+", "_", text.replace("+", "").replace("=", "-")).strip("_").rstrip(".") or "job"
    return name if len(name) <= 200 else f"{name[:190]}_{_digest(text)[:8]}"


def _digest(text: str) -> str:
    return hashlib.md5(text.encode(errors="surrogateescape")).hexdigest()


def register() -> None:
    """Tell OmegaConf of what folders are named by: ${started:}, ${changed:...}, ${unique:...}."""
    OmegaConf.register_new_resolver("started", _started, replace=True, use_cache=True)
    OmegaConf.register_new_resolver("changed", _changed, replace=True)
    OmegaConf.register_new_resolver("unique", _unique, replace=True, use_cache=True)
