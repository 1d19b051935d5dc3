"""Train a network and test its best checkpoint once: python -m src.train dataset=mnist"""

from __future__ import annotations

from src.config.cli import Arguments, Request, launch
from src.config.schema import TrainConfig
from src.sweeps import grid
from src.training.run import train


def run(request: Request[TrainConfig]) -> float | None:
    return train(request.config, request.folder, command=request.command, named=request.named)


def sweep(arguments: Arguments) -> bool:
    return grid.run(arguments, run)


def main() -> None:
    launch("train", TrainConfig, run, sweep)


if __name__ == "__main__":
    main()
