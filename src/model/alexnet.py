"""AlexNet in both of its usual forms."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.config.schema import Fraction, NonNegativeInt, PositiveInt


class AlexNet(nn.Module):
    """Five convolutions and three linear layers (Krizhevsky, Sutskever, Hinton 2012).

    The widths 64-192-384-256-256 with padding 2 are those of "One weird trick for parallelizing convolutional neural
    networks" (Krizhevsky 2014); 96-256-384-384-256 without padding are the first paper's, where batch normalization
    (Ioffe, Szegedy 2015) stands in for local response normalization. `padding` is the first convolution's. Raises
    ValueError if there are not five widths, or (when called) if the images are so small that no map is left. Layers
    are named as torchvision's are, so that its published weights fit; as there, a map of another size than 6x6 is
    pooled to that, so that smaller images (`dataset.image_size=112`) cost less.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        widths: list[PositiveInt] = (64, 192, 384, 256, 256),  # type: ignore[assignment]
        hidden: PositiveInt = 4096,
        batch_norm: bool = False,
        padding: NonNegativeInt = 2,
        dropout: Fraction = 0.5,
    ) -> None:
        super().__init__()
        if len(widths) != 5:
            raise ValueError(f"model.widths={list(widths)}: AlexNet has 5 convolutions, so 5 widths are needed")
        self.padding = padding
        first, second, third, fourth, fifth = widths

        def conv(before: int, after: int, size: int, stride: int = 1, padding: int = 0) -> list[nn.Module]:
            layers: list[nn.Module] = [nn.Conv2d(before, after, size, stride, padding)]
            return [*layers, *([nn.BatchNorm2d(after)] if batch_norm else []), nn.ReLU(inplace=True)]

        self.features = nn.Sequential(  # for images of 227 pixels:
            *conv(in_channels, first, 11, stride=4, padding=padding),  # (B, first, 56, 56); 55 with padding 0
            nn.MaxPool2d(3, stride=2),  # (B, first, 27, 27)
            *conv(first, second, 5, padding=2),
            nn.MaxPool2d(3, stride=2),  # (B, second, 13, 13)
            *conv(second, third, 3, padding=1),
            *conv(third, fourth, 3, padding=1),
            *conv(fourth, fifth, 3, padding=1),
            nn.MaxPool2d(3, stride=2),  # (B, fifth, 6, 6)
        )
        self.classifier = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(fifth * 6 * 6, hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, num_classes),
        )
        self.features.apply(_initialize)

    def forward(self, images: Tensor) -> Tensor:
        """(B, in_channels, S, S) -> logits (B, num_classes)"""
        smallest = 67 - 2 * self.padding  # the strides 4, 2, 2 and 2 leave a map of 1x1
        if min(images.shape[-2:]) < smallest:
            taken = f"AlexNet takes images of {smallest} pixels a side and more"
            raise ValueError(f"dataset.image_size={images.shape[-1]}: with model.padding={self.padding}, {taken}")
        features = self.features(images)
        if features.shape[-2:] != (6, 6):
            features = F.adaptive_avg_pool2d(features, 6)
        return self.classifier(torch.flatten(features, 1))


def _initialize(layer: nn.Module) -> None:
    """Weights that keep the variance of rectified activations (He et al. 2015, section 2.2), biases zero."""
    # with torch's own choice, which the linear layers keep, five convolutions shrink the signal until training starts
    # on a plateau; with this one in the linear layers too, SGD at usual rates overshoots
    if isinstance(layer, nn.Conv2d) and layer.bias is not None:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        nn.init.zeros_(layer.bias)
