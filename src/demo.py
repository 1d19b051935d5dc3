"""A page to draw on, and the network's answer: python -m src.demo checkpoint=PATH"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from src.config.cli import Request, importing, launch, need
from src.config.errors import UserError
from src.config.folder import newest_checkpoint
from src.config.process import Interrupts
from src.config.schema import DemoConfig

HOST = "127.0.0.1"


def demo(request: Request[DemoConfig]) -> None:
    config = request.config
    with Interrupts() as interrupts, TemporaryDirectory(ignore_cleanup_errors=True) as uploads:
        # Gradio reads these when it is imported; its own request to the page must not go to a proxy
        os.environ |= {"GRADIO_TEMP_DIR": uploads, "GRADIO_ANALYTICS_ENABLED": "False", "no_proxy": HOST}
        need("gradio", "demo", "src.demo")
        refuse_taken(config.port)
        checkpoint = Path(config.checkpoint or newest_checkpoint())
        name = f"{checkpoint}{'' if config.checkpoint else ', the newest finished run'}"
        print(f"checkpoint: {name}", flush=True)
        with importing(), interrupts.waiting():  # a request that was refused need not wait for torch
            from src.model.predictor import Predictor
        predictor = Predictor.load(checkpoint, config.device)
        with interrupts.waiting():  # nor a checkpoint that was refused for Gradio
            from src.serving import web
        try:
            web.serve(predictor, checkpoint, name, config, HOST, Path(uploads))
        except OSError as error:  # another process was faster
            refuse_taken(config.port)
            raise UserError(f"port={config.port}: {error}.") from error


def refuse_taken(port: int) -> None:
    """Raises UserError, with a port that is free, if another process serves there."""
    for candidate in range(port, min(port + 100, 65536)):
        with suppress(OSError):
            socket.create_server((HOST, candidate)).close()
            if candidate == port:
                return
            raise UserError(f"port={port} is in use. Another one is free: port={candidate}.")
    raise UserError(f"port={port} is in use, and so are those after it. Take another one.")


def main() -> None:
    launch("demo", DemoConfig, demo)


if __name__ == "__main__":
    main()
