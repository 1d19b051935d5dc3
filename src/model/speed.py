"""How far from the machine's limit a run is: the work of an image, and the rate at which the machine can do it."""

from __future__ import annotations

import time

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

_DTYPES = {"32-true": torch.float32, "16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}


def flops_per_image(network: nn.Module, image: Tensor, training: bool = True) -> int | None:
    """Floating-point operations of one pass of `image` (1, C, S, S), forward and for training also back.

    By torch's counter: only products (convolutions and linear layers), a multiplication with its addition as two.
    Nothing is computed: the pass runs on tensors without data. None for a network that can't run without data.
    """
    state = {name: value.to("meta") for name, value in network.named_buffers()}
    for name, weight in network.named_parameters():
        state[name] = weight.detach().to("meta").requires_grad_(training)
    with FlopCounterMode(display=False) as counter:
        try:
            logits = functional_call(network, state, image.detach().to("meta"))
            if training:
                logits.sum().backward()
        # its course depends on values, or an operation has no shape rule: no reason to lose a finished run
        except (NotImplementedError, RuntimeError, TypeError, ValueError):
            return None
    return counter.get_total_flops()


def matmul_rate(device: torch.device, precision: str, patience: float = 0.5) -> float:
    """Floating-point operations a second of this machine: the best of many products of two square matrices.

    Args:
        patience: for how many seconds to try; a machine that others use has slow moments.
    """
    size = 2048 if device.type == "cpu" else 8192
    left, right = torch.randn(2, size, size, device=device, dtype=_DTYPES[precision])
    seconds: list[float] = []
    while len(seconds) < 5 or sum(seconds) < patience:  # the first product chooses the kernel and fetches memory
        wait(device)
        started = time.perf_counter()
        left @ right
        wait(device)
        seconds.append(time.perf_counter() - started)
    return 2 * size**3 / min(seconds)


def wait(device: torch.device) -> None:
    """Until the device has done what it was told."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
