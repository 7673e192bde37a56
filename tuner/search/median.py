"""Median stopping rule (Golovin et al., 2017, "Google Vizier"): stops who never did as well as others usually do.

A trial stops when its best score so far is strictly below the median of the others' running averages at the same
epoch. An average stands for a whole curve, so one lucky epoch of another trial stops nobody.
"""

from __future__ import annotations

import bisect
import math

from tuner.search.rungs import Verdict
from tuner.spec.search import Median


class MedianRule:
    """The averages of one search. `full`: full training length in epochs; nobody is judged from there on.

    What is not a number is the worst there is: its trial is stopped, and from that epoch on it has no average that
    others could be compared with.
    """

    def __init__(self, config: Median, full: int) -> None:
        self._config = config
        self._full = full
        self._scores: dict[str, dict[int, float]] = {}
        self._averages: dict[int, list[float]] = {}
        """By epoch, sorted: the finite averages of the trials that gave a score at this epoch."""

    def judge(self, trial: str, epoch: int, score: float) -> Verdict:
        """Enter a trial's score (larger is better) at an epoch and say whether it stops there.

        O(log n) comparisons between trials by sorted averages. A second score of the same trial and epoch changes
        nothing; one that comes late joins the averages of the later epochs, so that the order does not matter.
        """
        scores = self._scores.setdefault(trial, {})
        if epoch >= self._full or epoch in scores:
            return Verdict(False)
        later = [e for e in scores if e > epoch]
        for changed in later:
            if (average := _average(scores, changed)) > -math.inf:
                averages = self._averages[changed]
                del averages[bisect.bisect_left(averages, average)]
        scores[epoch] = score if math.isfinite(score) else -math.inf
        verdict = self._verdict(scores, epoch)  # before it counts itself: it is compared with the others
        for changed in (epoch, *later):
            if (average := _average(scores, changed)) > -math.inf:
                bisect.insort(self._averages.setdefault(changed, []), average)
        return verdict

    def _verdict(self, scores: dict[int, float], epoch: int) -> Verdict:
        if epoch < self._config.grace:
            return Verdict(False)
        if scores[epoch] == -math.inf:
            return Verdict(True, f"median at epoch {epoch}: its score is not a number")
        others = self._averages.get(epoch, [])
        count = len(others)
        if count < self._config.least:
            return Verdict(False)
        best = max(score for e, score in scores.items() if e <= epoch)
        if best >= (others[(count - 1) // 2] + others[count // 2]) / 2:
            return Verdict(False)
        better = count - bisect.bisect_right(others, best)
        return Verdict(True, f"median at epoch {epoch}: the averages of {better} of {count} others were above its best")


def _average(scores: dict[int, float], epoch: int) -> float:
    """The mean up to an epoch, added in the order of epochs: the same bits whatever order they came in."""
    known = [scores[e] for e in sorted(scores) if e <= epoch]
    return min(sum(known) / len(known), max(known))  # rounded, a level curve of 0.1 would average above 0.1
