"""A page to draw on, and the network's answer: python -m src.demo checkpoint=PATH"""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from src.config import folder as runs
from src.config.cli import importing, launch, need
from src.config.errors import UserError
from src.config.process import Interrupts
from src.config.schema import DemoConfig

if TYPE_CHECKING:
    from src.model.predictor import Predictor
    from src.serving.web import Example

HOST = "127.0.0.1"
EXAMPLES = 10


def demo(config: DemoConfig, folder: Path) -> None:
    with Interrupts() as interrupts, TemporaryDirectory(ignore_cleanup_errors=True) as uploads:
        # Gradio reads these when it is imported; its own request to the page must not go to a proxy
        os.environ |= {"GRADIO_TEMP_DIR": uploads, "GRADIO_ANALYTICS_ENABLED": "False", "no_proxy": HOST}
        _demo(config, Path(uploads), interrupts)


def _demo(config: DemoConfig, uploads: Path, interrupts: Interrupts) -> None:
    """Serve the page until a signal comes."""
    need("gradio", "demo", "src.demo")
    refuse_taken(config.port)
    checkpoint = Path(config.checkpoint) if config.checkpoint else runs.newest_checkpoint()
    which = f"{checkpoint}{'' if config.checkpoint else ', the newest finished run'}"
    print(f"checkpoint: {which}", flush=True)
    # a request that was refused must not wait for torch, and a checkpoint that was refused not for Gradio
    with importing(), interrupts.waiting():
        import torch

        from src.model.predictor import Predictor

    predictor = Predictor.load(checkpoint, config.device)
    if predictor.hardware.note:
        print(predictor.hardware.note)
    with interrupts.waiting():
        from src.serving import web as page

    try:
        examples = find_examples(predictor, config.data_dir or predictor.config.data_dir, uploads)
    except UserError as error:
        print(f"No examples on the page: {error}")
        examples = []
    page.answer(predictor, torch.zeros(predictor.channels, predictor.height, predictor.width).byte().numpy())  # warm
    title = f"{predictor.config.model.name} on {predictor.config.dataset.name}"
    blocks = page.build(predictor, title, f"{score(checkpoint)}Checkpoint: {which}", examples)
    try:
        page.serve(blocks, HOST, config.port, config.open_browser)
    except OSError as error:  # another process was faster
        refuse_taken(config.port)
        raise UserError(f"port={config.port}: {error}.") from error
    print(f"Open http://{HOST}:{config.port} in a browser; Ctrl-C ends it.", flush=True)
    while True:
        time.sleep(1)  # on Windows a longer wait can't be interrupted


def refuse_taken(port: int) -> None:
    """Raises UserError, with a port that is free, if another process serves there."""
    for candidate in range(port, min(port + 100, 65536)):
        with suppress(OSError):
            socket.create_server((HOST, candidate)).close()
            if candidate == port:
                return
            raise UserError(f"port={port} is in use. Another one is free: port={candidate}.")
    raise UserError(f"port={port} is in use, and so are those after it. Take another one.")


def find_examples(predictor: Predictor, data_dir: str, folder: Path) -> list[Example]:
    """About ten test images, the same number of each of the first classes, as files in `folder`.

    Raises:
        UserError: they are not on this machine, or no longer those of the training.
    """
    from PIL import Image

    from src.data.images import split
    from src.model import build as experiment
    from src.results.figures.images import as_rows
    from src.serving.web import Example

    run = predictor.config
    dataset = run.dataset.model_copy(update={"mirrors": []})  # ten images are worth no download
    source = experiment.read_images(dataset, data_dir)
    if source.classes != predictor.classes or source.train.shape[1] != predictor.channels:
        raise UserError(f"the images in {data_dir} are not those that the network was trained on.")
    test = split(source, dataset.valid_fraction, run.seed).test
    each = max(EXAMPLES // len(source.classes), 1)
    found: list[Example] = []
    for label, name in enumerate(source.classes[:EXAMPLES]):
        for place in (test.labels == label).nonzero()[:each, 0].tolist():
            path = folder / f"example-{len(found)}.png"
            Image.fromarray(as_rows(test[[place]].images[0])).save(path)
            found.append(Example(path, name))
    return found


def score(checkpoint: Path) -> str:
    """What the run's results.json says of this checkpoint, if there is one."""
    from src.results.outcome import Outcome
    from src.results.screen import describe_origin

    try:
        outcome = Outcome.read(checkpoint.absolute().parent.parent)
    except UserError:
        return ""
    test, dataset = outcome.test, outcome.dataset
    if not test or Path(outcome.checkpoint).name != checkpoint.name:
        return ""
    return f"Right on {test.accuracy:.2%} of {test.images:,} {describe_origin(dataset.name, dataset.source)}. "


def main() -> None:
    launch("demo", DemoConfig, lambda request: demo(request.config, request.folder))


if __name__ == "__main__":
    main()
