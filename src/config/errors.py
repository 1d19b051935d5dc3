"""What ends a command: a wrong request, a failed run, a wish to stop."""

from __future__ import annotations

from importlib.util import find_spec
from signal import SIGINT, Signals

TIME_IS_UP = 124  # the exit code of timeout(1)


class UserError(Exception):
    """A request that can't be served as it stands; its message says what was wrong and what to do."""


class RunError(Exception):
    """A run that failed; its message says at what, and how to go on. `everywhere`: each process of it raises it."""

    def __init__(self, message: str, everywhere: bool = False) -> None:
        super().__init__(message)
        self.everywhere = everywhere


class Stopped(BaseException):
    """A run was asked to stop, by signal `number` or by `trainer.max_time`; no Exception, for libraries catch those."""

    def __init__(self, number: int | None, message: str = "") -> None:
        by = "" if number == SIGINT else f" by {'trainer.max_time' if number is None else Signals(number).name}"
        super().__init__(message or f"Stopped{by}.")
        self.number = number
        self.code = TIME_IS_UP if number is None else 128 + number


def need(package: str, extra: str, what: str) -> None:
    """Raises UserError if `package` is not installed, which `what` needs and the `extra` of pyproject.toml brings.

    It is named as it is imported, and is not imported.
    """
    spec = find_spec(package)
    if spec is None or spec.origin is None:  # a folder of that name, as W&B leaves one, is no package
        clone = f", or in a clone make extra NAME={extra}" if extra else ""
        with_pip = f'pip install "alexnet-template[{extra}]"' if extra else f"pip install {package}"
        raise UserError(f"{what} needs {package}, which is not installed: {with_pip}{clone}.")
