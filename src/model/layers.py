"""Layers of any network, found by what they are."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def convolutions(network: nn.Module) -> list[nn.Conv2d]:
    """In the order in which the network holds them."""
    return [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]


def last_convolution(network: nn.Module, images: Tensor) -> nn.Conv2d | None:
    """The last one that a pass over `images` comes through; some layers work in training only."""
    passed: list[nn.Conv2d] = []
    hooks = [layer.register_forward_hook(lambda layer, *_: passed.append(layer)) for layer in convolutions(network)]
    try:
        with torch.inference_mode():
            network.forward(images)
    finally:
        for hook in hooks:
            hook.remove()
    return passed[-1] if passed else None


def first_filters(network: nn.Module) -> Tensor | None:
    """The kernels of the first convolution, float (N, C, h, w); None where there is no such layer."""
    found = convolutions(network)
    return found[0].weight.detach().float().cpu() if found else None
