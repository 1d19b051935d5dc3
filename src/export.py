"""A checkpoint as one file that runs without this project: python -m src.export checkpoint=PATH output=FILE"""

from __future__ import annotations

from pathlib import Path

from src.config.cli import importing, launch, need
from src.config.files import check_target
from src.config.process import Interrupts
from src.config.schema import ExportConfig

SUFFIXES = {"onnx": ".onnx", "torch_export": ".pt2"}  # torch.export.load looks at it


def export(config: ExportConfig) -> None:
    check_target("output", Path(config.output), (SUFFIXES[config.format],))
    for package in ("onnx", "onnxruntime", "onnxscript") if config.format == "onnx" else ():
        need(package, "export", f"format={config.format}")
    # a config that was refused must not wait for torch
    with Interrupts() as interrupts:
        with importing(), interrupts.waiting():
            from src.serving import graph
        graph.export(config)


def main() -> None:
    launch("export", ExportConfig, lambda request: export(request.config))


if __name__ == "__main__":
    main()
