"""One image of a file, of bytes, of Pillow or of torch as uint8 pixels: the same in training, prediction and demo."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import torch
from PIL import ExifTags, Image, UnidentifiedImageError
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.io import ImageReadMode, decode_jpeg
from torchvision.transforms.functional import pil_to_tensor, to_pil_image

from src.config.errors import UserError
from src.config.schema import PACKAGE, Fit
from src.data.pixels import as_pixels, orientation, turned

Encoded = Path | bytes | Image.Image | Tensor  # of torch: uint8 (C, H, W)
Box = tuple[int, int, int, int]  # left, top, width and height, in an image as it is shown
Cut = Callable[[int, int], Box]  # of an image's width and height
_ORIENTED_PNG = re.compile(rb"eXIf|Raw profile type exif|XML:com\.adobe\.xmp")
SKIP = f"dataset.on_broken=skip takes another of its class; python -m {PACKAGE}.data.verify FOLDER lists all broken."


class BrokenImage(UserError):
    """An image that can't be read."""


def decode(
    image: Encoded,
    channels: int,
    size: tuple[int, int] | None,
    fit: Fit = "crop",
    cut: Cut | None = None,
    name: str = "the image",
) -> Tensor:
    """uint8 (C, H, W) of the `size` (width, height), or of its own: a part of the image, or the whole as `fit` says.

    It is turned as its camera says; what is transparent becomes white. Raises BrokenImage, which calls it by its path
    or `name`, if it can't be read, and UserError if its pixels mean nothing known.
    """
    name = str(image) if isinstance(image, Path) else name
    with _opened(image, name) as (found, file):
        box = _box(_shown(found, file), size, fit, cut) if size and found.format in ("JPEG", "MPO") else None
        step = _reduce(found, box, size) if box and size else 1
        pixels = _by_libjpeg(found, file, channels) if box and file and step == 1 else None
        pixels = as_pixels(found, channels, name) if pixels is None else pixels
    if size is None:
        return pixels
    if fit == "pad" and not cut:
        return _padded(pixels, size)
    height, width = pixels.shape[1:]
    box = box or _box((width, height), size, fit, cut)
    if step == 1:
        return resized(pixels, box, size)
    left, top, right, bottom = (edge / step for edge in (box[0], box[1], box[0] + box[2], box[1] + box[3]))
    edges = left, top, min(right, width), min(bottom, height)  # between two pixels, where torch can't begin
    return pil_to_tensor(to_pil_image(pixels).resize(size, Image.Resampling.BILINEAR, edges))


def size_of(image: Encoded, name: str = "the image") -> tuple[int, int]:
    """Width and height as it is shown; its pixels are not decoded. Raises BrokenImage."""
    with _opened(image, str(image) if isinstance(image, Path) else name) as found:
        return _shown(*found)


def resized(pixels: Tensor, box: Box, size: tuple[int, int]) -> Tensor:
    """A part of uint8 (C, H, W) as (C, height, width) of the `size`, bilinear, smoothed where it shrinks."""
    left, top, width, height = box
    part = pixels[None, :, top : top + height, left : left + width]
    if (width, height) == size:
        return part[0]
    # torch resizes bytes five times as fast where an image's channels lie side by side
    part = part.contiguous(memory_format=torch.channels_last)
    return interpolate(part, size=size[::-1], mode="bilinear", antialias=True)[0]


@contextmanager
def _opened(image: Encoded, name: str) -> Iterator[tuple[Image.Image, BinaryIO | None]]:
    """An image whose pixels are not yet read, and its file; BrokenImage for whatever is wrong, then or in the block."""
    try:
        if isinstance(image, Tensor | Image.Image):
            yield to_pil_image(image) if isinstance(image, Tensor) else image, None
            return
        # of a path, Pillow maps a turned TIFF awry
        with BytesIO(image) if isinstance(image, bytes) else image.open("rb") as file, Image.open(file) as found:
            yield found, file
    except (UserError, MemoryError):
        raise
    except Exception as error:  # damaged files raise errors of every kind
        reason = f" is a broken image: {str(error).rstrip('.') or type(error).__name__}"
        if isinstance(error, UnidentifiedImageError):
            reason = ": no image that can be read"
        elif isinstance(error, OSError) and error.filename:
            reason = f" can't be opened: {error.strerror}"
        advice = "Bring it back" if isinstance(error, FileNotFoundError) else "Replace or remove it"
        raise BrokenImage(f"{name}{reason}. {advice}.") from error


def _shown(image: Image.Image, file: BinaryIO | None) -> tuple[int, int]:
    # Pillow decodes a PNG to look for EXIF behind its pixels, and gives a TIFF's size as it is turned by its tag
    plain = image.format == "PNG" and file is not None and not _ORIENTED_PNG.search(_whole(file))
    is_turned = ExifTags.Base.Orientation in getattr(image, "tag_v2", {})
    return image.size if plain or is_turned or orientation(image) not in (5, 6, 7, 8) else image.size[::-1]


def _whole(file: BinaryIO) -> bytes:
    position = file.tell()  # from which Pillow reads on
    file.seek(0)
    content = file.read()
    file.seek(position)
    return content


def _reduce(jpeg: Image.Image, box: Box, size: tuple[int, int]) -> int:
    """Have it decoded at 1/2, 1/4 or 1/8, which its cosines give sooner, if that is enough; gives that step."""
    width, steps = jpeg.width, min(box[2] // size[0], box[3] // size[1])
    if steps > 1:
        jpeg.draft(None, (width // steps, jpeg.height // steps))
    return round(width / jpeg.width)


def _by_libjpeg(image: Image.Image, file: BinaryIO, channels: int) -> Tensor | None:
    """What Pillow would make of a JPEG, sooner; None for what torchvision can't read, or reads otherwise."""
    if (channels, image.mode) not in ((1, "L"), (3, "L"), (3, "RGB")):
        return None
    data = torch.frombuffer(bytearray(_whole(file)), dtype=torch.uint8)
    with suppress(RuntimeError):  # Pillow says what is wrong with it
        return turned(decode_jpeg(data, ImageReadMode.RGB if channels == 3 else ImageReadMode.GRAY), orientation(image))
    return None


def _box(shown: tuple[int, int], size: tuple[int, int], fit: Fit, cut: Cut | None) -> Box:
    """What is left of an image: what `cut` says, or its largest middle part of the size's shape, or all."""
    if cut:
        return cut(*shown)
    width, height = shown
    if fit == "crop":
        width = max(min(width, round(height * size[0] / size[1])), 1)
        height = max(min(height, round(width * size[1] / size[0])), 1)
    return (shown[0] - width) // 2, (shown[1] - height) // 2, width, height


def _padded(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """The whole image in the middle of its edge's median colour."""
    height, width = pixels.shape[1:]
    edge = torch.cat([pixels[:, 0], pixels[:, -1], pixels[:, :, 0], pixels[:, :, -1]], dim=1)  # (C, P)
    scale = min(size[0] / width, size[1] / height)
    inner = resized(pixels, (0, 0, width, height), (max(round(width * scale), 1), max(round(height * scale), 1)))
    ground = edge.median(1).values[:, None, None].expand(-1, size[1], size[0]).clone()
    top, left = (size[1] - inner.shape[1]) // 2, (size[0] - inner.shape[2]) // 2
    ground[:, top : top + inner.shape[1], left : left + inner.shape[2]] = inner
    return ground
