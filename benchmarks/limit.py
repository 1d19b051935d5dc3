"""How fast a machine could be at most: its own rate of matrix products, and the products that a network's images need.

It imports torch, as project.py does.
"""

from __future__ import annotations

from timeit import timeit

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

DTYPES = {"32-true": torch.float32, "16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}


def flops_per_image(network: nn.Module, image: Tensor, training: bool) -> int:
    """Floating-point operations of one pass of `image` (1, C, S, S), forward and for training also back, by torch's
    counter: only products, a multiplication with its addition as two."""
    weights = {
        name: weight.detach().to("meta").requires_grad_(training and weight.requires_grad)
        for name, weight in network.named_parameters()
    }
    state = {name: value.to("meta") for name, value in network.named_buffers()} | weights
    with FlopCounterMode(display=False) as counter:
        logits = functional_call(network, state, image.to("meta"))
        if training:
            logits.sum().backward()
    return counter.get_total_flops()


def matmul_rate(device: torch.device, precision: str, patience: float) -> float:
    """Floating-point operations a second: the best of products in `patience` seconds, as others may use the machine."""
    size = 2048 if device.type == "cpu" else 8192
    left, right = torch.randn(2, size, size, device=device, dtype=DTYPES[precision])
    seconds: list[float] = []

    def multiply() -> None:
        left @ right
        if device.type != "cpu":
            torch.accelerator.synchronize(device)

    while len(seconds) < 5 or sum(seconds) < patience:  # the first product chooses the kernel and fetches memory
        seconds.append(timeit(multiply, number=1))
    return 2 * size**3 / min(seconds)
