"""What a network answered for labelled images, and what can be read off it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torchmetrics.functional.classification import multiclass_confusion_matrix

from src.data.images import ImageSet


class ClassScores(NamedTuple):
    """Of one class: how many images, and precision, recall and F1 in 0..1, None where there is nothing to divide by."""

    name: str
    images: int
    precision: float | None
    recall: float | None
    f1: float | None


class Calibration(NamedTuple):
    """By bins of confidence, each float (bins,), NaN for an empty bin; `error` is the expected calibration error
    (Naeini, Cooper, Hauskrecht 2015), the mean distance of confidence and accuracy over all answers."""

    counts: Tensor
    confidence: Tensor
    accuracy: Tensor
    error: float


@dataclass(frozen=True)
class Answers:
    """`logits` float32 (N, K) for N labelled `images` of K `classes`; `split` says whose they are."""

    images: ImageSet
    logits: Tensor
    classes: list[str]
    split: str

    def __len__(self) -> int:
        return len(self.logits)

    @property
    def labels(self) -> Tensor:  # int64 (N,)
        return self.images.labels

    @cached_property
    def probabilities(self) -> Tensor:  # float32 (N, K)
        return self.logits.softmax(1)

    @cached_property
    def predicted(self) -> Tensor:  # int64 (N,)
        return self.logits.argmax(1)

    @cached_property
    def confidence(self) -> Tensor:  # in the class answered, float32 (N,)
        return self.probabilities.amax(1)

    @cached_property
    def right(self) -> Tensor:  # bool (N,)
        return self.predicted == self.labels

    @property
    def accuracy(self) -> float:
        return float(self.right.sum() / len(self))  # in float32, as torchmetrics has it

    @cached_property
    def loss(self) -> float:
        """Mean cross-entropy."""
        return float(cross_entropy(self.logits.double(), self.labels))

    @cached_property
    def matrix(self) -> Tensor:
        """int64 (K, K): true class, class answered."""
        return multiclass_confusion_matrix(self.predicted, self.labels, len(self.classes), validate_args=False)

    def mistakes(self, count: int) -> Tensor:
        """Indices int64 of up to `count` wrong answers, the most confident first."""
        indices = (~self.right).nonzero().flatten()
        return indices[self.confidence[indices].argsort(descending=True, stable=True)[:count]]

    def successes(self, count: int) -> Tensor:
        """Indices int64 of up to `count` right answers from all over the set."""
        indices = self.right.nonzero().flatten()
        return indices[torch.linspace(0, len(indices) - 1, min(count, len(indices))).round().long()]

    def per_class(self) -> list[ClassScores]:
        """In the order of the classes."""
        rows = []
        counts = torch.stack([self.matrix.diag(), self.matrix.sum(0), self.matrix.sum(1)], 1).tolist()
        for name, (right, answered, images) in zip(self.classes, counts, strict=True):
            scores = [right / total if total else None for total in (answered, images, (answered + images) / 2)]
            rows.append(ClassScores(name, images, *scores))
        return rows

    def calibration(self, bins: int = 10) -> Calibration:
        """By equally wide bins of confidence."""
        index = (self.confidence * bins).long().clamp(0, bins - 1)  # NaN comes out negative
        counts = torch.bincount(index, minlength=bins)
        confidence = torch.bincount(index, self.confidence.double(), bins) / counts
        accuracy = torch.bincount(index, self.right.double(), bins) / counts
        distance = ((confidence - accuracy).abs() * counts).nansum() / len(self)
        return Calibration(counts, confidence, accuracy, float(distance))
