"""Population-based training (Jaderberg et al., 2017, arXiv:1711.09846): who goes on from whose weights, changed how.

Pure decisions in rounds: all living members train to the same epoch and wait there; then each of the worst copies one
of the best. What is decided depends on scores and seed alone, not on who came first, so a replay decides the same.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tuner.errors import BadInput, Problem
from tuner.search.preflight import draw
from tuner.spec.distributions import Choice, Distribution, LogUniform, Plain, Uniform
from tuner.spec.search import Pbt
from tuner.spec.space import Parameter, Space
from tuner.spec.trial_config import MID_RUN, TrialConfig

ENOUGH = 4
"""Members of which one at least is replaced, however small the share."""

FACTORS = (0.8, 1.2)
"""A small change of a number, as in the paper."""


@dataclass(frozen=True)
class Exploit:
    """The trial goes on from the weights that `source` had at `epoch`, with these parameters."""

    trial: str
    source: str
    epoch: int
    parameters: Mapping[str, Plain]
    reason: str


class Population:
    """The members of one search. `size` of them are waited for; set it when fewer will join.

    The copied weights are those of the source's model, so a copy takes all parameters of the source, those that a trial
    that runs cannot change and those under the source's choices among them; then those of `mutable` change.
    """

    def __init__(self, space: Space, config: Pbt, *, size: int, full: int, seed: int) -> None:
        self.size = size
        self.waiting: dict[str, tuple[int, float]] = {}
        """Who has arrived, where, and with what score."""
        self._space = space
        self._config = config
        self._full = full
        self._seed = seed
        self._mutable = mutable(space, config)
        self._joined: set[str] = set()
        self._living: dict[str, Mapping[str, Plain]] = {}

    def join(self, trial: str, parameters: Mapping[str, Plain]) -> None:
        """A member begins."""
        self._joined.add(trial)
        self._living[trial] = dict(parameters)

    def enter(self, trial: str, epoch: int, score: float) -> bool:
        """A member has trained an epoch, with this score (larger is better); whether it waits here for the others.

        It waits at multiples of `every` below the full length. A second score there changes nothing.
        """
        if trial not in self._living or epoch % self._config.every or epoch >= self._full:
            return False
        if self.waiting.get(trial, (0, 0.0))[0] < epoch:
            self.waiting[trial] = (epoch, score if math.isfinite(score) else -math.inf)
        return True

    def leave(self, trial: str) -> None:
        """A member has ended, however: nobody waits for it or copies it."""
        self._living.pop(trial, None)
        self.waiting.pop(trial, None)

    def change(self, trial: str, parameters: Mapping[str, Plain]) -> None:
        """A member has other parameters now: a change that was decided, just now or before a crash."""
        if trial in self._living:
            self._living[trial] = dict(parameters)

    def decide(self) -> tuple[Exploit, ...] | None:
        """What changes in this round, the same however often asked before `release`.

        None while a member has not joined or a living one has not arrived.
        """
        if len(self._joined) < self.size or not self.waiting or self.waiting.keys() != self._living.keys():
            return None
        here = self._round()
        ranked = sorted(here, key=lambda trial: (-here[trial], trial))
        few = int(self._config.share * len(ranked) + 1e-9)  # 0.29 * 100 is below 29
        few = max(few, 1) if len(ranked) >= ENOUGH else few  # at most a half: nobody is both copied and replaced
        best = [trial for trial in ranked[:few] if here[trial] > -math.inf]
        worst = ranked[len(ranked) - few :] if best else []
        return tuple(self._exploit(trial, best, ranked) for trial in worst)

    def release(self) -> tuple[str, ...]:
        """End the round: its members, who go on, in the order in which they joined."""
        here = self._round()
        for trial in here:
            del self.waiting[trial]
        return tuple(trial for trial in self._living if trial in here)

    def _round(self) -> dict[str, float]:
        """Scores of those who wait at the earliest epoch: members that joined later catch up before they compare."""
        epoch = min((epoch for epoch, _ in self.waiting.values()), default=0)
        return {trial: score for trial, (at, score) in self.waiting.items() if at == epoch}

    def _exploit(self, trial: str, best: list[str], ranked: list[str]) -> Exploit:
        epoch = self.waiting[trial][0]
        chance = random.Random(f"{self._seed}/{epoch}/{trial}")
        source = chance.choice(best)
        parameters = self._explore(self._living[source], chance)
        place, better = ranked.index(trial) + 1, ranked.index(source) + 1
        reason = f"round at epoch {epoch}: place {place} of {len(ranked)}, goes on from {source} in place {better}"
        return Exploit(trial, source, epoch, parameters, reason)

    def _explore(self, source: Mapping[str, Plain], chance: random.Random) -> dict[str, Plain]:
        """The source's parameters, changed one by one, each where what results is a configuration for its weights.

        A value that breaks a rule with the others, or that a part of the model follows by `same_as`, stays as it is.
        """
        found, same = self._complete(source, chance)
        for parameter in self._mutable:
            if parameter.name not in source or parameter.name not in found:
                continue  # a choice that changed before it opened it, and drew it anew, or closed it
            value = self._changed(parameter, found[parameter.name], chance)
            try:
                tried, rest = self._complete({**found, parameter.name: value}, chance)
            except BadInput:
                continue
            if rest == same:
                found = tried
        return found

    def _changed(self, parameter: Parameter, value: Plain, chance: random.Random) -> Plain:
        if chance.random() < self._config.resample:
            return draw(parameter, chance)
        return perturb(parameter.distribution, value, chance)

    def _complete(self, values: Mapping[str, Plain], chance: random.Random) -> tuple[dict[str, Plain], dict[str, Any]]:
        """The parameters that exist with these values, new ones drawn, and what of the configuration must not change.

        Raises:
            BadInput: the values together break a rule.
        """
        found: dict[str, Plain] = {}

        def choose(parameter: Parameter) -> Plain:
            known = parameter.name in values
            found[parameter.name] = values[parameter.name] if known else draw(parameter, chance)
            return found[parameter.name]

        return found, _standing(self._space.resolve(choose))


def perturb(distribution: Distribution, value: Plain, chance: random.Random) -> Plain:
    """A value close to this one: a number times 0.8 or 1.2, at least a step away, clipped to the range.

    Of an ordered choice a neighbour, of another one any option.
    """
    d = distribution
    if isinstance(d, Choice):
        ordered = sorted(label for label in d.labels if isinstance(label, int | float)) if d.ordered else []
        if value not in ordered:
            return chance.choice(d.labels)
        at = ordered.index(value)
        return chance.choice(ordered[max(0, at - 1) : at] + ordered[at + 1 : at + 2] or [value])
    assert isinstance(value, int | float)
    factor = chance.choice(FACTORS)
    if isinstance(d, LogUniform) or (isinstance(d, Uniform) and d.step is None):
        return float(min(max(value * factor, d.low), d.high))
    step = d.step or 1
    at, target = round((value - d.low) / step), round((value * factor - d.low) / step)
    at = max(at + 1, target) if factor > 1 else min(at - 1, target)
    at = min(max(at, 0), round((d.high - d.low) / step))
    points = d.grid() if isinstance(d, Uniform) else None
    return points[at] if points else int(d.low + at * step)


def mutable(space: Space, config: Pbt) -> tuple[Parameter, ...]:
    """The searched parameters that a copy changes: those that `mutate` names, by name or path, else all that can.

    Raises:
        BadInput: `mutate` names what is not searched or cannot change in a trial that runs, or nothing can change.
    """
    may = [p for p in space.parameters if p.mid_run]
    if not may:
        rule = f"pbt changes settings of running trials, and none that can change is searched: {', '.join(MID_RUN)}"
        raise BadInput([Problem(space.source, 0, 0, f"search.scheduler: {rule}")])
    keys = dict.fromkeys(key for p in may for key in (p.name, p.path))
    searched = {key for p in space.parameters for key in (p.name, p.path)}
    problems = [
        f"{key}: {'cannot change in a trial that runs' if key in searched else 'is not searched in this space'}"
        for key in config.mutate or ()
        if key not in keys
    ]
    if config.mutate == ():
        problems = ["names nothing to change"]
    if problems:
        hint = f"those that can: {', '.join(keys)}"
        raise BadInput([Problem(space.source, 0, 0, f"search.scheduler.mutate: {p}; {hint}") for p in problems])
    named = config.mutate or tuple(keys)
    return tuple(p for p in may if p.name in named or p.path in named)


def _standing(config: TrialConfig) -> dict[str, Any]:
    """The configuration without what a trial that runs can change."""
    found = config.model_dump()
    for path in MID_RUN:
        *above, last = path.split(".")
        section: Any = found
        for key in above:
            section = section[key]
        section.pop(last, None)
    return found
