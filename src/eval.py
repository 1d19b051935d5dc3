"""Score a checkpoint, from its file alone: python -m src.eval checkpoint=PATH"""

from __future__ import annotations

from pathlib import Path

from src.config.cli import importing, launch
from src.config.interrupts import Interrupts
from src.config.schema import EvalConfig


def evaluate(config: EvalConfig, folder: Path) -> float:
    """The accuracy; `folder` is left alone."""
    # a config that was refused must not wait for torch
    with Interrupts() as interrupts:
        with importing(), interrupts.waiting():
            from src.serving.scoring import score
        return score(config)


def main() -> None:
    launch("eval", EvalConfig, evaluate)


if __name__ == "__main__":
    main()
