"""Patience: which running trials hang, by how long their epochs usually take and how large they are."""

from __future__ import annotations

import bisect
import math
import time
from collections import deque

from tuner.runner.trial import Trial

HANGS = 10
"""A trial without an epoch for so many usual ones hangs."""

LATELY = 10_000
"""Epochs of which the usual one is known: a median of all of a long search would be kept and sorted for nothing."""


class Patience:
    """Waits for an epoch `least` seconds and ten usual epochs, longer for larger models."""

    def __init__(self, least: float) -> None:
        self._least = least
        self._seconds, self._works = Usual(), Usual()
        self._waiting: dict[str, Trial] = {}
        """Whose process runs, longest silent first."""

    def begins(self, trial: Trial) -> None:
        """Its process runs, or gave an epoch: its clock starts now."""
        self._waiting.pop(trial.id, None)
        self._waiting[trial.id] = trial
        trial.heard = time.monotonic()

    def leaves(self, trial: Trial) -> None:
        """No process works on it."""
        self._waiting.pop(trial.id, None)

    def took(self, trial: Trial, seconds: float) -> None:
        """Note how long an epoch of a trial took."""
        self._seconds.note(seconds)
        if trial.epochs == 1:
            self._works.note(trial.size.multiply_adds)

    def ended(self) -> list[Trial]:
        """Trials with which it is at its end; their `hung` says why. Looks at those alone that were silent for long."""
        now, found = time.monotonic(), list[Trial]()
        usual, work = HANGS * self._seconds.median, self._works.median
        for trial in self._waiting.values():
            silent = now - trial.heard
            if not trial.hung and silent <= max(self._least, usual):
                break  # the others were heard later
            larger = max(1.0, trial.size.multiply_adds / work) if work else 1.0
            limit = max(self._least, usual * larger)
            if not trial.hung and silent > limit:
                trial.hung = f"no epoch for {silent:.0f} s, the limit is {limit:.0f} s (search.hang_after)"
            if trial.hung:
                found.append(trial)
        return found


class Usual:
    """The median of the last numbers that were noted, `LATELY` of them; 0 where there is none."""

    def __init__(self) -> None:
        self._order: deque[float] = deque()
        self._sorted: list[float] = []

    def note(self, value: float) -> None:
        """One more; what is not finite is none."""
        if not math.isfinite(value):
            return
        self._order.append(value)
        bisect.insort(self._sorted, value)
        if len(self._order) > LATELY:
            del self._sorted[bisect.bisect_left(self._sorted, self._order.popleft())]

    @property
    def median(self) -> float:
        """The middle one, or the mean of the two in the middle."""
        count = len(self._sorted)
        return (self._sorted[(count - 1) // 2] + self._sorted[count // 2]) / 2 if count else 0.0
