"""A network and the preparation of its images as one graph, in a file that runs without this project."""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from rich.filesize import decimal
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.nn.functional import interpolate

from src.config.errors import RunError, UserError
from src.config.files import whole
from src.config.schema import ExportConfig
from src.model.predictor import Predictor
from src.model.saved import load
from src.results.screen import near, show_facts

if TYPE_CHECKING:  # torch_export needs no package of ONNX
    from onnx import ModelProto

    Graph = ModelProto | ExportedProgram

LIMIT = 1e-4  # the largest difference of a logit from the checkpoint's
BATCHES = (1, 3, 16)  # images in each batch that a graph is verified on
LARGEST = 2**31  # bytes of one ONNX file: protobuf counts them so
COLOURS = {1: "grey", 3: "RGB"}  # by channels

Run = Callable[[Tensor], Tensor]  # uint8 images (N, C, H, W) -> logits float32 (N, num_classes)


def export(config: ExportConfig) -> None:
    """Write the checkpoint as a graph that was compared with it, and show what is in the file."""
    output, saved = Path(config.output), load(config.checkpoint)
    predictor, about = Predictor.of(saved, "cpu", "32-true"), saved.about
    graph, prepared, names = build(predictor, config.format), describe(predictor), predictor.classes
    try:
        with whole(output) as temporary:
            verified = verify(graph, temporary, predictor)
            images = {"name": about.dataset, "source": about.source, **about.images.model_dump()}
            training = about.model_dump(include={"command", "git", "versions", "precision"})
            content = {"classes": names, "preprocessing": prepared, "dataset": images, "training": training}
            save(graph, temporary, content | {"verification": verified})
    except OSError as error:
        raise RunError(f"output={output}: {error}.") from error
    shown = ", ".join(names) if len(names) <= 20 else f"{', '.join(names[:3])} ... {names[-1]}"
    show_facts(
        {
            "file": f"{near(output)}, {decimal(output.stat().st_size)}",
            "format": f"{config.format}, float32",
            **{key: str(prepared[key]) for key in ("input", "inside", "output")},
            "classes": f"{len(names)}: {shown}",
            "verified": f"largest difference of a logit {verified['largest_difference']:.2g}, by {verified['by']}",
        }
    )


def build(predictor: Predictor, format: Literal["onnx", "torch_export"]) -> Graph:
    """The graph of a predictor in 32-true on the CPU, for any number of images.

    Raises UserError if it is too large for the format, and RunError if the network has no place in a graph.
    """
    network = nn.Sequential(predictor.preparation, predictor.network)
    network.eval().requires_grad_(False)  # so that nobody needs torch.no_grad() to run it
    size = sum(weight.nbytes for weight in network.state_dict().values())
    if format == "onnx" and size > LARGEST - 2**20:
        raise UserError(f"format=onnx: {size / 1e9:.1f} GB of weights, but one file holds 2. Use format=torch_export.")
    example = torch.zeros(2, predictor.channels, predictor.height, predictor.width, dtype=torch.uint8)
    shapes = ({0: Dim("batch")},)
    try:
        with quiet():
            program = torch.export.export(network, (example,), dynamic_shapes=shapes)
            for node in program.graph.nodes:
                node.meta.pop("stack_trace", None)  # with the paths of this machine
            if format == "torch_export":
                return program
            program = program.run_decompositions({torch.ops.aten.adaptive_max_pool2d.default: adaptive_max_pool})
            names: Any = {"input_names": ["images"], "output_names": ["logits"], "dynamic_shapes": shapes}
            exported = torch.onnx.export(program, dynamo=True, external_data=False, verbose=False, **names)
            assert exported is not None
            return exported.model_proto
    except Exception as error:  # a network may do anything, and each part of the exporters has errors of its own
        cause: BaseException = error
        while cause.__cause__:  # the first one knows, the others say at which step
            cause = cause.__cause__
        raise RunError(f"format={format}: this network can't be exported: {first_line(cause)}") from error


def adaptive_max_pool(images: Tensor, size: list[int]) -> tuple[Tensor, Tensor]:
    """torch's adaptive_max_pool2d of static sizes by slices, for torch.onnx has none; its indices are left out."""
    for axis, bins in zip((2, 3), size, strict=True):
        side = images.shape[axis]
        edges = [(number * side // bins, -(-(number + 1) * side // bins)) for number in range(bins)]  # down and up
        images = torch.stack([images.narrow(axis, low, high - low).amax(axis) for low, high in edges], axis)
    return images, torch.zeros_like(images, dtype=torch.int64)


def save(graph: Graph, path: Path, about: Mapping[str, object]) -> None:
    """Write a graph to `path`, with `about` in it: under each key JSON, as ONNX's metadata or torch's `extra_files`."""
    texts = {key: json.dumps(value) for key, value in about.items()}
    path.unlink(missing_ok=True)
    with path.open("xb") as file:  # "x" follows no link that a stranger's folder has there
        if isinstance(graph, ExportedProgram):
            content = io.BytesIO()  # torch's own writer has no words for a full disk
            with quiet():
                torch.export.save(graph, content, extra_files=texts)
            file.write(content.getbuffer())
        else:
            from onnx.helper import set_model_props

            set_model_props(graph, texts)
            file.write(graph.SerializeToString())


def read(path: Path, by_torch: bool) -> Run:
    """The graph in a file, run on the CPU by torch or by onnxruntime."""
    if by_torch:
        with quiet(), path.open("rb") as file:
            return torch.export.load(file).module()
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])


def verify(graph: Graph, path: Path, predictor: Predictor) -> dict[str, object]:
    """Write a graph to `path`, read it as its readers do, compare its logits with the checkpoint's, and say how.

    Raises RunError if it can't be run, or a logit differs by more than LIMIT.
    """
    save(graph, path, {})
    by_torch = isinstance(graph, ExportedProgram)
    try:
        run = read(path, by_torch)
        differences = [(run(images) - predictor.logits(images)).abs().max() for images in probes(predictor)]
    except Exception as error:  # of a runtime's own kind
        raise RunError(f"the graph can't be run: {first_line(error)}") from error
    largest = float(torch.stack(differences).max())  # which keeps a NaN, as Python's max may not
    if not largest <= LIMIT:  # so that NaN is refused as well
        raise RunError(
            f"the graph's logits differ from the checkpoint's by up to {largest:.2g}; {LIMIT:.0e} is the most that is "
            "accepted. Nothing was written."
        )
    return {
        "largest_difference": largest,
        "limit": LIMIT,
        "by": f"torch.export.load of torch {version('torch')}" if by_torch else f"onnxruntime {version('onnxruntime')}",
        "against": f"the checkpoint in float32, by torch {version('torch')} on a CPU",
        "batches": list(BATCHES),
        "images": "random pixels, and random smooth shapes",
    }


def probes(predictor: Predictor) -> Iterator[Tensor]:
    """Images uint8 (N, C, H, W) of random pixels and of smooth shapes, in batches of each size."""
    size, generator = (predictor.height, predictor.width), torch.Generator().manual_seed(0)
    for number in BATCHES:
        yield torch.randint(0, 256, (number, predictor.channels, *size), dtype=torch.uint8, generator=generator)
        coarse = torch.rand(number, predictor.channels, 5, 5, generator=generator) * 512 - 128  # half black or white
        yield interpolate(coarse, size, mode="bicubic").clamp(0, 255).to(torch.uint8)


def describe(predictor: Predictor) -> dict[str, object]:
    """What goes in, what is done to it, and what comes out."""
    dataset, height, width = predictor.config.dataset, predictor.height, predictor.width
    side, channels = dataset.image_size, predictor.channels
    shrinks = ", with antialiasing" if max(height, width) > side else ""
    colours = COLOURS.get(channels, f"{channels} channels")
    return {
        "input": f"images: uint8 (N, {channels}, {height}, {width}), any N, {colours}, 0 to 255",
        "output": f"logits: float32 (N, {len(predictor.classes)}); softmax makes probabilities of them",
        "layout": "NCHW",
        "channels": channels,
        "size": [height, width],
        "mean": dataset.mean,
        "std": dataset.std,
        "resized_to": [side, side],
        "dark_background": predictor.dark_background,
        "inside": f"(pixel / 255 - mean) / std in each channel, then resized to {side}x{side}, bilinear{shrinks}",
        "outside": f"decode, cut to the largest square in the middle, resize to {width}x{height}"
        + (", light on dark" if predictor.dark_background else ""),
    }


def first_line(error: BaseException) -> str:
    """Of what it says; many of torch's go on for pages."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


@contextmanager
def quiet() -> Iterator[None]:
    """Without the chatter of exporters: prints, warnings and logs. What fails raises an error all the same."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
