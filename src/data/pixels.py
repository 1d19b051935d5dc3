"""One image as pixels, whatever its mode, its bits, its transparency and the way that its camera was held."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import BITSPERSAMPLE, PHOTOMETRIC_INTERPRETATION, SAMPLEFORMAT
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from src.config.errors import UserError

MODES = {1: "L", 3: "RGB"}  # by channels
_TURNS: dict[int, Callable[[Tensor], Tensor]] = {  # by EXIF's orientation; from 5 on they swap width and height
    2: lambda pixels: pixels.flip(2),
    3: lambda pixels: pixels.flip(1, 2),
    4: lambda pixels: pixels.flip(1),
    5: lambda pixels: pixels.mT,
    6: lambda pixels: pixels.mT.flip(2),
    7: lambda pixels: pixels.mT.flip(1, 2),
    8: lambda pixels: pixels.mT.flip(1),
}


def as_pixels(image: Image.Image, channels: int, name: str = "the image") -> Tensor:
    """uint8 (C, H, W), turned as its camera says; what is transparent becomes white. UserError names it by `name`."""
    if channels not in MODES:
        raise UserError(f"{name}: files are read as 1 channel (grey) or 3 (colour), and this network takes {channels}.")
    tags = getattr(image, "tag_v2", {})
    signed = tags.get(SAMPLEFORMAT) == (2,) and tags.get(BITSPERSAMPLE) != (32,)  # of 32 bits, Pillow writes all so
    if image.mode == "F" or signed or (image.format == "FITS" and image.mode != "L"):
        reason = "its pixels are decimal or signed numbers, whose range nobody knows"
        raise UserError(f"{name}: {reason}. Save it with 8 or 16 bits, unsigned.")
    _load_pixels(image)  # before its orientation: a TIFF is turned by it, a PNG may have its EXIF at the end
    turn = orientation(image)
    if image.mode.startswith("I"):
        image = _with_8_bits(image, name)
    if image.has_transparency_data:  # what lies below transparent pixels is often black
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    image = image.convert("RGB") if image.mode == "LAB" else image  # the one mode that Pillow can't make grey
    return turned(pil_to_tensor(image.convert(MODES[channels])), turn)


def turned(pixels: Tensor, orientation: Any) -> Tensor:
    """uint8 (C, H, W) as it is shown, by the number that EXIF has for how it lies."""
    return _TURNS[orientation](pixels) if orientation in _TURNS else pixels


def orientation(image: Image.Image) -> Any:
    """1 to 8, as EXIF or XMP has it, or whatever else stands there."""
    with suppress(Exception):  # the picture is whole though its EXIF is not
        return image.getexif().get(ExifTags.Base.Orientation)
    return None


def _load_pixels(image: Image.Image) -> None:
    """Pillow brings a PNG's pixels to 8 bits, and not the level or the colour that stands for transparent."""
    tile = getattr(image, "tile", None)
    bits = str(tile[0].args) if tile else ""
    image.load()
    scale, clear = {"L;2": 85, "L;4": 17, "RGB;16B": 1 / 256}.get(bits), image.info.get("transparency")
    if scale and clear is not None:
        scaled = [int(level * scale) for level in np.atleast_1d(clear)]
        image.info["transparency"] = tuple(scaled) if len(scaled) > 1 else scaled[0]


def _with_8_bits(image: Image.Image, name: str) -> Image.Image:
    """Of whole numbers with more bits, which Pillow would cut off at 255.

    Of 32 bits nobody knows the range: they are taken for 8 where all of them fit, for 16 where those do.
    """
    levels, tags = np.asarray(image).astype(np.int32), getattr(image, "tag_v2", {})
    opaque = Image.fromarray(levels != image.info.get("transparency"))
    if levels.min() < 0 or levels.max() > 65535:
        reason = "its pixels are whole numbers beyond 0 to 65,535, whose range nobody knows"
        raise UserError(f"{name}: {reason}. Save it with 8 or 16 bits.")
    if image.mode != "I" or image.format == "PPM" or levels.max() > 255:
        levels >>= 4 if tags.get(BITSPERSAMPLE) == (12,) else 8
    if tags.get(PHOTOMETRIC_INTERPRETATION) == 0:  # white is 0, which Pillow heeds up to 8 bits only
        levels = 255 - levels
    grey = Image.fromarray(levels.astype(np.uint8))
    if "transparency" in image.info:
        grey.putalpha(opaque)
    return grey
