"""Standard output and error: no name that they can't show ends a run, nor does a reader that has left."""

from __future__ import annotations

import io
import os
import sys
from typing import Any, TextIO


def steady() -> None:
    """Let nothing that is shown end a process: it may be closed, of an encoding that lacks a letter, or `| head`."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name) or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123
        if isinstance(stream, io.TextIOWrapper):  # no notebook's, and not for a second time
            stream.reconfigure(errors="backslashreplace")
            setattr(sys, name, _Steady(stream))


class _Steady:
    """A stream that is silent from its first error on."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError:  # nobody reads on, or the disk is full
            self._end()
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            self._end()

    def _end(self) -> None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
