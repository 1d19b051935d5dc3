"""Packages that only some options need."""

from __future__ import annotations

from importlib.util import find_spec

from src.config.errors import UserError
from src.config.schema import LoggerConfig


def need(package: str, extra: str, what: str) -> None:
    """Go on only if `package`, named as it is imported, is there; nothing is imported.

    Args:
        extra: of pyproject.toml, that installs it.
        what: needs it, as the user wrote it: "logger=wandb".

    Raises:
        UserError: it is not installed.
    """
    spec = find_spec(package)
    if spec is None or spec.origin is None:  # a folder of that name, as W&B leaves one, is no package
        raise UserError(
            f'{what} needs {package}, which is not installed: pip install "alexnet-template[{extra}]", '
            f"or in a clone .venv/bin/uv pip install -r pyproject.toml --extra {extra}."
        )


def need_loggers(config: LoggerConfig) -> None:
    """Raises UserError if a tracker that the config asks for is not installed."""
    for name in ("wandb", "mlflow"):
        if getattr(config, name):
            need(name, name, f"logger.{name}=true")
