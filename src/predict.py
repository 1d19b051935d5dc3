"""Say what images show: python -m src.predict checkpoint=PATH input=FILE, or run=last"""

from __future__ import annotations

from pathlib import Path

from src.config.cli import Request, importing, launch
from src.config.files import check_target
from src.config.process import Interrupts
from src.config.schema import PredictConfig


def predict(request: Request[PredictConfig]) -> None:
    config = request.config
    if config.output:
        check_target("output", Path(config.output), (".csv", ".json"))
    if config.sheet:
        check_target("sheet", Path(config.sheet), (".png",))
    with Interrupts() as interrupts:
        with importing(), interrupts.waiting():  # a config that was refused need not wait for torch
            from src.serving import image_files
        image_files.predict(config)


def main() -> None:
    launch("predict", PredictConfig, predict)


if __name__ == "__main__":
    main()
