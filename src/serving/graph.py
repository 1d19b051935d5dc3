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
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from src.config.errors import RunError, UserError
from src.model.predictor import Predictor
from src.model.saved import Checkpoint

if TYPE_CHECKING:  # torch_export needs no package of ONNX
    from onnx import ModelProto

LIMIT = 1e-4  # the largest difference of a logit from the checkpoint's
BATCHES = (1, 3, 16)  # images in each batch that a graph is verified on
LARGEST = 2**31  # bytes of one ONNX file: protobuf counts them so
COLOURS = {1: "grey", 3: "RGB"}  # by channels

Answer = Callable[[Tensor], Tensor]  # uint8 images (N, C, H, W) -> logits float32 (N, num_classes)


class Whole(nn.Module):
    """uint8 images (N, C, H, W) of the data set's own size -> logits float32 (N, num_classes)."""

    def __init__(self, predictor: Predictor) -> None:
        super().__init__()
        self.preparation, self.network = predictor.preparation, predictor.network

    def forward(self, images: Tensor) -> Tensor:
        return self.network(self.preparation(images)).float()


def build(predictor: Predictor, format: Literal["onnx", "torch_export"]) -> ModelProto | ExportedProgram:
    """The graph of a predictor in 32-true on the CPU, for any number of images.

    Raises:
        UserError: it is too large for the format.
        RunError: the network does something that has no place in a graph.
    """
    whole = Whole(predictor).eval().requires_grad_(False)  # so that nobody needs torch.no_grad() to run it
    size = sum(weight.nbytes for weight in whole.state_dict().values())
    if format == "onnx" and size > LARGEST - 2**20:
        raise UserError(f"format=onnx: {size / 1e9:.1f} GB of weights, but one file holds 2. Use format=torch_export.")
    example = torch.zeros(2, predictor.channels, predictor.height, predictor.width, dtype=torch.uint8)
    shapes = {"images": {0: Dim("batch")}}
    try:
        with quiet():
            program = torch.export.export(whole, (example,), dynamic_shapes=shapes)
            for node in program.graph.nodes:
                node.meta.pop("stack_trace", None)  # with the paths of this machine
            if format == "torch_export":
                return program
            program = program.run_decompositions({torch.ops.aten.adaptive_max_pool2d.default: adaptive_max_pool})
            names: dict[str, Any] = {"input_names": ["images"], "output_names": ["logits"], "dynamic_shapes": shapes}
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
        edges = [(place * side // bins, -(-(place + 1) * side // bins)) for place in range(bins)]  # down and up
        images = torch.stack([images.narrow(axis, low, high - low).amax(axis) for low, high in edges], axis)
    return images, torch.zeros_like(images, dtype=torch.int64)


def save(graph: ModelProto | ExportedProgram, path: Path, about: Mapping[str, Any]) -> None:
    """Write a graph to `path`, with `about` in it: under each key JSON.

    A reader gets it back from an ONNX file by ``onnxruntime.InferenceSession(path).get_modelmeta()``, whose
    ``custom_metadata_map`` it is, and from the other by ``torch.export.load(path, extra_files=found)``, where
    ``found = {"classes": "", ...}`` names the keys that are wanted and is filled.
    """
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


def load_onnx(path: Path) -> Answer:
    """The graph in a file, run by onnxruntime on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])


def load_program(path: Path) -> Answer:
    """The graph in a file, run by torch on the CPU."""
    with quiet(), path.open("rb") as file:
        return torch.export.load(file).module()


def verify(graph: ModelProto | ExportedProgram, path: Path, predictor: Predictor) -> dict[str, Any]:
    """Write a graph to `path`, read it as its readers do and compare its logits with the checkpoint's.

    Returns:
        How it was verified, for the file and the screen.

    Raises:
        RunError: it can't be run, or a logit differs by more than LIMIT.
    """
    save(graph, path, {})
    by_torch = isinstance(graph, ExportedProgram)
    try:
        answer = load_program(path) if by_torch else load_onnx(path)
        largest = largest_difference(answer, predictor)
    except Exception as error:  # of a runtime's own kind
        raise RunError(f"the graph can't be run: {first_line(error)}") from error
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
        "images": "random pixels, and smooth shapes with the spectrum of photographs",
    }


def largest_difference(answer: Answer, predictor: Predictor) -> float:
    """Of any logit, between a graph and its predictor, over images of each kind in batches of each size."""
    shape = predictor.channels, predictor.height, predictor.width
    generator = torch.Generator().manual_seed(0)
    found = []
    for number in BATCHES:
        noise = torch.randint(0, 256, (number, *shape), dtype=torch.uint8, generator=generator)
        for images in (noise, shapes_like_photographs(number, *shape, predictor.dark_background, generator)):
            found.append((answer(images) - predictor.logits(images)).abs().max())
    return float(torch.stack(found).max())  # which keeps a NaN, as Python's max may not


def shapes_like_photographs(
    number: int, channels: int, height: int, width: int, dark_background: bool, generator: torch.Generator
) -> Tensor:
    """Smooth uint8 images (number, C, H, W) whose amplitudes fall with the frequency (Field 1987), as photographs' do.

    With a dark background, what is darker than the mean is black.
    """
    spectrum = torch.fft.rfft2(torch.randn(number, channels, height, width, generator=generator))
    frequency = torch.hypot(torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)[None])
    frequency[0, 0] = torch.inf  # no mean
    field = torch.fft.irfft2(spectrum / frequency, s=(height, width))
    field = field / field.std((1, 2, 3), keepdim=True).clamp(min=1e-6)
    return ((field * 200) if dark_background else (field * 60 + 128)).clamp(0, 255).to(torch.uint8)


def describe(saved: Checkpoint, predictor: Predictor) -> dict[str, Any]:
    """What a file says of itself, but for how it was verified."""
    dataset, about = saved.config.dataset, saved.about
    side = dataset.image_size
    height, width = predictor.height, predictor.width
    colours = COLOURS.get(predictor.channels, f"{predictor.channels} channels")
    shrinks = ", with antialiasing" if max(height, width) > side else ""
    return {
        "classes": predictor.classes,
        "preprocessing": {
            "input": f"images: uint8 (N, {predictor.channels}, {height}, {width}), any N, {colours}, 0 to 255",
            "output": f"logits: float32 (N, {len(predictor.classes)}); softmax makes probabilities of them",
            "layout": "NCHW",
            "channels": predictor.channels,
            "size": [height, width],
            "mean": dataset.mean,
            "std": dataset.std,
            "resized_to": [side, side],
            "dark_background": predictor.dark_background,
            "inside": f"(pixel / 255 - mean) / std in each channel, then resized to {side}x{side}, bilinear{shrinks}",
            "outside": f"decode, cut to the largest square in the middle, resize to {width}x{height}"
            + (", light on dark" if predictor.dark_background else ""),
        },
        "dataset": {"name": about.dataset, "source": about.source, **about.images.model_dump()},
        "training": about.model_dump(include={"command", "git", "versions", "precision"}),
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
