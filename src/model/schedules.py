"""Learning rates over a run: each a function of the optimizer and its number of steps, taken step by step."""

from __future__ import annotations

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from src.config.schema import Fraction, NonNegativeFloat


def constant(optimizer: Optimizer, total_steps: int) -> LRScheduler:
    """The optimizer's rate throughout."""
    return LambdaLR(optimizer, lambda step: 1.0)


def cosine(optimizer: Optimizer, total_steps: int, warmup: Fraction = 0.2, final: Fraction = 0.0) -> LRScheduler:
    """Up in a line, then down half a cosine (Loshchilov, Hutter 2017, SGDR, section 3, without restarts)."""
    return one_cycle(optimizer, total_steps, warmup, 0.0, final)


def one_cycle(
    optimizer: Optimizer, total_steps: int, warmup: Fraction = 0.3, initial: Fraction = 0.04, final: Fraction = 1e-4
) -> LRScheduler:
    """Up for the fraction `warmup` of the steps from `initial` of the rate, then down half a cosine to `final` of it.

    Smith, Topin 2018 (Super-Convergence), as torch's OneCycleLR, but momentum is left alone.
    """
    rising = round(warmup * total_steps)

    def factor(at: int) -> float:
        if at < rising:
            return initial + (1 - initial) * (at + 1) / (rising + 1)
        done = min((at - rising) / max(total_steps - rising - 1, 1), 1.0)
        return final + (1 - final) * (1 + math.cos(math.pi * done)) / 2

    return LambdaLR(optimizer, factor)


def step(
    optimizer: Optimizer,
    total_steps: int,
    milestones: list[Fraction] = (0.5, 0.75),  # type: ignore[assignment]
    gamma: NonNegativeFloat = 0.1,
) -> LRScheduler:
    """Times `gamma` at each of `milestones`, fractions of the run."""
    return LambdaLR(optimizer, lambda at: gamma ** sum(at >= mark * total_steps for mark in milestones))
