"""The table of a sweep, finished or not, with its pictures: python -m src.report logs/sweep/NAME"""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path

from src import sweeps
from src.cli import end
from src.config import UserError


def main() -> None:
    parser = ArgumentParser("python -m src.report", description=__doc__)
    parser.add_argument("folder", type=Path, help="a sweep's folder")
    folder = parser.parse_args().folder
    try:
        if not folder.is_dir():
            raise UserError(f"{folder}: there is no such folder.")
        if (folder / "trials.csv").exists():
            raise UserError(f"{folder} is a search: its table is in summary.md and trials.csv.")
        if not (folder / sweeps.DEFINITION).exists():
            raise UserError(f"{folder} holds no sweep, for there is no {sweeps.DEFINITION}. Name one, logs/sweep/NAME.")
        sweeps.show(folder)
    except UserError as error:
        end(error, 2)
    except OSError as error:
        end(UserError(f"{folder}: {error}."), 2)


if __name__ == "__main__":
    main()
