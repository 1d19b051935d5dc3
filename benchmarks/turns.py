"""Taking turns: each way of training runs in a process of its own and works only when it is told to."""

import os
import pty
import resource
import subprocess
import sys
import threading
import time
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parent.parent
WARM_UP = 2  # steps


class PhaseOver(Exception):
    """The measuring process has seen enough of this phase."""


class Turns:
    """The worker's side: `done` after each batch, which waits where a turn ends."""

    def __init__(self, pipe: int, gpu: bool) -> None:
        self._pipe, self.gpu, self._first, self.waited = Connection(pipe), gpu, 0.0, 0.0
        self._begin(WARM_UP)

    def _begin(self, steps: int) -> None:
        self._left, self._images, self._clock = steps, 0, time.perf_counter()

    def _wait(self) -> None:
        if self.gpu:
            import torch

            torch.cuda.synchronize()

    def done(self, images: int) -> None:
        """A batch of so many images is computed, or at least asked for; raises PhaseOver if there is no other turn."""
        self._images += images
        self._left -= 1
        if not self._first:
            self._wait()
            self._first = time.time() - float(os.environ["BENCHMARK_STARTED"])
        if self._left == 0:
            self._wait()
            seconds = time.perf_counter() - self._clock
            turn = {"seconds": seconds, "images": self._images, "first_step": self._first, "waited": self.waited}
            self._pipe.send(turn)
            steps = self._pipe.recv()
            self._begin(steps or WARM_UP)
            if not steps:
                self._pipe.send(self._peak_memory())
                raise PhaseOver

    def _peak_memory(self) -> int:
        """Bytes: of the GPU, or of this process."""
        if not self.gpu:
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        import torch

        return torch.cuda.max_memory_allocated()


class Worker:
    """The measuring process's side of one worker, which has a terminal, so that it draws its progress bar."""

    peak = 0.0  # GiB of it and all processes below it, while it is watched; pages that some of them share count once

    def __init__(self, way: str, case: str, data: Path, device: str, log: Path, watched: bool = False) -> None:
        self.way, self._log, self.watched = way, log, watched
        self._pipe, theirs = Pipe()
        master, terminal = pty.openpty()
        command = [sys.executable, "-m", "benchmarks.ways", way, case, str(data), device, str(theirs.fileno())]
        with log.open("wb") as errors:
            environment = {**os.environ, "BENCHMARK_STARTED": str(time.time()), "COLUMNS": "80"}
            options: Any = {"pass_fds": (theirs.fileno(),), "cwd": ROOT, "env": environment}
            self._process = subprocess.Popen(command, stdout=terminal, stderr=errors, **options)
        theirs.close()
        os.close(terminal)
        threading.Thread(target=_drain, args=(master,), daemon=True).start()
        self.warm = self.hear()

    def hear(self) -> Any:
        try:
            while self.watched and not self._pipe.poll(0.2):
                with suppress(psutil.Error):  # one has just ended
                    family = psutil.Process().children(recursive=True)
                    self.peak = max(self.peak, sum(one.memory_full_info().pss for one in family) / 2**30)
            return self._pipe.recv()
        except EOFError:
            self._process.wait()
            raise SystemExit(f"error: {self.way} ended early.\n{self._log.read_text()[-2000:]}") from None

    def turn(self, steps: int) -> Any:
        """What so many steps come to; 0 ends a phase and gives its peak memory in bytes: the next warm-up is heard."""
        self._pipe.send(steps)
        return self.hear()

    def end(self) -> None:
        with suppress(psutil.Error):  # what its loader has begun would slow the next one down
            for process in psutil.Process(self._process.pid).children(recursive=True):
                process.kill()
        self._process.kill()
        self._process.wait()


def _drain(terminal: int) -> None:
    with suppress(OSError):  # the other end is closed
        while os.read(terminal, 65536):
            pass
