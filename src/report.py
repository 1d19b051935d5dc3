"""A run as a page, a sweep or search as a table, with their pictures: python -m src.report FOLDER"""

from __future__ import annotations

from pathlib import Path

from src.config.cli import Parser, end, importing
from src.config.errors import Stopped, UserError
from src.config.folder import CONFIG, finished_runs, is_finished
from src.config.groups import command, look_into
from src.config.paths import home, option
from src.config.schema import PACKAGE
from src.config.streams import steady
from src.sweeps.grid import DEFINITION, show


def report(folder: Path, data_dir: str | None) -> None:
    """Write the table of a sweep or search, or a run's page; raises UserError if it can't be had."""
    if (folder / DEFINITION).exists():
        show(folder)
    elif is_finished(folder):
        with importing():
            from src.results import page
        print(page.save_again(folder, data_dir))
    elif (folder / CONFIG).exists():
        again = command("train", option("resume", folder))
        raise UserError(f"{folder}: this run is unfinished, no results.json is there. Finish it with {again}")
    elif folder.is_dir():
        raise UserError(f"{folder} holds no run and no sweep. Name one, such as logs/NAME or logs/sweep/NAME.")
    else:
        raise UserError(f"{folder}: there is no such folder.")


def main() -> None:
    steady()
    parser = Parser(f"python -m {PACKAGE}.report", description=__doc__)
    parser.add_argument("folder", type=home, help="of a finished run, a sweep or a search; or last, the newest run")
    parser.add_argument(
        "--config-dir",
        "-cd",
        action="append",
        default=[],
        type=home,
        help="where the YAML files of its parts lie, if not in configs/",
    )
    parser.add_argument("--data-dir", type=home, help="where a run's images lie now, if not as in training")
    try:
        arguments = parser.parse_args()
        look_into(*arguments.config_dir)
        report(finished_runs()[0] if arguments.folder == "last" else Path(arguments.folder), arguments.data_dir)
    except UserError as error:
        end(error, 2)
    except OSError as error:
        end(UserError(f"{arguments.folder}: {error}."), 2)
    except KeyboardInterrupt:
        end(Stopped(2), 130)


if __name__ == "__main__":
    main()
