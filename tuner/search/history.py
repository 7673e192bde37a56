"""History: how trials went, as samplers must know it, and which of many a model is fitted on."""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from tuner.spec.distributions import Plain
from tuner.spec.objective import Objective

State = Literal["finished", "stopped", "diverged", "failed", "out_of_memory", "interrupted"]

FITTED = 500
"""Trials that a model is fitted on; from twice as many on they are thinned to this number. In a space with branches TPE
takes 17 ms a question at 500 trials, 32 ms at 1,000 and 63 ms at 2,000."""

GOOD = 100
"""Of those, the best ones are all kept: TPE calls 25 at most good."""


@dataclass(frozen=True)
class Told:
    """How a trial went, as the sampler must know it.

    values: every objective at the best epoch, as measured; empty where there is none. curve: the first objective by
    epoch, finite values. excess: by how much the best epoch passes each measured constraint, 0 or less if not.
    """

    state: State
    values: tuple[float, ...] = ()
    curve: Mapping[int, float] = field(default_factory=dict)
    excess: Mapping[str, float] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether it trained to the end and has a number for every objective."""
        return self.state == "finished" and bool(self.values) and all(map(math.isfinite, self.values))

    @property
    def violation(self) -> float:
        """By how much it breaks the measured constraints together, as Optuna's samplers weigh it."""
        return sum(max(0.0, value) for value in self.excess.values())

    def sound(self, objectives: int, rules: Sequence[str]) -> Told:
        """What of it may be said: no value of what diverged or found no memory; every rule, kept if not measured.

        A gaussian process refuses trials with different rules, as those of another run may have.
        """
        if self.state in ("diverged", "out_of_memory", "failed"):
            return Told(self.state)
        values = self.values if len(self.values) == objectives else ()
        return replace(self, values=values, excess={rule: self.excess.get(rule, 0.0) for rule in rules})


class History:
    """Every trial in the order in which it was entered, its parameters and how it went, None while it is open.

    Which were best is kept up to date: with 100,000 trials behind it, looking at all of them would take half a second
    whenever the model is thinned.
    """

    def __init__(self, objectives: Sequence[Objective]) -> None:
        self.records: list[tuple[Mapping[str, Plain], Told | None]] = []
        self.finished = 0
        """Those that trained to the end."""
        self._objectives = objectives
        self._open: dict[int, None] = {}
        self._best: list[tuple[tuple[float, ...], int]] = []
        """Scores and places: of one objective the best `GOOD`, best first; of several the front."""

    def enter(self, parameters: Mapping[str, Plain], told: Told | None = None) -> int:
        """One more trial; its place."""
        place = len(self.records)
        self.records.append((parameters, None))
        self._open[place] = None
        if told:
            self.tell(place, told)
        return place

    def tell(self, place: int, told: Told) -> None:
        """Close a trial."""
        del self._open[place]
        self.records[place] = (self.records[place][0], told)
        if told.complete:
            self.finished += 1
            self._rank(place, told)

    def forget(self) -> None:
        """The last trial was none, and is still open."""
        self.records.pop()
        del self._open[len(self.records)]

    def thin(self) -> list[int]:
        """Places of the trials that a model is fitted on: the open ones, the best, and an even spread of the rest."""
        good = [place for _, place in self._best]
        if len(self._objectives) > 1:
            good = _spread(sorted(good), GOOD)
        taken = self._open.keys() | set(good)
        rest = [place for place in range(len(self.records)) if place not in taken]
        return sorted([*taken, *_spread(rest, FITTED - len(good))])

    def _rank(self, place: int, told: Told) -> None:
        """See whether it is one of the best that finished; what keeps the rules first."""
        scores = tuple(o.sign * value for o, value in zip(self._objectives, told.values, strict=True))
        if len(scores) == 1:
            bisect.insort(self._best, ((told.violation, -scores[0]), place))
            del self._best[GOOD:]
        elif not told.violation and not any(_beats(other, scores) for other, _ in self._best):
            self._best = [item for item in self._best if not _beats(scores, item[0])] + [(scores, place)]


def _beats(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(a >= b for a, b in zip(one, other, strict=True))


def _spread(places: list[int], most: int) -> list[int]:
    """At most so many of them, evenly."""
    return places[:: max(1, -(-len(places) // most))]
