"""Score a checkpoint, from its file alone: python -m src.eval checkpoint=PATH"""

from __future__ import annotations

from src.config.cli import importing, launch
from src.config.process import Interrupts
from src.config.schema import EvalConfig


def evaluate(config: EvalConfig) -> float:
    # a config that was refused must not wait for torch
    with Interrupts() as interrupts:
        with importing(), interrupts.waiting():
            from src.serving.scoring import score
        return score(config)


def main() -> None:
    launch("eval", EvalConfig, lambda request: evaluate(request.config))


if __name__ == "__main__":
    main()
