"""What a number depends on besides its config: the versions, the machine, the revision."""

from __future__ import annotations

import hashlib
import inspect
import os
import platform
import subprocess
from contextlib import suppress
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

from src.config.schema import PACKAGE, Section, source_file

CODE = (f":/{PACKAGE}", ":/configs")
PACKAGES = ("torch", "lightning", "torchmetrics", "hydra-core")


class Revision(Section):
    """Of the project's git checkout; `modified` says that what runs are made of differs from it."""

    revision: str
    modified: bool


class Machine(Section):
    system: str
    processor: str
    cores: int | None
    threads: int
    gpu: str | None


def versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def machine() -> Machine:
    import torch  # who only reads what was written need not wait for it

    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return Machine(
        system=platform.platform(),
        processor=next(named, platform.processor() or platform.machine()),
        cores=os.cpu_count(),
        threads=torch.get_num_threads(),
        gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    )


def git_revision() -> Revision | None:
    """None outside a git checkout."""
    try:
        revision = _git("rev-parse", "HEAD")
        # but for comments: the leaderboard writes its numbers into the heads of recipes
        changed = _git("diff", "HEAD", "--ignore-matching-lines=^#", "--", *CODE)
        added = _git("ls-files", "--others", "--exclude-standard", "--", *CODE)
        return Revision(revision=revision, modified=bool(changed or added))
    except (OSError, subprocess.SubprocessError):
        return None


def way_back(target: str, git: Revision | None) -> str:
    """What to do where a network's file may have changed since a run was trained, in lines for a reader."""
    file = source_file(target)
    if git is None:
        return f"If {file} has changed since, undo that: trained outside a git checkout, it names no revision."
    revision, odd = git.revision[:12], ", with changes that no revision has" if git.modified else ""
    told = f"It was trained at revision {revision}{odd}. If {file} has changed since, keep the new file as model=mine"
    commands = f"    cp {file} {PACKAGE}/model/mine.py\n    git checkout {revision} -- {file}"
    return f"{told}, and bring back the old one:\n{commands}"


def fingerprint(target: str) -> str:
    """SHA-256 of the lines of a network's file without comments; empty for a library's."""
    with suppress(OSError, TypeError):
        file = Path(inspect.getfile(import_module(target.rpartition(".")[0])))
        if "site-packages" not in file.parts:
            # no syntax tree: Python's versions write it differently
            lines = (line.partition("#")[0].rstrip() for line in file.read_text(encoding="utf-8").splitlines())
            return hashlib.sha256("\n".join(filter(None, lines)).encode()).hexdigest()
    return ""


def _git(*words: str) -> str:
    here, command = Path(__file__).parent, ["git", *words]
    return subprocess.run(command, cwd=here, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
