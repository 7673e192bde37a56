"""Patience: which running trials hang, by how long their epochs usually take and how large they are."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

from tuner.runner.trial import Trial

HANGS = 10
"""A trial without an epoch for so many usual ones hangs."""


class Patience:
    """Waits for an epoch `least` seconds and ten usual epochs, longer for larger models."""

    def __init__(self, least: float) -> None:
        self._least = least
        self._seconds: list[float] = []

    def took(self, seconds: float) -> None:
        """Note how long an epoch took."""
        self._seconds.append(seconds)

    def ended(self, running: Sequence[Trial], known: Sequence[Trial]) -> list[Trial]:
        """Running trials with which it is at its end; their `hung` says why. `known`: all that have given an epoch."""
        usual = statistics.median(self._seconds) if self._seconds else 0.0
        works = [trial.size.multiply_adds for trial in known]
        work = statistics.median(works) if works else 1
        for trial in running:
            larger = max(1.0, trial.size.multiply_adds / work) if work else 1.0
            limit = max(self._least, HANGS * usual * larger)
            if not trial.hung and (silent := time.monotonic() - trial.heard) > limit:
                trial.hung = f"no epoch for {silent:.0f} s, the limit is {limit:.0f} s (search.hang_after)"
        return [trial for trial in running if trial.hung]
