"""A handwritten character in a photo, brought to how MNIST's digits lie."""

from __future__ import annotations

import numpy as np
from PIL import Image
from scipy import ndimage

SIDE = 800  # pixels of a photo's longer side, to which it is resized; the lengths below are of such a photo
STROKE, RULE = 160, 9  # the widest stroke of a pen, and the widest line of ruled paper
FILLED = 20 / 28  # of the side of MNIST's images, by a digit's longer side
PEN = 2.5 / 20  # of a digit's longer side: a stroke in MNIST is at least about as wide


def centre(grey: np.ndarray, dark: bool | None = None) -> tuple[bool, np.ndarray] | None:
    """Whether the ink in uint8 (H, W) is dark, and the character light on black, uint8 (S, S); None if there is no ink.

    As in MNIST (LeCun, Cortes, Burges), the longer side fills 20/28, and the ink's middle lies in the middle.
    """
    photo = Image.fromarray(grey)
    scale = SIDE / max(photo.size)
    photo = photo.resize([max(round(length * scale), 1) for length in photo.size], Image.Resampling.BILINEAR)
    if dark is None:  # ink is rare, and far from the level around it
        few = np.asarray(photo.reduce(16), np.float32)
        dark = bool(((few - ndimage.median_filter(few, 21)) ** 3).sum() <= 0)
    level = ndimage.gaussian_filter(np.asarray(photo, np.float32), 1)
    mask = find_character(find_ink(level if dark else 255 - level))
    return (dark, place(mask)) if mask.any() else None


def find_ink(level: np.ndarray) -> np.ndarray:
    """How much darker than the paper around it each pixel is, 0..1, in whatever light or shadow."""
    wide = np.pad(level, STROKE, mode="edge")  # a table beyond the paper goes on, and is no stroke
    paper = ndimage.grey_closing(wide, STROKE)[STROKE:-STROKE, STROKE:-STROKE]
    return 1 - level / paper.clip(1)


def find_character(ink: np.ndarray) -> np.ndarray:
    """The pixels of the character with the most ink, with strokes that lie apart, without rules and specks."""
    middle = np.median(ink)
    noise = 1.4826 * np.median(abs(ink - middle))  # the standard deviation, if it is Gaussian
    mask = ink > max(middle + 5 * noise, 0.06)
    for turned in (mask, mask.T):  # views of it
        turned &= ~find_rules(turned)
    if not mask.any():
        return mask
    mask &= ink > np.percentile(ink[mask], 95) / 2
    strokes, count = ndimage.label(ndimage.maximum_filter(mask, 9))
    weights = ndimage.sum_labels(mask, strokes, range(1, count + 1))
    at_edge = np.unique(np.r_[strokes[0], strokes[-1], strokes[:, 0], strokes[:, -1]])
    weights[at_edge[at_edge > 0] - 1] /= 30  # a finger, or the table
    boxes = np.array([[(side.start, side.stop) for side in box] for box in ndimage.find_objects(strokes)])
    main = boxes[weights.argmax()]
    margin = np.ptp(main, axis=1).max() // 5
    near = ((boxes - main) * [1, -1] >= -margin).all((1, 2))
    return mask & np.isin(strokes, 1 + np.flatnonzero(near & (weights >= weights.max() / 12)))


def find_rules(mask: np.ndarray) -> np.ndarray:
    """The lines of ruled paper, which are level within 12 degrees, but for what is too thick for one: ink across them.

    After the removal of staff lines from sheet music (Dalitz et al. 2008).
    """
    (height, width), (y, x) = mask.shape, mask.nonzero()
    slopes = np.tan(np.radians(np.arange(-12, 12.1, 0.25)))
    sharpness = [(np.bincount((y - slope * x + width).astype(int)) ** 2.0).sum() for slope in slopes]
    rises = np.round(slopes[np.argmax(sharpness)] * np.arange(width)).astype(int)
    rows = np.arange(-abs(rises).max(), height + abs(rises).max())[:, None] + rises  # each along a line
    inside = (rows >= 0) & (rows < height)
    level = mask[rows.clip(0, height - 1), np.arange(width)] & inside
    covered, possible = (
        ndimage.uniform_filter1d(part.astype(np.float32), width // 2 + 1, mode="constant")
        for part in (ndimage.maximum_filter1d(level, 5, axis=0) & inside, inside)
    )
    on_rule = np.zeros_like(mask)
    row, column = (inside & (covered > 0.85 * possible)).nonzero()
    on_rule[rows[row, column], column] = True
    thick = ndimage.grey_opening(mask.astype(np.uint8), (RULE + 1, 1)) > 0
    return mask & on_rule & ~thick


def place(mask: np.ndarray) -> np.ndarray:
    """The character as a square image, its strokes no thinner than a pen's in MNIST."""
    mask = mask[ndimage.find_objects(mask.astype(np.uint8))[0]]
    mask = np.pad(mask, longer := max(mask.shape))
    depth = ndimage.distance_transform_edt(mask)
    radius = np.median(depth[mask & (depth == ndimage.maximum_filter(depth, 3))])
    mask = ndimage.distance_transform_edt(~mask) <= max(PEN * longer / 2 - radius, 0)
    ink = mask[ndimage.find_objects(mask.astype(np.uint8))[0]]
    square = np.zeros([round(max(ink.shape) / FILLED)] * 2, np.uint8)
    corner = np.round(len(square) / 2 - 0.5 - np.array(ndimage.center_of_mass(ink)))  # middle in the middle,
    top, left = corner.clip(0, np.subtract(square.shape, ink.shape)).astype(int)  # as far as nothing is cut off
    square[top : top + ink.shape[0], left : left + ink.shape[1]] = 255 * ink
    return square
