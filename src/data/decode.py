"""One image file as the pixels that a data set holds: the same in training and in prediction."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from src.config.errors import UserError

MODES = {1: "L", 3: "RGB"}  # by channels


def read_image(path: Path, channels: int, size: tuple[int, int]) -> np.ndarray:
    """Read an image of any size, mode and orientation as uint8 (C, H, W) of the `size` (width, height).

    An image of another size is cut to the largest part in its middle that has this shape, and resized. What is
    transparent becomes white.

    Raises:
        UserError: it is no image, or a broken one.
    """
    with open_image(path) as image:
        try:
            whole = ImageOps.exif_transpose(image)
            return as_pixels(whole, channels, size, str(path))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise UserError(f"{path} is a broken image: {error}. Replace or remove it.") from error


def as_pixels(image: Image.Image, channels: int, size: tuple[int, int], name: str = "the image") -> np.ndarray:
    """The same of an image in memory; `name` is what an error calls it."""
    if channels not in MODES:
        raise UserError(f"{name}: files are read as 1 channel (grey) or 3 (colour), and this network takes {channels}.")
    whole = _opaque(_eight_bits(image, name)).convert(MODES[channels])
    if whole.size != size:
        whole = _cut(whole, size)
    return np.asarray(whole).reshape(size[1], size[0], channels).transpose(2, 0, 1)


def open_image(path: Path) -> Image.Image:
    """The image, its pixels not yet read; raises UserError if it is none."""
    try:
        return Image.open(path)
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        reason = "no image that can be read" if isinstance(error, UnidentifiedImageError) else error
        raise UserError(f"{path}: {reason}. Replace or remove it.") from error


def _eight_bits(image: Image.Image, name: str) -> Image.Image:
    """Pillow cuts deeper pixels off at 255; these are brought to 8 bits by their scale."""
    if image.mode == "F":
        raise UserError(f"{name}: its pixels are decimal numbers, whose range nobody knows. Save it with 8 or 16 bits.")
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image).astype(np.int64).clip(0, 65535) >> 8).astype(np.uint8))
    return image


def _opaque(image: Image.Image) -> Image.Image:
    """On white paper; what lies below transparent pixels is often black."""
    if not image.has_transparency_data:
        return image
    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)


def _cut(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The largest part in the middle that has the shape of `size`, resized to it."""
    width = min(image.width, image.height * size[0] / size[1])
    height = min(image.height, image.width * size[1] / size[0])
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.resize(size, Image.Resampling.BILINEAR, (left, top, left + width, top + height))
