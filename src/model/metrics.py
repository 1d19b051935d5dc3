"""Metrics that torchmetrics has not: of classes int64 (B,) and logits (B, K), as its own are."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics.classification import MulticlassRecall


class LowestRecall(MulticlassRecall):
    """The recall of the class that is recognized least, of those that were there."""

    def __init__(self, num_classes: int, **options: Any) -> None:
        super().__init__(num_classes, average="none", **options)

    def compute(self) -> Tensor:
        there = torch.as_tensor(self.tp) + torch.as_tensor(self.fn) > 0
        return super().compute()[there].min()
