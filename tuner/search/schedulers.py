"""Schedulers by name: which trial stops early. Each hears (trial, epoch, score) and knows nothing else of a trial."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from tuner.search.median import MedianRule
from tuner.search.rungs import Brackets, Rungs, Verdict
from tuner.spec.search import Asha, Hyperband, Median, NoScheduler, Pbt

__all__ = ["SCHEDULERS", "Scheduler", "Verdict", "make_scheduler"]


class Scheduler(Protocol):
    """Judges trials as their scores come in, in any order.

    Each trial and epoch counts once, at or beyond the full length nobody is stopped, and the same scores in the same
    order get the same verdicts: judging a recorded history again rebuilds a scheduler.
    """

    def judge(self, trial: str, epoch: int, score: float) -> Verdict:
        """Enter a score, larger is better and what is not finite the worst; whether the trial stops there."""


class ToTheEnd:
    """Stops nobody: for `none`, and for `pbt`, whose population changes trials instead."""

    def judge(self, trial: str, epoch: int, score: float) -> Verdict:
        """Let it go on."""
        return Verdict(False)


def asha(config: Asha, full: int, seed: int) -> Brackets:
    """Successive halving in `brackets` brackets of equal size; bracket b, from 0, has grace * factor^b.

    A bracket whose grace would reach the full length stops nobody and does not exist, but for the first.
    """
    graces = [config.grace * config.factor**b for b in range(config.brackets)]
    graces = graces[:1] + [grace for grace in graces[1:] if grace < full]
    brackets = [Rungs(Asha(grace=grace, factor=config.factor), full) for grace in graces]
    return Brackets(brackets, [1] * len(brackets), seed)


def hyperband(config: Hyperband, full: int, seed: int) -> Brackets:
    """Asynchronous Hyperband (Li et al., 2018, arXiv:1603.06560; 2020, arXiv:1810.05934).

    Bracket s, from s_max = floor(log_factor(full / grace)) down to 0, stops at s rungs, the first at
    grace * factor^(s_max - s) epochs; s = 0 trains all to the end. Trials spread over them as Hyperband's
    n_s = ceil((s_max + 1) / (s + 1) * factor^s), which would cost each bracket the same.
    """
    grace, factor = config.grace, config.factor
    most = 0  # s_max, without a logarithm's rounding: log(243, 3) is below 5
    while grace * factor ** (most + 1) <= full:
        most += 1
    top = grace * factor**most  # no rung from here on, also where the full length is a little longer
    order = range(most, -1, -1)
    brackets = [Rungs(Asha(grace=grace * factor ** (most - s), factor=factor), top) for s in order]
    return Brackets(brackets, [-(-(most + 1) * factor**s // (s + 1)) for s in order], seed)


SCHEDULERS: dict[str, Callable[[Any, int, int], Scheduler]] = {
    "none": lambda config, full, seed: ToTheEnd(),
    "asha": asha,
    "hyperband": hyperband,
    "median": lambda config, full, seed: MedianRule(config, full),
    "pbt": lambda config, full, seed: ToTheEnd(),
}


def make_scheduler(config: NoScheduler | Asha | Hyperband | Median | Pbt, *, full: int, seed: int) -> Scheduler:
    """The scheduler of a search whose trials train `full` epochs; `seed` spreads trials over brackets."""
    return SCHEDULERS[config.name](config, full, seed)
