"""A checkpoint as one file that runs without this project: python -m src.export checkpoint=PATH output=FILE"""

from __future__ import annotations

from pathlib import Path

from src.config.cli import Request, importing, launch, need
from src.config.files import check_target
from src.config.process import Interrupts
from src.config.schema import ExportConfig

SUFFIXES = {"onnx": ".onnx", "torch_export": ".pt2"}  # torch.export.load looks at it


def export(request: Request[ExportConfig]) -> None:
    config = request.config
    check_target("output", Path(config.output), (SUFFIXES[config.format],))
    for package in ("onnx", "onnxruntime", "onnxscript") if config.format == "onnx" else ():
        need(package, "export", f"format={config.format}")
    with Interrupts() as interrupts:
        with importing(), interrupts.waiting():  # a config that was refused need not wait for torch
            from src.serving import graph
        graph.export(config)


def main() -> None:
    launch("export", ExportConfig, export)


if __name__ == "__main__":
    main()
