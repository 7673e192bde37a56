"""What can be known before anything is spent: which configurations can be built, and how large models get."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tuner.errors import BadInput, Infeasible
from tuner.spec.distributions import Choice, Distribution, LogInt, LogUniform, Plain, Uniform
from tuner.spec.objective import Constraint
from tuner.spec.space import Choose, Parameter, Space, Start
from tuner.spec.trial_config import TrialConfig


@dataclass(frozen=True)
class Size:
    """What a configuration costs, known without training it.

    params: trainable ones. multiply_adds: of a forward pass of one image. memory_mb: of training, estimated; model_mb:
    of the weights as stored; both in MiB.
    """

    params: int
    multiply_adds: int
    memory_mb: float = 0.0
    model_mb: float = 0.0

    @property
    def flops(self) -> int:
        """Floating-point operations of a forward pass of one image: a multiply-add is two."""
        return 2 * self.multiply_adds

    def as_dict(self) -> dict[str, float]:
        """By the names of the counted metrics."""
        return {
            "params": self.params,
            "flops": self.flops,
            "memory_mb": round(self.memory_mb, 3),
            "model_mb": round(self.model_mb, 4),
        }


CountModel = Callable[[TrialConfig], Size]
"""Gives a configuration's size without training it; raises Infeasible where it cannot be trained."""

FURTHER = 2000
"""Drawn when none of those can be trained: a share of one in a thousand is then found with 87%."""

SAMPLES = 200
"""Random configurations looked at; at this number a share of 5% is seen with its standard error of 1.5%."""


@dataclass(frozen=True)
class Preflight:
    """Smallest and largest model seen, a middle configuration, and the share of configurations that can be trained."""

    smallest: Size
    largest: Size
    middle: TrialConfig
    feasible: float
    reason: str = ""
    epochs: int = 1
    batch_size: int = 1
    work: tuple[int, int] = (0, 0)


class TooLarge(Infeasible):
    """A configuration that breaks a counted constraint; `excess` says by how much, as a share of the bound."""

    def __init__(self, text: str, excess: float) -> None:
        self.excess = excess
        super().__init__(text)


def keeping(count: CountModel, rules: Sequence[Constraint]) -> CountModel:
    """`count`, refusing what breaks one of the rules on counted metrics too."""
    counted = [rule for rule in rules if rule.counted]

    def checked(config: TrialConfig) -> Size:
        size = count(config)
        values = size.as_dict()
        for rule in counted:
            if (excess := rule.excess(values[rule.metric])) > 0:
                text = f"{rule.metric} {values[rule.metric]:,.10g} breaks {rule}"
                raise TooLarge(text, excess / max(abs(rule.bound), 1e-9))
        return size

    return checked


def at(distribution: Distribution, share: float) -> Plain:
    """The value below which this share (0 to 1) of a distribution lies."""
    d = distribution
    if isinstance(d, Choice):
        return d.labels[min(int(share * len(d.labels)), len(d.labels) - 1)]
    low, high = float(d.low), float(d.high)
    if isinstance(d, LogInt):
        low, high = low - 0.5, high + 0.5  # so that the ends are as likely as their neighbours suggest
    if isinstance(d, LogUniform | LogInt):
        value: float = low * (high / low) ** share
        return max(int(d.low), min(int(d.high), round(value))) if isinstance(d, LogInt) else min(value, float(d.high))
    if (count := d.count()) is None:
        return low + (high - low) * share
    place = min(int(share * count), count - 1)  # by arithmetic: a range may have more values than memory has room
    step: Plain = d.low + place * (d.step or 1)
    top: Plain = d.high  # no sum of rounding errors
    return top if isinstance(d, Uniform) and place == count - 1 else step


def draw(parameter: Parameter, chance: random.Random) -> Plain:
    """One independent draw of a parameter, by its own distribution."""
    return at(parameter.distribution, chance.random())


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
        BadInput: none of them can be trained, or a starting point cannot; the text says what came nearest.
    """
    chance = random.Random(space.fixed.seed)
    sizes: list[tuple[Size, TrialConfig]] = []
    refusals: list[Infeasible] = []
    drawn, kept = 0, 0

    def end(which: int) -> Callable[[Parameter], Plain]:
        return lambda p: p.distribution.values()[which]

    def by_chance(parameter: Parameter) -> Plain:
        return draw(parameter, chance)

    for start in space.starts:
        _check_start(space, start, count, chance)
    ways = [end(0), end(-1), *[by_chance] * (SAMPLES if space.parameters else 0)]
    for number, choose in enumerate([*ways, *[by_chance] * (FURTHER if space.parameters else 0)]):
        if number >= len(ways) and kept:
            break
        drawn += choose is by_chance
        try:
            config = resolve(space, choose)
            sizes.append((count(config), config))
            kept += choose is by_chance
        except Infeasible as error:
            refusals.append(error)
    if not sizes:
        nearest = min(refusals, key=lambda error: error.excess if isinstance(error, TooLarge) else math.inf)
        drawn_ones = f"of {len(refusals):,} drawn the nearest: {nearest}"
        raise BadInput(f"no configuration of this space can be trained; {drawn_ones}")
    reasons = [str(error) for error in refusals]
    sizes.sort(key=lambda pair: pair[0].multiply_adds)
    return Preflight(
        smallest=min((size for size, _ in sizes), key=lambda s: s.params),
        largest=max((size for size, _ in sizes), key=lambda s: s.params),
        middle=sizes[len(sizes) // 2][1],
        feasible=kept / drawn if drawn else 1.0,
        reason=reasons[0] if reasons else "",
        epochs=max(config.train.epochs for _, config in sizes),
        batch_size=max(config.train.batch_size for _, config in sizes),
        work=(sizes[0][0].multiply_adds, sizes[-1][0].multiply_adds),
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
    raise BadInput(f"search.start_from: {start.label} cannot be trained: {reason}")
