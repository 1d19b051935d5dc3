"""A page for images and drawings, and the network's answers: python -m src.demo checkpoint=PATH"""

from __future__ import annotations

import os
import socket
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
        # Gradio reads these when it is imported; its own request to the page, the only one, must not go to a proxy
        for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
            del os.environ[name]
        os.environ |= {"GRADIO_TEMP_DIR": uploads, "GRADIO_ANALYTICS_ENABLED": "False", "no_proxy": HOST}
        need("gradio", "demo", "the demo")
        try:
            socket.create_server((HOST, config.port)).close()
        except OSError as error:
            raise UserError(f"port={config.port} is in use. Take another one.") from error
        checkpoint = Path(config.checkpoint or newest_checkpoint())
        name = f"{checkpoint}{'' if config.checkpoint else ', the newest finished run'}"
        print(f"checkpoint: {name}", flush=True)
        with importing(), interrupts.waiting():  # a request that was refused need not wait for torch
            from src.model.predictor import Predictor
            from src.serving import web
        web.serve(Predictor.load(checkpoint, config.device), checkpoint, name, config, HOST, Path(uploads))


def main() -> None:
    launch("demo", DemoConfig, demo)


if __name__ == "__main__":
    main()
