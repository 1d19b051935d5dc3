"""A run as a page, a sweep or search as a table, with their pictures: python -m src.report FOLDER"""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from pathlib import Path

from src.config import folder as runs
from src.config.cli import end, importing
from src.config.errors import UserError
from src.results.outcome import Outcome
from src.sweeps import grid as sweeps

RESULTS = "results.json"


def report(folder: Path, data_dir: str | None = None) -> None:
    """Write what `folder` needs to be looked at: the table and pictures of a sweep or search, or a run's page.

    Raises:
        UserError: it is neither, or the run's images are not to be had.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder.")
    if (folder / "trials.csv").exists():
        from src.results.table import Table  # needs pandas

        table = Table.of_search(folder)
        table.save()
        table.show()
    elif (folder / sweeps.DEFINITION).exists():
        sweeps.show(folder)
    elif runs.is_finished(folder):
        report_run(folder, data_dir)
    elif (folder / "config.yaml").exists():
        raise UserError(f"{folder}: this run is unfinished, for there is no {RESULTS}. Finish it with resume={folder}.")
    else:
        raise UserError(
            f"{folder} holds no run and no sweep. Name one, such as logs/NAME, logs/sweep/NAME or logs/tune/NAME."
        )


def report_run(folder: Path, data_dir: str | None) -> None:
    """Have the run's best checkpoint answer the images again that it was scored on, and write the page."""
    outcome = Outcome.read(folder)
    with importing():
        from src.model import build as experiment
        from src.model import saved as checkpoint
        from src.model.predictor import Predictor
        from src.results import page as report_page

    saved = checkpoint.load(folder / outcome.checkpoint)
    predictor = Predictor.of(saved)
    splits = experiment.images_of(saved, data_dir)
    if predictor.hardware.note:
        print(predictor.hardware.note)
    images, name = (splits.test, "test") if outcome.test else (splits.valid, "validation")
    if outcome.test and outcome.test.images < len(images):  # trainer.limit_test_batches
        images = images[list(range(outcome.test.images))]
    answers = predictor.answer(images, name, saved.config.batch_size)
    try:
        report_page.save(folder, predictor, answers, outcome)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder}: its metrics.csv is damaged ({error}).") from error
    print(folder / report_page.NAME)


def main() -> None:
    parser = ArgumentParser("python -m src.report", description=__doc__)
    parser.add_argument("folder", type=Path, help="of a finished run, a sweep or a search")
    parser.add_argument("--data-dir", help="where a run's images lie now, if not where they were in training")
    arguments = parser.parse_args()
    try:
        report(arguments.folder, arguments.data_dir)
    except UserError as error:
        end(error, 2)
    except OSError as error:
        end(UserError(f"{arguments.folder}: {error}."), 2)
    except KeyboardInterrupt:
        print("stopped by SIGINT.", file=sys.stderr)
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
