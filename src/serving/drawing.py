"""A drawing as MNIST's digits lie: in one size, at one place."""

from __future__ import annotations

import numpy as np
from PIL import Image

from src.data.image_folder import as_pixels

INK = 128  # of 255: paper is lighter
FILLED = 20 / 28  # of the image's side, by the longer side of a digit


def centre(drawing: Image.Image) -> Image.Image | None:
    """Dark strokes of any size anywhere on light or transparent paper, as a square grey image.

    As in MNIST (LeCun, Cortes, Burges: "size normalized to fit in a 20x20 pixel box", "center of mass at this
    point"), the longer side fills 20/28 of the image, and the middle of the ink lies in its middle. None if there is no
    ink.
    """
    grey = 255 - as_pixels(drawing, 1, drawing.size)[0]
    rows, columns = np.nonzero(grey.max(1) >= INK)[0], np.nonzero(grey.max(0) >= INK)[0]
    if not len(rows):
        return None
    ink = grey[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    side = round(max(ink.shape) / FILLED)
    paper = np.zeros((side, side), np.uint8)
    top, left = (_offset(ink.sum(axis), side) for axis in (1, 0))
    paper[top : top + ink.shape[0], left : left + ink.shape[1]] = ink
    return Image.fromarray(255 - paper)


def _offset(ink: np.ndarray, side: int) -> int:
    """Where ink, summed along the other axis, begins, so that its middle lies in the middle and nothing is cut off."""
    middle = np.average(np.arange(len(ink)) + 0.5, weights=ink)
    return int(np.clip(round(side / 2 - middle), 0, side - len(ink)))
