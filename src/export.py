"""A checkpoint as one file that runs without this project: python -m src.export checkpoint=PATH output=FILE"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from src.config.cli import importing, launch, need
from src.config.errors import RunError, UserError
from src.config.files import check_target, whole
from src.config.process import Interrupts
from src.config.schema import ExportConfig

SUFFIXES = {"onnx": ".onnx", "torch_export": ".pt2"}  # torch.export.load looks at it


def export(config: ExportConfig, folder: Path) -> None:
    with Interrupts() as interrupts:
        _export(config, interrupts)


def _export(config: ExportConfig, interrupts: Interrupts) -> None:
    """Write the checkpoint as a graph that was compared with it, and show what is in the file."""
    output = Path(config.output)
    refuse(config, output)
    # a config that was refused must not wait for torch
    with importing(), interrupts.waiting():
        from src.model import build as experiment
        from src.model import saved as checkpoint
        from src.model.predictor import Predictor
        from src.results import screen
        from src.serving import graph as graphs

    saved = checkpoint.load(config.checkpoint)
    predictor = Predictor.of(saved, "cpu", "32-true")
    splits = experiment.images_of(saved, config.data_dir) if config.int8 else None
    graph: Any = graphs.build(predictor, config.format)
    about = graphs.describe(saved, predictor)
    try:
        with whole(output) as temporary:
            about["verification"] = graphs.verify(graph, temporary, predictor)
            if splits is not None:
                from src.serving.int8 import quantize

                graph, about["int8"] = quantize(graph, splits)
            graphs.save(graph, temporary, about)
    except OSError as error:
        raise RunError(f"output={output}: {error}.") from error
    screen.show_export(config, about)


def refuse(config: ExportConfig, output: Path) -> None:
    """Raises UserError if no such file can be made, whatever the checkpoint holds."""
    if config.int8 and config.format != "onnx":
        raise UserError(f"int8=true: format={config.format} has no 8-bit form here. Use format=onnx.")
    check_target("output", output, (SUFFIXES[config.format],))
    packages = ("onnx", "onnxruntime", "onnxscript") if config.format == "onnx" else ()
    for package in packages:
        need(package, "export", f"format={config.format}")


def main() -> None:
    launch("export", ExportConfig, lambda request: export(request.config, request.folder))


if __name__ == "__main__":
    main()
