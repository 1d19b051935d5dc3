"""How images are cut into training, validation and test sets."""

from __future__ import annotations

from dataclasses import replace
from textwrap import shorten

import torch
from torch import Tensor

from src.config.errors import UserError
from src.data.images import FIXED_SEED, Source, Splits

TEST_FRACTION = 0.1  # of images that come without a test set of their own


def limited(source: Source, count: int) -> Source:
    """The same with `count` of its training images, the same for every seed; raises UserError if there are fewer."""
    source = _with_test(source)
    return replace(source, train=source.train[stratified(source.train.labels, count)])


def stratified(labels: Tensor, count: int) -> Tensor:
    """Indices of `count` images, always the same, each class by its share; raises UserError if there are fewer."""
    if not 0 < count <= len(labels):
        raise UserError(f"{count} training images: expected a number from 1 to {len(labels)}, which there are.")
    return _cut(labels, count / len(labels), len(labels), FIXED_SEED)[1]


def split(source: Source, valid_fraction: float, seed: int) -> Splits:
    """Cut the validation set by `seed`, each class by its share, as `valid_fraction` of all images but official tests.

    Raises UserError if a class has too few images to stand in each set.
    """
    total, source = len(source.train), _with_test(source)
    train, valid, test = source.train, source.valid, source.test
    if valid is None:
        rest, chosen = _cut(train.labels, valid_fraction, total, seed)
        train, valid = train[rest], train[chosen]
    present = torch.bincount(train.labels, minlength=len(source.classes))
    if not valid or not test or int(present.min()) == 0:
        few = source.classes[int(present.argmin())]
        kept = f"{total} images are too few for three sets; class {few} keeps {int(present.min())} for training"
        raise UserError(f"dataset.valid_fraction={valid_fraction}: {kept}. Add images or change it.")
    seen = [torch.bincount(part.labels, minlength=len(source.classes)) for part in (valid, test)]
    unseen = [name for name, *counts in zip(source.classes, *seen, strict=True) if 0 in counts]
    few = f"of these classes, no image is left to validate or to test: {shorten(', '.join(unseen), 200)}"
    note = "\n       ".join(filter(None, [source.note, few if unseen else ""]))
    texts = note, source.fitted, source.held, source.sha256
    return Splits(train, valid, test, source.classes, source.origin, *texts)


def _with_test(source: Source) -> Source:
    """The same with a test set: its own, or a tenth of all images, the same for every seed."""
    if source.test is not None:
        return source
    rest, chosen = _cut(source.train.labels, TEST_FRACTION, len(source.train), FIXED_SEED)
    return replace(source, train=source.train[rest], test=source.train[chosen])


def _cut(labels: Tensor, fraction: float, total: int, seed: int) -> tuple[Tensor, Tensor]:
    """Indices of the rest and of the chosen part, `fraction` * `total` images, stratified by class: each gives its
    exact share rounded down, and those still missing come from the classes with the largest remainders."""
    counts = torch.bincount(labels)
    share = counts.double() * fraction * total / len(labels)
    take = share.floor().long()
    missing = round(fraction * total) - int(take.sum())
    take[(share - take).argsort(descending=True, stable=True)[: max(missing, 0)]] += 1
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    classes = order[labels[order].argsort(stable=True)].split(counts.tolist())  # each shuffled
    pairs = [indices.tensor_split([count]) for indices, count in zip(classes, take.tolist(), strict=True)]
    chosen, rest = (torch.cat(parts).sort().values for parts in zip(*pairs, strict=True))
    return rest, chosen
