"""Commands in processes of their own, forked off one that has imported what they need.

Python, torch and Lightning take five seconds of a core to start; a fork of the standard library's fork server takes
hundredths of one. Where the platform has none, each command starts from nothing.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import runpy
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
IMPORTED = ["src.training.session", "src.training.failures", "src.sweeps.search", "src.results.page"]
FORKS = "forkserver" in multiprocessing.get_all_start_methods()


KILLED = """
import os, signal
from pathlib import Path
from src.model.classifier import Classifier
from {module} import main

def step(*arguments, table=Path({table!r}), original=Classifier.training_step):
    if table.exists() and "val" in table.read_text():
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*arguments)

Classifier.training_step = step
main()
"""


class Command:
    """`python -m MODULE ARGUMENTS` (or `python FILE.py ARGUMENTS`) in `folder`, with more of an environment; to be used
    as `subprocess.Popen` with pipes and text. It leads a session of its own, and may write to a `terminal`."""

    def __init__(
        self,
        module: str | Path,
        *arguments: object,
        folder: Path | None = None,
        terminal: Path | None = None,
        **environment: str,
    ) -> None:
        self._kept = TemporaryDirectory()
        self._output = [Path(self._kept.name, name) for name in ("out", "err")]
        if terminal:
            self._output[0] = terminal
        words = [str(module), *map(str, arguments)]
        variables = os.environ | {"PYTHONPATH": str(ROOT)} | environment
        at = folder or Path.cwd()
        if FORKS:
            context: Any = multiprocessing.get_context("forkserver")
            context.set_forkserver_preload(IMPORTED)
            self._process = context.Process(target=_become, args=(words, variables, at, self._output))
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("PYTHONPATH", str(ROOT))  # for the server, which this starts
                self._process.start()
        else:
            command = [sys.executable, *([] if words[0].endswith(".py") else ["-m"]), *words]
            out, err = (path.open("wb") for path in self._output)
            self._process = subprocess.Popen(command, cwd=at, env=variables, stdout=out, stderr=err)
        self.pid: int = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode if FORKS else self._process.poll()

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float = 120) -> int:
        """Its exit code; raises TimeoutExpired as `subprocess` does, and leaves it running."""
        if FORKS:
            self._process.join(timeout)
        elif self._process.poll() is None:
            self._process.wait(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(str(self._process), timeout)
        return self.returncode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()

    def communicate(self, timeout: float = 120) -> tuple[str, str]:
        """What it has written, when it has ended."""
        self.wait(timeout)
        return self.stdout, self.stderr

    @property
    def stdout(self) -> str:
        """What it has written so far."""
        return self._output[0].read_text(errors="replace") if self._output[0].exists() else ""

    @property
    def stderr(self) -> str:
        return self._output[1].read_text(errors="replace") if self._output[1].exists() else ""


def run(module: str | Path, *arguments: object, timeout: float = 120, **options: Any) -> Command:
    """It has ended."""
    command = Command(module, *arguments, **options)
    command.wait(timeout)
    return command


def killed_after_a_validation(folder: Path, module: str, *arguments: object) -> Command:
    """It kills itself with SIGKILL in the first step after the run in `folder` has a row of a validation."""
    with TemporaryDirectory() as made:
        program = Path(made, "killed.py")
        program.write_text(KILLED.format(table=str(folder / "metrics.csv"), module=module), encoding="utf-8")
        return run(program, *arguments)


def _become(words: list[str], variables: dict[str, str], folder: Path, output: list[Path]) -> None:
    gc.freeze()  # a collection would write to all pages of memory that it shares
    os.setsid()
    for number, path in enumerate(output, 1):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, number)
        os.close(file)
        # the server's would ask this file where it stands, and a terminal does not say
        stream = open(number, "w", buffering=1, encoding="utf-8", closefd=False)  # noqa: SIM115 - of a number
        setattr(sys, ("stdout", "stderr")[number - 1], stream)
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(folder)
    sys.path[:0] = [str(folder), *variables["PYTHONPATH"].split(os.pathsep)]
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.argv = words
    if words[0].endswith(".py"):
        runpy.run_path(words[0], run_name="__main__")
    else:
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)
