"""A run as a page, a sweep or many runs as a table, two or more compared in pairs: python -m src.report FOLDER [...]"""

from __future__ import annotations

from glob import has_magic
from pathlib import Path

from src.config.cli import Parser, end, importing
from src.config.errors import Stopped, UserError
from src.config.folder import CONFIG, RESULTS, check_finished, finished_runs
from src.config.groups import look_into
from src.config.paths import home
from src.config.schema import PACKAGE
from src.config.streams import steady
from src.sweeps.grid import DEFINITION, show


def main() -> None:
    steady()
    parser = Parser(f"python -m {PACKAGE}.report", description=__doc__)
    what = "of a run, a sweep or a search; last, the newest run; a pattern, as 'logs/*mnist*'; or of many runs, then "
    what += "KEY=VALUE chooses among them, order=best sorts them, output=FILE.csv, .md or .html keeps them"
    parser.add_argument("folders", nargs="+", metavar="folder", type=home, help=what)
    parser.add_argument("--output", type=home, help="where a comparison is written, if not to logs/compared")
    where = "where the YAML files of its parts lie, if not in configs/"
    parser.add_argument("--config-dir", "-cd", action="append", default=[], type=home, help=where)
    parser.add_argument("--data-dir", type=home, help="where a run's images lie now, if not as in training")
    try:
        arguments = parser.parse_intermixed_args()
        look_into(*arguments.config_dir)
        first, *words = arguments.folders
        options = [word for word in words if "=" in word and not Path(word).exists()]
        folder = finished_runs()[0] if first == "last" else Path(first)
        if len(words) > len(options) or (has_magic(first) and not folder.exists()):
            from src.results import comparison  # needs pandas and scipy

            comparison.report(arguments.folders, arguments.output, arguments.data_dir)
        elif arguments.output:
            raise UserError(f"--output={arguments.output}: one run or sweep has its report in its own folder.")
        elif (folder / DEFINITION).exists() and not options:
            show(folder)
        elif folder.is_dir() and (options or not any((folder / name).exists() for name in (CONFIG, RESULTS))):
            from src.results import overview  # needs pandas

            overview.show(folder, options)
        else:
            check_finished(folder)
            with importing():
                from src.results import page
            print(page.save_again(folder, arguments.data_dir))
    except UserError as error:
        end(error, 2)
    except OSError as error:
        end(UserError(f"{' '.join(arguments.folders)}: {error}."), 2)
    except KeyboardInterrupt:
        end(Stopped(2), 130)


if __name__ == "__main__":
    main()
