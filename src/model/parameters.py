"""Which weights an optimizer moves, and with which options."""

from __future__ import annotations

import re
from typing import Any

from torch import nn

from src.config.errors import UserError
from src.config.problems import nearest
from src.config.schema import OptimizerConfig

Parameters = list[tuple[str, nn.Parameter]]  # with their names


def trainable(classifier: nn.Module) -> Parameters:
    """Those of the network, named as it names them, and of a loss that has some, without what is frozen."""
    named = [(name.removeprefix("network."), weight) for name, weight in classifier.named_parameters()]
    return [(name, weight) for name, weight in named if weight.requires_grad]


def grouped(parameters: Parameters, config: OptimizerConfig) -> list[Any]:
    """What an optimizer is built on: all weights, or groups of them, each with a name and options of its own.

    Those that a pattern of the config matches, of which the first counts, then the others; of each, biases and
    normalizations, which have one dimension, by themselves if they are not to decay. Raises UserError if a pattern
    matches nothing.
    """
    if not config.groups and config.decay_bias_and_norm:
        return [weight for _, weight in parameters]
    named = [*(group.match for group in config.groups), "others"]
    options = [*(group.model_dump(exclude_none=True, exclude={"match"}) for group in config.groups), {}]
    chosen: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for name, weight in parameters:
        number = next((n for n, group in enumerate(config.groups) if re.search(group.match, name)), len(named) - 1)
        bare = weight.ndim <= 1 and not config.decay_bias_and_norm
        chosen.setdefault((number, bare), []).append(weight)
    for number, match in enumerate(named[:-1]):
        if number not in {n for n, _ in chosen}:
            near, example = nearest(match, [name for name, _ in parameters]), parameters[-1][0]
            raise UserError(f"optimizer.groups: {match!r} matches no weight. One is called {example}.{near}")
    return [
        {"params": weights, "name": named[number] + " without decay" * bare}
        | options[number]
        | ({"weight_decay": 0.0} if bare else {})
        for (number, bare), weights in sorted(chosen.items(), key=lambda item: item[0])
    ]
