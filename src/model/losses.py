"""What training makes small: logits (B, K) and labels in, a number out. What is scored stays plain cross-entropy.

Labels are classes int64 (B,), or shares of them float (B, K), as augmentation that mixes images gives them.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.config.schema import Fraction, NonNegativeFloat


class CrossEntropy(nn.Module):
    """With `class_weights`, one a class, or `balanced`: each class in training then weighs the same in all.

    A weight counts beside the mean weight of the training's images, so that the loss of a batch is a mean over its
    images: torch's divides by the weights of the batch, and depends on how images are divided into batches.
    """

    weight: Tensor | None

    def __init__(
        self,
        class_counts: list[int],
        label_smoothing: Fraction = 0.0,
        class_weights: Literal["balanced"] | list[NonNegativeFloat] | None = None,
    ) -> None:
        super().__init__()
        counts = torch.tensor(class_counts, dtype=torch.float32)
        weight = counts.sum() / (len(counts) * counts) if class_weights == "balanced" else class_weights
        if isinstance(weight, list):
            if len(weight) != len(counts):
                raise ValueError(f"loss.class_weights has {len(weight)} numbers: expected {len(counts)}, one a class")
            weight = torch.tensor(weight) * counts.sum() / (torch.tensor(weight) @ counts)
        self.register_buffer("weight", weight, persistent=False)
        self.label_smoothing = label_smoothing

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        smoothing = self.label_smoothing
        return F.cross_entropy(logits, labels, self.weight, reduction="sum", label_smoothing=smoothing) / len(logits)


def focal(logits: Tensor, labels: Tensor, gamma: NonNegativeFloat = 2.0) -> Tensor:
    """Cross-entropy that leaves out what is known well already (Lin et al. 2017, Focal Loss, equation 4)."""
    shares = F.one_hot(labels, logits.shape[1]) if labels.ndim == 1 else labels
    log = logits.log_softmax(1)
    return -((1 - log.exp()) ** gamma * log * shares).sum(1).mean()
