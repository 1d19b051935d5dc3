"""What a network answered for labelled images, and what can be read off it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor
from torchmetrics.functional.classification import multiclass_confusion_matrix

from src.data.images import ImageSet


class ClassScores(NamedTuple):
    """Of one class: how many images, and precision, recall and F1 in 0..1; precision is None if never answered."""

    name: str
    images: int
    precision: float | None
    recall: float | None
    f1: float | None


class Calibration(NamedTuple):
    """By bins of confidence, each float (bins,): how many answers, their mean confidence, how many of them are right.

    Empty bins have NaN. `error` is the expected calibration error (Naeini, Cooper, Hauskrecht 2015): the mean distance
    of confidence and accuracy over all answers.
    """

    counts: Tensor
    confidence: Tensor
    accuracy: Tensor
    error: float


@dataclass(frozen=True)
class Answers:
    """`probabilities` float32 (N, K) for N labelled `images` of K `classes`; `split` says whose they are."""

    images: ImageSet
    probabilities: Tensor
    classes: list[str]
    split: str

    def __len__(self) -> int:
        return len(self.probabilities)

    @property
    def labels(self) -> Tensor:
        """int64 (N,)"""
        return self.images.labels

    @cached_property
    def predicted(self) -> Tensor:
        """int64 (N,)"""
        return self.probabilities.argmax(1)

    @cached_property
    def confidence(self) -> Tensor:
        """The probability of the class answered, float32 (N,)"""
        return self.probabilities.amax(1)

    @cached_property
    def right(self) -> Tensor:
        """bool (N,)"""
        return self.predicted == self.labels

    @property
    def accuracy(self) -> float:
        return float(self.right.double().mean())

    @cached_property
    def matrix(self) -> Tensor:
        """int64 (K, K): true class, class answered."""
        return multiclass_confusion_matrix(self.predicted, self.labels, len(self.classes), validate_args=False)

    def mistakes(self, count: int) -> Tensor:
        """Places int64 of up to `count` wrong answers, the most confident first."""
        places = (~self.right).nonzero().flatten()
        return places[self.confidence[places].argsort(descending=True, stable=True)[:count]]

    def successes(self, count: int) -> Tensor:
        """Places int64 of up to `count` right answers from all over the set."""
        places = self.right.nonzero().flatten()
        return places[torch.linspace(0, len(places) - 1, min(count, len(places))).round().long()]

    def per_class(self) -> list[ClassScores]:
        """In the order of the classes."""
        right = self.matrix.diag()
        answered, true = self.matrix.sum(0), self.matrix.sum(1)
        rows = []
        for number, name in enumerate(self.classes):
            hits, said, there = (int(counts[number]) for counts in (right, answered, true))
            precision, recall = (hits / said if said else None), (hits / there if there else None)
            f1 = 2 * hits / (said + there) if said + there else None
            rows.append(ClassScores(name, there, precision, recall, f1))
        return rows

    def calibration(self, bins: int = 10) -> Calibration:
        """By equally wide bins of confidence."""
        place = (self.confidence * bins).long().clamp(0, bins - 1)  # NaN comes out negative
        counts = torch.bincount(place, minlength=bins)
        confidence = torch.bincount(place, self.confidence.double(), bins) / counts
        accuracy = torch.bincount(place, self.right.double(), bins) / counts
        distance = ((confidence - accuracy).abs() * counts).nansum() / len(self)
        return Calibration(counts, confidence, accuracy, float(distance))
