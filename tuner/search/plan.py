"""How many epochs a search will spend, before it starts."""

from __future__ import annotations

import random

from tuner.search.rungs import Rungs
from tuner.spec.trial_config import Asha, Search

RACES = 20
"""Simulated searches averaged; their mean is then within a few per cent."""


def expected_epochs(search: Search, trials: int, full: int) -> int:
    """Epochs that `trials` trials of at most `full` epochs will take: simulated races of trials of random quality."""
    if not isinstance(search.scheduler, Asha):
        return trials * full
    total = 0
    for race in range(RACES):
        chance = random.Random(race)
        rungs = Rungs(search.scheduler, full, sign=1)
        for trial in range(trials):
            quality = chance.random()
            stops = (e for e in rungs.milestones() if rungs.judge(str(trial), e, quality).stop)
            total += next(stops, full)
    return round(total / RACES)
