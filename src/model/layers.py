"""Layers of any network, found by what they are."""

from __future__ import annotations

from itertools import takewhile

import torch
from torch import Tensor, nn


def convolutions(network: nn.Module) -> list[nn.Conv2d]:
    """In the order in which the network holds them."""
    return [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]


def last_feature_maps(network: nn.Module, images: Tensor) -> nn.Module | None:
    """The layer that gives the maps of the last convolution that a pass over `images` comes through.

    Where layers that keep their shape come next, as normalization and activation do, it is the last of these.
    """
    passed: list[tuple[nn.Module, torch.Size]] = []
    layers = [layer for layer in network.modules() if not list(layer.children())]
    hooks = [layer.register_forward_hook(lambda layer, _, out: passed.append((layer, out.shape))) for layer in layers]
    try:
        with torch.inference_mode():
            network.forward(images)
    finally:
        for hook in hooks:
            hook.remove()
    last = max((place for place, (layer, _) in enumerate(passed) if isinstance(layer, nn.Conv2d)), default=None)
    if last is None:
        return None
    shape = passed[last][1]
    return [layer for layer, _ in takewhile(lambda one: one[1] == shape, passed[last:])][-1]


def first_filters(network: nn.Module) -> Tensor | None:
    """The kernels of the first convolution, float (N, C, h, w); None where there is no such layer."""
    found = convolutions(network)
    return found[0].weight.detach().float().cpu() if found else None
