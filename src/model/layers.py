"""Layers of any network, found by what they are."""

from __future__ import annotations

from torch import Tensor, nn


def convolutions(network: nn.Module) -> list[nn.Conv2d]:
    """In the order in which the network holds them."""
    return [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]


def first_filters(network: nn.Module) -> Tensor | None:
    """The kernels of the first convolution, float (N, C, h, w); None where there is no such layer."""
    found = convolutions(network)
    return found[0].weight.detach().float().cpu() if found else None
