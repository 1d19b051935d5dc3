"""Taking turns: each way of training runs in a process of its own and works only when it is told to."""

from __future__ import annotations

import json
import os
import pty
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
WARM_UP = 2  # steps


class PhaseOver(Exception):
    """The measuring process has seen enough of this phase."""


class Turns:
    """The worker's side: `done` after each batch, which waits where a turn ends."""

    def __init__(self, replies: int, wait: Callable[[], None] = lambda: None) -> None:
        self._replies = os.fdopen(replies, "w")
        self.wait = wait
        self._phase(float(os.environ["BENCHMARK_STARTED"]))

    def _phase(self, started: float | None = None) -> None:
        self._started, self._left, self._images = started, WARM_UP, 0
        self._first: float | None = None

    def done(self, images: int) -> None:
        """A batch of so many images is computed, or at least asked for."""
        self._images += images
        self._left -= 1
        if self._first is None:
            self.wait()
            self._first = time.time() - self._started if self._started else 0.0
        if self._left == 0:
            self.wait()
            seconds = time.perf_counter() - self._clock if self._started is None else 0.0
            self.say(seconds=seconds, images=self._images, first_step=self._first)
            self._obey()

    def _obey(self) -> None:
        command = sys.stdin.readline().split()
        if not command or command[0] == "next":
            self.say(peak=peak_memory())
            self._phase()
            raise PhaseOver
        self._started, self._left, self._images = None, int(command[1]), 0
        self._clock = time.perf_counter()

    def begin(self) -> None:
        """Another phase starts now."""
        self._clock = time.perf_counter()

    def say(self, **values: Any) -> None:
        print(json.dumps(values), file=self._replies, flush=True)


def peak_memory() -> int:
    """Bytes: of the GPU where there is one, else of this process."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class Worker:
    """The measuring process's side of one worker, which has a terminal, so that it draws its progress bar."""

    def __init__(self, way: str, options: dict[str, Any], log: Path) -> None:
        self.way = way
        reading, writing = os.pipe()
        master, terminal = pty.openpty()
        self._log = log
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.ways", way, json.dumps(options), str(writing)],
                stdin=subprocess.PIPE,
                stdout=terminal,
                stderr=errors,
                pass_fds=(writing,),
                cwd=ROOT,
                text=True,
                env={**os.environ, "BENCHMARK_STARTED": str(time.time()), "COLUMNS": "80"},
            )
        os.close(writing)
        os.close(terminal)
        self._replies = os.fdopen(reading)
        threading.Thread(target=_drain, args=(master,), daemon=True).start()
        self.warm = self.hear()

    def hear(self) -> dict[str, Any]:
        line = self._replies.readline()
        if not line:
            self._process.wait()
            raise SystemExit(f"error: {self.way} ended early.\n{self._log.read_text()[-2000:]}")
        return json.loads(line)

    def turn(self, steps: int) -> dict[str, Any]:
        """The answer to so many steps."""
        self._tell(f"go {steps}")
        return self.hear()

    def next_phase(self) -> dict[str, Any]:
        """End this phase; gives what it says at its end, and after it the warm-up of the next one."""
        self._tell("next")
        return self.hear()

    def end(self) -> None:
        self._process.kill()
        self._process.wait()

    def _tell(self, command: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()


def _drain(terminal: int) -> None:
    while True:
        try:
            if not os.read(terminal, 65536):
                return
        except OSError:  # the other end is closed
            return
