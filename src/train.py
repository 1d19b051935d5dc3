"""Train a network and test its best checkpoint once: python -m src.train dataset=mnist"""

from __future__ import annotations

from pathlib import Path

from src.config.cli import command_line, launch, task_overrides
from src.config.schema import TrainConfig
from src.training.run import train


def task(config: TrainConfig, folder: Path) -> float | None:
    return train(config, folder, command=command_line("train"), named=task_overrides())


def main() -> None:
    launch("train", TrainConfig, task)


if __name__ == "__main__":
    main()
