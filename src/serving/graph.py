"""A network and the preparation of its images as one graph, in a file that runs without this project."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, cast

import torch
from rich.filesize import decimal
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.onnx import ONNXProgram

from src.config.errors import RunError, UserError
from src.config.files import whole
from src.config.schema import ExportConfig
from src.model.predictor import Predictor
from src.model.saved import About, load
from src.results.screen import near, show_facts, show_note

LIMIT = 1e-4  # the largest difference of a logit from the checkpoint's
BATCHES = (1, 3, 16)  # images in each batch that a graph is verified on
LARGEST = 2**31  # bytes of one ONNX file: protobuf counts them so
Graph = ONNXProgram | ExportedProgram


def export(config: ExportConfig) -> None:
    """Write the checkpoint as a graph that was compared with it, and show what is in the file."""
    output, saved = Path(config.output), load(config.checkpoint)
    predictor = Predictor.of(saved, "cpu", "32-true")
    try:
        about = write(output, predictor, saved.about, config.format)
    except OSError as error:
        raise RunError(f"output={output}: {error}.") from error
    names = predictor.classes
    show_note(predictor.hardware.note)
    show_facts(
        {
            "file": f"{near(output)}, {decimal(output.stat().st_size)}",
            "format": f"{config.format}, float32",
            **{key: about["preprocessing"][key] for key in ("input", "inside", "output")},
            "classes": f"{len(names)}: {', '.join(names) if len(names) <= 20 else f'{names[0]} ... {names[-1]}'}",
            "verified": about["verification"]["in_words"],
        }
    )


def write(output: Path, predictor: Predictor, about: About, format: Literal["onnx", "torch_export"]) -> dict[str, Any]:
    """Write a graph that was compared with its checkpoint; gives what the file says of itself."""
    graph, described = build(predictor, format), describe(predictor, about)
    with whole(output) as temporary:
        described["verification"] = verify(graph, temporary, predictor)
        save(graph, temporary, described)
    return described


def build(predictor: Predictor, format: Literal["onnx", "torch_export"]) -> Graph:
    """The graph of a predictor in 32-true on the CPU, for any number of images; UserError if it is too large."""
    network = nn.Sequential(predictor.preparation, predictor.network)
    network.eval().requires_grad_(False)  # so that nobody needs torch.no_grad() to run it
    size = sum(weight.nbytes for weight in network.state_dict().values())
    if format == "onnx" and size > LARGEST - 2**20:
        raise UserError(f"format=onnx: {size / 1e9:.1f} GB of weights, but one file holds 2. Use format=torch_export.")
    shapes = ({0: Dim("batch")},)
    example = torch.zeros(2, predictor.channels, predictor.height, predictor.width, dtype=torch.uint8)
    with quiet(f"format={format}: this network can't be exported"):
        program = torch.export.export(network, (example,), dynamic_shapes=shapes)
        for node in program.graph.nodes:
            node.meta.pop("stack_trace", None)  # with the paths of this machine
        if format == "onnx":
            program = program.run_decompositions({torch.ops.aten.adaptive_max_pool2d.default: adaptive_max_pool})
            names: Any = {"input_names": ["images"], "output_names": ["logits"], "dynamic_shapes": shapes}
            return cast(ONNXProgram, torch.onnx.export(program, verbose=False, **names))
    return program


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
    if isinstance(graph, ONNXProgram):
        graph.model.metadata_props.update(texts)
        graph.save(path)
        return
    content = io.BytesIO()  # torch's own writer has no words for a full disk
    with quiet("the graph can't be written"):
        torch.export.save(graph, content, extra_files=texts)
    path.write_bytes(content.getbuffer())


def read(path: Path, by_torch: bool) -> tuple[Callable[[Tensor], Tensor], str]:
    """What runs the graph in a file on the CPU, uint8 (N, C, H, W) -> logits float32 (N, K), and that reader's name."""
    if by_torch:
        return torch.export.load(io.BytesIO(path.read_bytes())).module(), "torch.export.load of torch"
    import onnxruntime  # torch_export needs no package of ONNX

    onnxruntime.set_default_logger_severity(3)  # errors
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0]), "onnxruntime"


def verify(graph: Graph, path: Path, predictor: Predictor) -> dict[str, Any]:
    """Write a graph to `path`, read it as its readers do, compare its logits with the checkpoint's, and say how.

    Raises RunError if it can't be run, or a logit differs by more than LIMIT.
    """
    save(graph, path, {})
    largest, generator = torch.zeros(()), torch.Generator().manual_seed(0)
    with quiet("the graph can't be run"):
        run, reader = read(path, isinstance(graph, ExportedProgram))
        for number in BATCHES:
            shape = number, predictor.channels, predictor.height, predictor.width
            images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
            largest = largest.maximum((run(images) - predictor.logits(images)).abs().max())  # which keeps a NaN
    if not largest <= LIMIT:  # so that NaN is refused as well
        differs = f"the graph's logits differ from the checkpoint's by up to {largest:.2g}"
        raise RunError(f"{differs}; {LIMIT:.0e} is the most that is accepted. Nothing was written.")
    by = f"{reader} {version(reader.split()[-1])}"
    return {
        "in_words": f"largest difference of a logit {largest.item():.2g}, by {by}",
        "largest_difference": largest.item(),
        "limit": LIMIT,
        "by": by,
        "against": f"the checkpoint in float32, by torch {version('torch')} on a CPU",
        "batches": BATCHES,
        "images": "random pixels",
    }


def describe(predictor: Predictor, about: About) -> dict[str, Any]:
    """What a file says of itself: its classes; what goes in, what is done to it, what comes out; the training."""
    dataset, channels, (height, width) = predictor.config.dataset, about.channels, about.size
    side, colours = predictor.preparation.size, {1: "grey", 3: "RGB"}.get(channels, f"{channels} channels")
    shrinks = ", with antialiasing" if max(about.size) > side else ""
    light = ", light on dark" if about.dark_background else ""
    light += ", the character in the middle, its longer side 20/28 of the image" if about.handwritten else ""
    middle = "square" if height == width else f"part of the shape {width}x{height}"
    fits = {"crop": f"cut to the middle {middle}, resize to", "stretch": "stretch to"}
    fit = fits.get(dataset.fit, "fit whole into the middle of its edge's median colour,")
    preprocessing = {
        "input": f"images: uint8 (N, {channels}, {height}, {width}), any N, {colours}, 0 to 255",
        "output": f"logits: float32 (N, {len(about.classes)}); softmax makes probabilities of them",
        **about.model_dump(include={"channels", "size"}),
        **dataset.model_dump(include={"mean", "std"}),
        "resized_to": [side, side],
        "dark_background": about.dark_background,
        "inside": f"(pixel / 255 - mean) / std in each channel, then resized to {side}x{side}, bilinear{shrinks}",
        "outside": f"decode, {fit} {width}x{height}{light}",
    }
    return {
        "classes": about.classes,
        "preprocessing": preprocessing,
        "dataset": {"name": about.dataset, "source": about.source, **about.images.model_dump()},
        "training": about.model_dump(include={"command", "git", "versions", "precision"}),
    }


@contextmanager
def quiet(failed: str) -> Iterator[None]:
    """Without the chatter of exporters and runtimes; an error is a RunError with its first line, after `failed`."""
    try:
        with redirect_stderr(io.StringIO()), warnings.catch_warnings(action="ignore"):
            yield
    except Exception as error:  # a network may do anything, and each part of the exporters has errors of its own
        cause: BaseException = error
        while cause.__cause__:  # the first one knows, the others say at which step
            cause = cause.__cause__
        line = (str(cause).strip().splitlines() or [type(cause).__name__])[0]  # many of torch's go on for pages
        raise RunError(f"{failed}: {line}") from error
