"""What a search may vary, written in Hydra's notation, as Optuna's distributions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from src.config.compose import declared, parse
from src.config.errors import UserError

Params = dict[str, Any]


@dataclass(frozen=True)
class Dimension:
    """One key with its values; `texts` has each choice as it is written, where there are choices."""

    key: str
    distribution: BaseDistribution
    texts: dict[Any, str]

    @property
    def values(self) -> list[Any] | None:
        """All of them; None where they are not countable."""
        found = self.distribution
        if isinstance(found, CategoricalDistribution):
            return list(found.choices)
        if isinstance(found, IntDistribution):
            return list(range(found.low, found.high + 1, found.step))
        assert isinstance(found, FloatDistribution)
        if found.step is None:
            return [found.low] if found.single() else None
        return [found.low + found.step * n for n in range(round((found.high - found.low) / found.step) + 1)]

    @property
    def probes(self) -> list[Any]:
        """The values that tell whether a config takes them: every choice, or both ends."""
        found = self.distribution
        return list(found.choices) if isinstance(found, CategoricalDistribution) else [found.low, found.high]  # type: ignore[attr-defined]


class Space:
    """The keys that a search varies.

    Args:
        texts: key -> values as Hydra writes them: choice(a, b), range(1, 10), interval(0.0, 1.0), tag(log, interval(1,
            100)), int(interval(1, 9)).

    Raises:
        UserError: a value is none of these.
    """

    def __init__(self, texts: Mapping[str, str]) -> None:
        if not texts:
            raise UserError("search: there is nothing to vary. Name a key with choice(...) or interval(...).")
        self.texts = dict(texts)
        self.dimensions = [_dimension(key, str(text)) for key, text in texts.items()]

    @property
    def distributions(self) -> dict[str, BaseDistribution]:
        return {one.key: one.distribution for one in self.dimensions}

    @property
    def size(self) -> float:
        """How many points there are; infinite where a key has an interval of real numbers."""
        return math.prod(math.inf if one.values is None else len(one.values) for one in self.dimensions)

    def overrides(self, params: Params) -> list[str]:
        """The overrides that set a point; a group before the keys in it."""
        texts = [f"{one.key}={one.texts.get(params[one.key], params[one.key])}" for one in self.dimensions]
        return declared(texts)

    def fresh(self, taken: list[Params], seed: int) -> Params | None:
        """A point that is not among those `taken`, at random; None where all are. For spaces of finite size."""
        known = {tuple(params[one.key] for one in self.dimensions) for params in taken}
        if len(known) >= self.size:
            return None
        random = Random(seed)
        while True:
            point = tuple(random.choice(one.values or []) for one in self.dimensions)
            if point not in known:
                return {one.key: value for one, value in zip(self.dimensions, point, strict=True)}


def _dimension(key: str, text: str) -> Dimension:
    try:
        override: Override = parse([f"{key}={text}"])[0]
    except UserError as error:
        raise UserError(f"search.{key}={text}: {error}") from error
    value = override.value()
    try:
        if isinstance(value, ChoiceSweep):
            written = list(override.sweep_string_iterator())
            simple = [item if isinstance(item, int | float | str | bool) else None for item in value.list]
            choices = [text if item is None else item for item, text in zip(simple, written, strict=True)]
            return Dimension(key, CategoricalDistribution(choices), dict(zip(choices, written, strict=True)))
        if isinstance(value, RangeSweep):
            items = list(value.range())
            step = value.step
            kind = IntDistribution if all(isinstance(item, int) for item in items) else FloatDistribution
            return Dimension(key, kind(items[0], items[-1], step=step), {})  # type: ignore[arg-type]
        if isinstance(value, IntervalSweep):
            low, high, log = float(value.start or 0), float(value.end or 0), "log" in value.tags
            if isinstance(value.start, int) and isinstance(value.end, int):
                return Dimension(key, IntDistribution(int(low), int(high), log), {})
            return Dimension(key, FloatDistribution(low, high, log), {})
    except (ValueError, IndexError) as error:
        raise UserError(f"search.{key}={text}: {error}") from error
    raise UserError(f"search.{key}={text}: expected choice(...), range(...) or interval(...).")
