"""A checkpoint as one file that runs without this project, or as a folder to share.

python -m src.export run=last output=model.onnx (or output=share/)
"""

from __future__ import annotations

import os
from pathlib import Path

from src.config.cli import Request, importing, launch, need
from src.config.errors import UserError
from src.config.files import check_target
from src.config.process import Interrupts
from src.config.schema import ExportConfig

SUFFIXES = {"onnx": ".onnx", "torch_export": ".pt2"}  # torch.export.load looks at it


def export(request: Request[ExportConfig]) -> None:
    config = request.config
    output, packages = Path(config.output), ["onnx", "onnxruntime", "onnxscript"]
    to_share, what = config.output.endswith(("/", os.sep)) or not output.suffix, f"format={config.format}"
    check_target("output", output, () if to_share else (SUFFIXES[config.format],))
    if to_share and config.format != "onnx":
        raise UserError(f"{what}: a folder to share has model.onnx. Leave it out, or name a file.")
    if to_share:
        packages, what = [*packages, "safetensors"], f"output={config.output}"
    for package in packages if config.format == "onnx" else []:
        need(package, "export", what)
    with Interrupts() as interrupts:
        with importing(), interrupts.waiting():  # a config that was refused need not wait for torch
            if to_share:
                from src.serving.share import share as write
            else:
                from src.serving.graph import export as write
        write(config)


def main() -> None:
    launch("export", ExportConfig, export)


if __name__ == "__main__":
    main()
