"""Until: whether the search goes on asking for trials, where `search.until` says that they must be worth it.

What is worth it is for somebody else to say, by the function that is handed down; here is what it is told. All of that
is a fold over the run's lines, so that a resumed run judges as it would have.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from tuner.errors import BadInput
from tuner.runner.trial import Goal, Trial
from tuner.spec.search import AnySampler, Pbt, Search

LEAST = 20
"""Trials that end before it is judged at all; and twice as many as the sampler draws at random at first.

What is judged then is the gain of as many again. That of the next ten is soon below the noise of one result, while many
tens together are not: on simulated searches it ended them at a quarter of their trials, 3 to 4 points below their best
(benchmarks/worth.py).
"""

LEADERS = 5
"""Trials whose curves are told."""

PERCENT = 100
"""From twice so many trials on they are judged after each percent more: it takes a walk over all."""


class Enough(Protocol):
    """Says why `more` further trials are not worth it; an empty text where they are, or where it cannot tell."""

    def __call__(
        self,
        values: Sequence[float],
        *,
        maximise: bool,
        more: int,
        metric: str,
        repeats: Sequence[float],
        validation: int | None,
        curves: Sequence[Sequence[float]],
    ) -> str:
        """values: a trial that ended each, in that order; NaN for one whose value is not known."""


@dataclass(frozen=True)
class Until:
    """Judges by `enough` as soon as `least` trials have ended."""

    enough: Enough
    goal: Goal
    least: int
    validation: int

    def says(self, ended: Sequence[Trial], repeats: Sequence[Trial]) -> str:
        """Why there is no need of another trial, empty while there is; `ended`: in the order in which they did."""
        if len(ended) < self.least:
            return ""
        first = self.goal.first
        done = [trial for trial in ended if trial.best and trial.state == "finished"]
        best = max((first.score(trial.best) for trial in done), default=math.inf)
        known = {trial.id for trial in done}  # a trial that was stopped may lead all the same
        known |= {trial.id for trial in ended if trial.state == "stopped" and first.score(trial.best) > best}
        leaders = sorted(done, key=lambda trial: first.score(trial.best), reverse=True)[:LEADERS]
        return self.enough(
            [float(trial.best[first.metric]) if trial.id in known else math.nan for trial in ended],
            maximise=first.mode == "max",
            more=len(ended),
            metric=first.metric,
            repeats=[float(trial.best[first.metric]) for trial in repeats if trial.best and trial.state == "finished"],
            validation=self.validation,
            curves=[list(trial.curve.values()) for trial in leaders],
        )


def least_trials(sampler: AnySampler) -> int:
    """How many trials must have ended before it is judged."""
    return max(LEAST, 2 * getattr(sampler, "startup_trials", 0))


def check_until(search: Search, sampler: AnySampler) -> None:
    """See that `search.until` can end the search before all its trials are done.

    Raises:
        BadInput: it cannot.
    """
    if search.until is None:
        return
    if isinstance(search.scheduler, Pbt):
        raise BadInput("search.until: worth ends a search that asks for trials; a population (pbt) begins all at once")
    if search.trials <= (least := least_trials(sampler)):
        raise BadInput(
            f"search.until: worth is judged when {least} trials have ended, and search.trials is {search.trials}; "
            f"say how many there may be at most: --trials {10 * least}"
        )


def due(ended: int) -> bool:
    """Whether to judge now that so many have ended."""
    return ended % max(1, ended // PERCENT) == 0
