"""One image as pixels, whatever its mode, its bits, its transparency and the way that its camera was held."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import BITSPERSAMPLE, PHOTOMETRIC_INTERPRETATION, SAMPLEFORMAT

from src.config.errors import UserError
from src.config.schema import Fit

MODES = {1: "L", 3: "RGB"}  # by channels
_TURNS = {  # by EXIF's orientation; from 5 on they swap width and height
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def as_pixels(
    image: Image.Image, channels: int, size: tuple[int, int] | None, name: str = "the image", fit: Fit = "crop"
) -> np.ndarray:
    """uint8 (C, H, W) of the `size` (width, height), to which it is brought as `fit` says, or of its own.

    It is turned as its camera says; what is transparent becomes white. UserError calls the image by its `name`.
    """
    if channels not in MODES:
        raise UserError(f"{name}: files are read as 1 channel (grey) or 3 (colour), and this network takes {channels}.")
    tags = getattr(image, "tag_v2", {})
    signed = tags.get(SAMPLEFORMAT) == (2,) and tags.get(BITSPERSAMPLE) != (32,)  # of 32 bits, Pillow writes all so
    if image.mode == "F" or signed or (image.format == "FITS" and image.mode != "L"):
        reason = "its pixels are decimal or signed numbers, whose range nobody knows"
        raise UserError(f"{name}: {reason}. Save it with 8 or 16 bits, unsigned.")
    _load_pixels(image)  # before its orientation: a TIFF is turned by it, a PNG may have its EXIF at the end
    turn = _TURNS.get(orientation(image))
    if image.mode.startswith("I"):
        image = _with_8_bits(image, name)
    if image.has_transparency_data:  # what lies below transparent pixels is often black
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    image = image.convert("RGB") if image.mode == "LAB" else image  # the one mode that Pillow can't make grey
    image = image.convert(MODES[channels])
    image = image if turn is None else image.transpose(turn)
    size = size or image.size
    image = image if image.size == size else _fitted(image, size, fit)
    return np.asarray(image).reshape(size[1], size[0], channels).transpose(2, 0, 1)


def _fitted(image: Image.Image, size: tuple[int, int], fit: Fit) -> Image.Image:
    """Its largest middle part of that shape, or the whole: in the middle of its edge's median colour, or stretched."""
    if fit == "pad":  # ImageOps.pad gives a thin line no height
        pixels, scale = np.asarray(image), min(size[0] / image.width, size[1] / image.height)
        edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])  # (P,) or (P, C)
        ground = Image.new(image.mode, size, tuple(np.atleast_1d(np.median(edge, 0)).astype(int).tolist()))
        inner = image.resize([max(round(side * scale), 1) for side in image.size], Image.Resampling.BILINEAR)
        ground.paste(inner, ((size[0] - inner.width) // 2, (size[1] - inner.height) // 2))
        return ground
    shape = size if fit == "crop" else image.size  # ImageOps.fit would begin between two pixels
    width = min(image.width, image.height * shape[0] / shape[1])
    height = min(image.height, image.width * shape[1] / shape[0])
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.resize(size, Image.Resampling.BILINEAR, (left, top, left + width, top + height))


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
