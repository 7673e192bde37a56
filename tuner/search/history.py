"""History: how trials went, as samplers must know it, and which of many a model is fitted on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import optuna
from optuna.trial import TrialState, create_trial

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


def thin(history: Sequence[Told | None], objectives: Sequence[Objective]) -> list[int]:
    """Places of the trials that a model is fitted on: the open ones, the best, and an even spread of the rest."""
    good = _best(history, objectives)
    rest = sorted({place for place, told in enumerate(history) if told is not None} - set(good))
    still_open = [place for place, told in enumerate(history) if told is None]
    return sorted([*still_open, *good, *_spread(rest, FITTED - len(good))])


def _best(history: Sequence[Told | None], objectives: Sequence[Objective]) -> list[int]:
    """The best that finished: of one objective in order, of several those on the front; what keeps the rules first."""
    finished = [(place, told) for place, told in enumerate(history) if told is not None and told.complete]
    found = [item for item in finished if not item[1].violation]
    if len(objectives) > 1:
        study = optuna.create_study(directions=["maximize" if o.mode == "max" else "minimize" for o in objectives])
        study.add_trials([create_trial(state=TrialState.COMPLETE, values=list(told.values)) for _, told in found])
        return _spread([found[trial.number][0] for trial in study.best_trials], GOOD)
    finished.sort(key=lambda item: (item[1].violation, -objectives[0].sign * item[1].values[0]))
    return [place for place, _ in finished[:GOOD]]


def _spread(places: list[int], most: int) -> list[int]:
    """At most so many of them, evenly."""
    return places[:: max(1, -(-len(places) // most))]
