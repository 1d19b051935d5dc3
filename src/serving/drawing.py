"""A drawing as MNIST's digits lie: in one size, at one position."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageOps

from src.data.decode import as_pixels

INK = 128  # of 255: paper is lighter
FILLED = 20 / 28  # of the image's side, by the longer side of a digit


def centre(drawing: Image.Image) -> Image.Image | None:
    """Dark strokes of any size anywhere on light or transparent paper, as a square grey image.

    As in MNIST (LeCun, Cortes, Burges: "size normalized to fit in a 20x20 pixel box", "center of mass at this
    point"), the longer side fills 20/28 of the image, and the middle of the ink lies in its middle. None if there is no
    ink.
    """
    light = Image.fromarray(255 - as_pixels(drawing, 1, drawing.size)[0])
    box = light.point(lambda level: 255 * (level >= INK)).getbbox()
    if box is None:
        return None
    ink = light.crop(box)
    side, weights = round(max(ink.size) / FILLED), np.asarray(ink)
    corner = []  # where the ink begins, so that its middle lies in the middle and nothing is cut off
    for axis, length in enumerate(ink.size):
        middle = np.average(np.arange(length) + 0.5, weights=weights.sum(axis))
        corner.append(int(np.clip(round(side / 2 - middle), 0, side - length)))
    paper = Image.new("L", (side, side))
    paper.paste(ink, (corner[0], corner[1]))
    return ImageOps.invert(paper)
