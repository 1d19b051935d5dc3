"""What a finished run leaves behind besides its weights."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from src.config.check import plain
from src.config.errors import UserError
from src.config.schema import Section, TrainConfig
from src.data.images import Splits, checksum, has_dark_background

FORMAT = 3  # of what a checkpoint says about itself
CODE = (":/src", ":/configs", ":/benchmarks/*.py")
PACKAGES = ("torch", "lightning", "torchmetrics", "hydra-core")


def describe(config: TrainConfig, splits: Splits, precision: str, command: str) -> dict[str, Any]:
    """What a run's checkpoints say about themselves, known before it trains."""
    name = config.dataset.name
    return {
        "format": FORMAT,
        "config": plain(config),
        "classes": splits.classes,
        "channels": splits.train.shape[1],
        "size": list(splits.train.shape[2:]),  # height, width
        "dark_background": has_dark_background(splits.train),
        "images": {
            "train": len(splits.train),
            "val": len(splits.valid),
            "test": len(splits.test),
            "sha256": checksum(splits),
        },
        "precision": precision,
        "dataset": name,
        "source": splits.origin,
        "test_set": f"{name} sample" if splits.origin == "sample" else name,
        "command": command,
        "versions": versions(),
        "git": git_state(),
    }


def collect(
    about: dict[str, Any], scores: Mapping[str, float] | None, measured: dict[str, Any], best: Path
) -> dict[str, Any]:
    """The content of results.json.

    Args:
        scores: what the test gave, "test/acc" and "test/loss"; None if the run was not to be tested.
        measured: what Session.measured gives.
    """
    config = about["config"]
    return {
        "dataset": {
            "name": about["dataset"],
            "source": about["source"],
            "test_set": about["test_set"],
            "sha256": about["images"]["sha256"],
        },
        "model": config["model"]["name"],
        "optimizer": config["optimizer"]["name"],
        "seed": config["seed"],
        "precision": about["precision"],
        "device": measured["device"],
        "parameters": measured["parameters"],
        "train": {
            "seconds": round(measured["seconds"], 2),
            "epochs": measured["epochs"],
            "interruptions": measured["interruptions"],
            "checkpoint_seconds": measured["checkpoint_seconds"],
            "skipped_steps": measured["skipped_steps"],
            "images": about["images"]["train"],
            "images_per_second": measured["images_per_second"],
            "flops_per_image": measured["flops_per_image"],
            "share_of_peak": measured["share_of_peak"],
        },
        "val": {"accuracy": measured["val_accuracy"], "images": about["images"]["val"]},
        "test": scores
        and {
            "accuracy": scores["test/acc"],
            "loss": scores["test/loss"],
            "images": measured["test_images"],
        },
        "checkpoint": str(best),
        "command": about["command"],
        "date": datetime.now(UTC).date().isoformat(),
        "versions": about["versions"],
        "machine": machine(),
        "git": about["git"],
    }


def versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def machine() -> dict[str, Any]:
    return {
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def git_state() -> dict[str, Any] | None:
    """The project's revision and whether what runs are made of differs from it; None outside a git checkout."""
    here = Path(__file__).parent
    try:
        revision = _git("rev-parse", "HEAD", cwd=here)
        # but for comments: the leaderboard writes its numbers into the heads of recipes
        changed = _git("diff", "HEAD", "--ignore-matching-lines=^#", "--", *CODE, cwd=here)
        added = _git("ls-files", "--others", "--exclude-standard", "--", *CODE, cwd=here)
        return {"revision": revision, "modified": bool(changed or added)}
    except (OSError, subprocess.SubprocessError):
        return None


def _git(*arguments: str, cwd: Path) -> str:
    command = ["git", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=True, timeout=10).stdout.strip()


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


class DataNames(Section):
    name: str
    source: str
    test_set: str
    sha256: str


class Training(Section):
    seconds: float
    epochs: int
    interruptions: int
    checkpoint_seconds: float
    skipped_steps: int = 0
    images: int
    images_per_second: float | None
    flops_per_image: int | None
    share_of_peak: float | None


class Score(Section):
    accuracy: float | None
    loss: float | None = None
    images: int


class Machine(Section):
    system: str
    processor: str
    cores: int | None
    threads: int
    gpu: str | None


class Revision(Section):
    revision: str
    modified: bool


class Outcome(Section):
    """The content of results.json."""

    dataset: DataNames
    model: str
    optimizer: str
    seed: int
    precision: str
    device: str
    parameters: int
    train: Training
    val: Score
    test: Score | None
    checkpoint: str
    command: str
    date: str
    versions: dict[str, str]
    machine: Machine
    git: Revision | None

    @classmethod
    def read(cls, folder: Path) -> Outcome:
        path = folder / "results.json"
        try:
            return cls.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise UserError(f"{path} is no record of a run: {str(error).splitlines()[0]}.") from error
