"""Rungs: asynchronous successive halving, stopping form (Li et al., 2020, arXiv:1810.05934).

A trial that reaches a rung goes on when it is among the best 1/factor of all that have reached it so far. One value a
trial and rung, at exactly the rung's epoch, whatever order results come in. A value that is not a number is the worst.
Equal values go on together: among trials that are all at chance level none is stopped for arriving later.
"""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass, field

from tuner.spec.trial_config import Asha


@dataclass(frozen=True)
class Verdict:
    """What a rung said about a trial."""

    stop: bool
    reason: str = ""


@dataclass
class Rungs:
    """The rungs of one search. `full`: full training length in epochs. `sign`: +1 to maximise, -1 to minimise."""

    config: Asha
    full: int
    sign: int
    _values: dict[int, list[float]] = field(default_factory=dict)
    _seen: set[tuple[int, str]] = field(default_factory=set)

    def milestones(self) -> list[int]:
        """Epochs at which trials are judged: grace, grace * factor, ... below the full length."""
        found, epoch = [], self.config.grace
        while epoch < self.full:
            found.append(epoch)
            epoch *= self.config.factor
        return found

    def judge(self, trial: str, epoch: int, value: float) -> Verdict:
        """Enter a trial's value at an epoch and say whether it stops there; O(log n) by sorted rungs.

        Epochs that are no rung, and a second value of the same trial at a rung, change nothing.
        """
        if epoch not in self.milestones() or (epoch, trial) in self._seen:
            return Verdict(False)
        self._seen.add((epoch, trial))
        score = self.sign * value if math.isfinite(value) else -math.inf
        rung = self._values.setdefault(epoch, [])
        bisect.insort(rung, score)
        keep = max(1, len(rung) // self.config.factor)  # the first to arrive goes on: there is nobody to lose to
        if score > -math.inf and score >= rung[-keep]:
            return Verdict(False)
        better = len(rung) - bisect.bisect_right(rung, score)
        share = f"the best {keep}" if keep > 1 else "the best"
        return Verdict(True, f"rung at epoch {epoch}: {better} of {len(rung)} were better, {share} went on")
