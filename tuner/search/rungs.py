"""Rungs: asynchronous successive halving, stopping form (Li et al., 2020, arXiv:1810.05934), and brackets of them.

A trial that reaches a rung goes on when it is among the best 1/factor of all that have reached it so far. One value a
trial and rung, at exactly the rung's epoch, whatever order results come in. A value that is not a number is the worst.
Equal values go on together: among trials that are all at chance level none is stopped for arriving later.
"""

from __future__ import annotations

import bisect
import itertools
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from tuner.spec.search import Asha


@dataclass(frozen=True)
class Verdict:
    """What a scheduler said about a trial."""

    stop: bool
    reason: str = ""


class Rungs:
    """The rungs at grace, grace * factor, ... below `full`, the full training length in epochs: one bracket."""

    def __init__(self, config: Asha, full: int) -> None:
        self.factor = config.factor
        self._rungs: dict[int, list[float]] = {}
        self._seen: set[tuple[int, str]] = set()
        epoch = config.grace
        while epoch < full:
            self._rungs[epoch] = []
            epoch *= config.factor

    def milestones(self) -> list[int]:
        """Epochs at which trials are judged."""
        return list(self._rungs)

    def judge(self, trial: str, epoch: int, score: float) -> Verdict:
        """Enter a trial's score (larger is better) at an epoch and say whether it stops there.

        O(log n) comparisons by sorted rungs. Epochs that are no rung, and a second score of the same trial at a rung,
        change nothing.
        """
        if epoch not in self._rungs or (epoch, trial) in self._seen:
            return Verdict(False)
        self._seen.add((epoch, trial))
        score = score if math.isfinite(score) else -math.inf
        rung = self._rungs[epoch]
        bisect.insort(rung, score)
        if score == -math.inf:
            return Verdict(True, f"rung at epoch {epoch}: its score is not a number")
        keep = max(1, len(rung) // self.factor)  # the first to arrive goes on: there is nobody to lose to
        if score >= rung[-keep]:
            return Verdict(False)
        better = len(rung) - bisect.bisect_right(rung, score)
        share = f"the best {keep}" if keep > 1 else "the best"
        return Verdict(True, f"rung at epoch {epoch}: {better} of {len(rung)} were better, {share} went on")


class Brackets:
    """Groups of trials that race among themselves; `shares` in proportion to how many trials each bracket gets.

    The bracket of a trial follows from a hash of seed and id alone: it is the same after a resume and in any order.
    """

    def __init__(self, brackets: Sequence[Rungs], shares: Sequence[int], seed: int) -> None:
        self.brackets = tuple(brackets)
        self.shares = tuple(shares)
        self._ends = list(itertools.accumulate(shares))
        self._seed = seed

    def bracket(self, trial: str) -> int:
        """Index of the bracket that a trial is in."""
        share = zlib.crc32(f"{self._seed}/{trial}".encode()) / 2**32
        return bisect.bisect_right(self._ends, share * self._ends[-1])

    def judge(self, trial: str, epoch: int, score: float) -> Verdict:
        """Judge a trial among those of its own bracket; see `Rungs.judge`."""
        index = self.bracket(trial)
        verdict = self.brackets[index].judge(trial, epoch, score)
        if not verdict.stop or len(self.brackets) == 1:
            return verdict
        return Verdict(True, f"bracket {index + 1} of {len(self.brackets)}, {verdict.reason}")
