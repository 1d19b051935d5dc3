"""A run as a page, a sweep or many runs as a table, two or more compared in pairs: python -m src.report FOLDER [...]"""

from __future__ import annotations

import re
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
    what += "KEY=VALUE chooses, order=best sorts, output= is a .csv, .md or .html file; of a comparison it is a folder"
    parser.add_argument("folders", nargs="+", metavar="folder", type=home, help=what)
    where = "where the YAML files of its parts lie, if not in configs/"
    parser.add_argument("--config-dir", "-cd", action="append", default=[], type=home, help=where)
    parser.add_argument("--data-dir", type=home, help="where a run's images lie now, if not as in training")
    try:
        arguments = parser.parse_intermixed_args()
        look_into(*arguments.config_dir)
        options = [word for word in arguments.folders if re.match(r"[\w.]+=", word) and not Path(word).exists()]
        folders = [word for word in arguments.folders if word not in options]
        if not folders:
            raise UserError(f"{options[0]}: name a folder as well, such as logs.")
        folder = finished_runs()[0] if folders[0] == "last" else Path(folders[0])
        if len(folders) > 1 or (has_magic(folders[0]) and not folder.exists()):
            from src.results import comparison  # needs pandas and scipy

            comparison.report(folders, options, arguments.data_dir)
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
