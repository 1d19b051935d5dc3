"""The networks of torchvision and of timm by their names, untrained, just as the libraries build them."""

from __future__ import annotations

import torch
from torch import nn
from torchvision import models

from src.config.architectures import TimmArchitecture, TorchvisionArchitecture
from src.config.schema import Fraction


def torchvision(in_channels: int, num_classes: int, arch: TorchvisionArchitecture) -> nn.Module:
    """(B, in_channels, S, S) -> logits (B, num_classes)"""
    # without heads for training alone; else a warning on what their weights will be in a later version
    heads = {"aux_logits": False, "init_weights": True} if arch in ("googlenet", "inception_v3") else {}
    network = models.get_model(arch, weights=None, num_classes=num_classes, **heads)
    first = next(layer for layer in network.modules() if isinstance(layer, nn.Conv2d))
    if in_channels != first.in_channels:
        # weights drawn from its own, at the same variance of what it answers
        drawn, shape = first.weight.detach().flatten(), (first.out_channels, in_channels, *first.kernel_size)
        weight = drawn[torch.randint(drawn.numel(), shape, device=drawn.device)]
        first.weight = nn.Parameter(weight * (first.in_channels / in_channels) ** 0.5)
        first.in_channels = in_channels
    return network


def timm(in_channels: int, num_classes: int, arch: TimmArchitecture, drop_rate: Fraction | None = None) -> nn.Module:
    """(B, in_channels, S, S) -> logits (B, num_classes); `drop_rate` null is the architecture's own."""
    from timm import create_model

    return create_model(arch, pretrained=False, num_classes=num_classes, in_chans=in_channels, drop_rate=drop_rate)


def _torchvision_size(arch: str) -> int:
    # some weights go with larger images than the architecture itself, none with smaller ones
    return min((weights.transforms().crop_size[0] for weights in models.get_model_weights(arch)), default=224)


def _timm_size(arch: str, **_: object) -> int:
    from timm.models import get_pretrained_cfg

    config = get_pretrained_cfg(arch)
    return config.input_size[-1] if config else 224


torchvision.image_size = _torchvision_size  # type: ignore[attr-defined]
timm.image_size = _timm_size  # type: ignore[attr-defined]
