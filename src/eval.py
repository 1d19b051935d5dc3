"""Score a checkpoint: python -m src.eval checkpoint=PATH, or run=last"""

from __future__ import annotations

from src.config.cli import Request, importing, launch
from src.config.process import Interrupts
from src.config.schema import EvalConfig


def evaluate(request: Request[EvalConfig]) -> None:
    with Interrupts() as interrupts:
        with importing(), interrupts.waiting():  # a config that was refused need not wait for torch
            from src.serving.scoring import score
        score(request.config)


def main() -> None:
    launch("eval", EvalConfig, evaluate)


if __name__ == "__main__":
    main()
