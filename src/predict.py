"""Say what images show: python -m src.predict checkpoint=PATH input=FILE"""

from __future__ import annotations

from pathlib import Path

from src.config.cli import importing, launch
from src.config.errors import RunError, UserError
from src.config.files import check_target
from src.config.process import Interrupts
from src.config.schema import PredictConfig


def predict(config: PredictConfig, folder: Path) -> None:
    with Interrupts() as interrupts:
        _predict(config, interrupts)


def _predict(config: PredictConfig, interrupts: Interrupts) -> None:
    """Answer each image that `input` names, show the answers, and write them to `output` and `sheet`.

    Raises:
        UserError: the request can't be served.
        RunError: some of the images can't be read; the others are answered.
    """
    if config.output:
        check_target("output", Path(config.output), (".csv", ".json"))
    if config.sheet:
        check_target("sheet", Path(config.sheet), (".png",))
    # a config that was refused must not wait for torch
    with importing(), interrupts.waiting():
        from src.model.predictor import Predictor
        from src.serving import image_files as predictions

    files = predictions.find_images(config.input)
    predictor = Predictor.load(config.checkpoint, config.device, config.precision)
    if predictor.hardware.note:
        print(predictor.hardware.note)
    found = predictions.Predictions(predictor, config.top_k)
    found.read(files, config.batch_size, config.invert)
    if found.unreadable and not found.rows:
        raise UserError(found.unreadable[0])
    found.show()
    try:
        if config.output:
            found.write(Path(config.output))
        if config.sheet:
            found.draw(Path(config.sheet))
    except OSError as error:
        raise RunError(f"output: {error}.") from error
    if found.unreadable:
        raise RunError("\n".join([*found.unreadable[:5], f"{len(found.unreadable):,} of {len(files):,} left out."]))


def main() -> None:
    launch("predict", PredictConfig, lambda request: predict(request.config, request.folder))


if __name__ == "__main__":
    main()
