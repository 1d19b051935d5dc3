"""Search for the best options: python -m src.tune experiment=quick n_trials=20"""

from __future__ import annotations

from hydra._internal.utils import get_args_parser

from src.config import compose
from src.config.cli import end
from src.config.errors import Stopped, UserError
from src.config.help import help_text
from src.config.schema import TuneConfig


def main() -> None:
    args = get_args_parser().parse_intermixed_args()
    try:
        compose.register()
        if args.help:
            print(help_text("tune", TuneConfig))
            return
        if args.multirun or args.cfg or args.info or args.config_path:
            raise UserError("src.tune takes KEY=VALUE and --config-dir only; src.train --cfg job shows a run's config.")
        from src.sweeps.search import Search
        from src.train import train

        success = Search(args.overrides, args.config_dir).run(train)
    except UserError as error:
        end(error, 2)
    except Stopped as stop:
        words = f"{Stopped(stop.number)} The same command goes on with the search, and with its last trial."
        end(Stopped(stop.number, words), stop.code)
    except KeyboardInterrupt:
        end(Stopped(2, "stopped by SIGINT. The same command goes on with the search."), 130)
    raise SystemExit(0 if success else 1)


if __name__ == "__main__":
    main()
