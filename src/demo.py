"""A page for images and drawings, and the network's answers: python -m src.demo, or run=logs/NAME"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from tempfile import TemporaryDirectory

from src.config.cli import Request, importing, launch, need
from src.config.errors import UserError
from src.config.groups import command
from src.config.process import Interrupts
from src.config.schema import DemoConfig
from src.results.outcome import best_of_newest

HOST = "127.0.0.1"


def demo(request: Request[DemoConfig]) -> None:
    config = request.config
    with Interrupts() as interrupts, TemporaryDirectory(ignore_cleanup_errors=True) as uploads:
        # Gradio reads these when it is imported; its own request to the page, the only one, must not go to a proxy
        for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
            del os.environ[name]
        os.environ |= {"GRADIO_TEMP_DIR": uploads, "GRADIO_ANALYTICS_ENABLED": "False", "no_proxy": HOST}
        need("gradio", "demo", "the demo")
        try:
            socket.create_server((HOST, config.port)).close()
        except OSError as error:
            raise UserError(f"port={config.port} is in use. Take another one.") from error
        checkpoint, count = (Path(config.checkpoint), 0) if config.checkpoint else best_of_newest()
        name = f"{checkpoint}{f', of the best of the {count} newest runs on its images' if count > 1 else ''}"
        if not config.checkpoint:
            print(f"checkpoint: {name}", f"another:    {command('demo', 'run=logs/NAME')}", sep="\n", flush=True)
        with importing(), interrupts.waiting():  # a request that was refused need not wait for torch
            from src.model.predictor import Predictor
            from src.serving import web
        web.serve(Predictor.load(checkpoint, config.device), checkpoint, name, config, HOST, Path(uploads))


def main() -> None:
    launch("demo", DemoConfig, demo)


if __name__ == "__main__":
    main()
