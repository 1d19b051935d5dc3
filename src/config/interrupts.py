"""Signals that ask a run to stop: SIGTERM and SIGUSR1 of schedulers, SIGINT of Ctrl-C."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

from src.config.errors import Stopped

SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1") if hasattr(signal, name)]
LAUNCHERS = [getattr(signal, name) for name in ("SIGUSR2",) if hasattr(signal, name)]  # if one waits for it


class Interrupts:
    """While `deferred`, the first signal is kept in `received` until a step ends; else it raises Stopped.

    A second signal ends the process at once.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.deferred = False
        self.training = False
        self._earlier: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():  # only there can signals be handled
            self._earlier = {number: signal.getsignal(number) for number in SIGNALS}
            self._earlier |= {number: found for number in LAUNCHERS if callable(found := signal.getsignal(number))}
            self.install()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        for number, handler in self._earlier.items():
            signal.signal(number, handler)

    def hand_on(self, number: int | None) -> None:
        """Give a launcher its signal, now that the checkpoint is on the disk; submitit returns the job to its queue.

        Raises:
            SystemExit: the launcher has done so.
        """
        if number in LAUNCHERS and number in self._earlier:
            self._earlier[number](number, None)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around what must not be broken off, such as an import."""
        self.deferred = True
        yield
        self.deferred = False
        if self.received is not None:
            raise Stopped(self.received)

    def install(self) -> None:
        """Take the signals; once more where a library has taken them since."""
        for number in self._earlier:
            signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            os._exit(128 + number)
        self.received = number
        if not self.deferred:
            raise Stopped(number)
        name = signal.Signals(number).name
        # print() is not safe in a handler: it may have interrupted a print
        if not self.training:
            return
        beginning = "\n" if os.isatty(2) else ""  # of a line of its own, below the bar
        os.write(2, f"{beginning}{name}: saving after this step. A second signal stops at once.\n".encode())
