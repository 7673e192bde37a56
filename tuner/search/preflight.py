"""What can be known before anything is spent: which configurations can be built, and how large models get."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from tuner.errors import BadInput, Infeasible
from tuner.spec.distributions import Choice, Int, LogInt, LogUniform, Plain
from tuner.spec.space import Choose, Parameter, Space, Start
from tuner.spec.trial_config import TrialConfig


@dataclass(frozen=True)
class Size:
    """Size of a model: trainable parameters, and multiply-adds of a forward pass of one image."""

    params: int
    multiply_adds: int


CountModel = Callable[[TrialConfig], Size]
"""Gives a configuration's size without training it; raises Infeasible where it cannot be built."""

SAMPLES = 200
"""Random configurations looked at; at this number a share of 5% is seen with its standard error of 1.5%."""


@dataclass(frozen=True)
class Preflight:
    """Smallest and largest model seen, a middle configuration, and the share of configurations that can be built."""

    smallest: Size
    largest: Size
    middle: TrialConfig
    feasible: float
    reason: str = ""
    epochs: int = 1
    batch_size: int = 1


def draw(parameter: Parameter, chance: random.Random) -> Plain:
    """One independent draw of a parameter, by its own distribution."""
    d = parameter.distribution
    if isinstance(d, Choice):
        return chance.choice(d.labels)
    grid = d.grid()
    if isinstance(d, LogUniform | LogInt):
        low, high = float(d.low), float(d.high)
        value: float = low * (high / low) ** chance.random()
        return max(int(low), min(int(high), round(value))) if isinstance(d, LogInt) else value
    if isinstance(d, Int) or grid is not None:
        assert grid is not None
        return chance.choice(grid)
    return chance.uniform(d.low, d.high)


def resolve(space: Space, choose: Choose) -> TrialConfig:
    """A configuration of the space.

    Raises:
        Infeasible: its values break a rule together, which the check of the file, linear in the options, let pass.
    """
    try:
        return space.resolve(choose)
    except BadInput as error:
        raise Infeasible(str(error)) from error


def look(space: Space, count: CountModel) -> Preflight:
    """Draw configurations, the one of all low ends and the one of all high ends too, and count their models.

    Raises:
        BadInput: none of them can be built, or a starting point cannot; the text gives the first reason.
    """
    chance = random.Random(space.fixed.seed)
    sizes: list[tuple[Size, TrialConfig]] = []
    reasons: list[str] = []
    drawn = 0

    def end(which: int) -> Callable[[Parameter], Plain]:
        return lambda p: p.distribution.values()[which]

    def by_chance(parameter: Parameter) -> Plain:
        return draw(parameter, chance)

    for start in space.starts:
        _check_start(space, start, count, chance)
    for choose in [end(0), end(-1), *[by_chance] * (SAMPLES if space.parameters else 0)]:
        try:
            config = resolve(space, choose)
            sizes.append((count(config), config))
            drawn += choose is by_chance
        except Infeasible as error:
            reasons.append(str(error))
    if not sizes:
        raise BadInput(f"no configuration of this space can be built: {reasons[0]}")
    sizes.sort(key=lambda pair: pair[0].multiply_adds)
    return Preflight(
        smallest=min((size for size, _ in sizes), key=lambda s: s.params),
        largest=max((size for size, _ in sizes), key=lambda s: s.params),
        middle=sizes[len(sizes) // 2][1],
        feasible=drawn / SAMPLES if space.parameters else 1.0,
        reason=reasons[0] if reasons else "",
        epochs=max(config.train.epochs for _, config in sizes),
        batch_size=max(config.train.batch_size for _, config in sizes),
    )


def _check_start(space: Space, start: Start, count: CountModel, chance: random.Random) -> None:
    """Refuse a starting point that cannot be built, whatever its open settings are."""
    reason = ""
    for _ in range(20):
        try:
            count(resolve(space, lambda p: start.fixed[p.name] if p.name in start.fixed else draw(p, chance)))
            return
        except Infeasible as error:
            reason = str(error)
    raise BadInput(f"search.start_from: {start.label} cannot be built: {reason}")
