"""Search for the best options: python -m src.tune experiment=quick n_trials=20"""

from __future__ import annotations

import sys

from src.config.cli import end, read, unusable
from src.config.errors import Stopped, UserError
from src.config.help import help_text
from src.config.process import forget_launches
from src.config.schema import TrainConfig, TuneConfig
from src.config.streams import steady


def main() -> None:
    steady()
    forget_launches()
    try:
        arguments = read("tune", sys.argv[1:], TuneConfig, TrainConfig)
        if arguments.help:
            print(help_text("tune", TuneConfig))
            return
        if arguments.multirun or arguments.show:
            raise UserError("a search takes KEY=VALUE and --config-dir only; of a run, --cfg job shows the config.")
        from src.sweeps.search import Search
        from src.training.run import train

        raise SystemExit(0 if Search(arguments).run(train) else 1)
    except UserError as error:
        end(error, 2)
    except OSError as error:
        end(unusable(error), 2)
    except (Stopped, KeyboardInterrupt) as stop:
        stopped = stop if isinstance(stop, Stopped) else Stopped(2)
        words = f"{Stopped(stopped.number)} To continue the search, and its last trial: the same command."
        end(Stopped(stopped.number, words), stopped.code)


if __name__ == "__main__":
    main()
