"""How many epochs a search will spend, before it starts."""

from __future__ import annotations

import math
import random

from tuner.search.schedulers import make_scheduler
from tuner.spec.search import Asha, Hyperband, Median, NoScheduler, Pbt, Search

MOST = 300
"""Trials of a simulated race; ten times as many would spend a tenth less of the epochs each."""

SIMULATED = 3000
"""Trials over all simulated races; the standard error of their mean is then at most 5%."""

LOOKS = 30
"""Epochs at which the median rule is asked, which judges at every one."""


def expected_epochs(search: Search, trials: int, full: int, seed: int = 0, whole: int = 0) -> int:
    """Epochs that `trials` trials of at most `full` epochs will take: simulated races of trials of random quality.

    Scores rise to the trial's quality, to 63% of it in a tenth of the training; only the median rule cares how. The
    first `whole` trials are never stopped.
    """
    scheduler = search.scheduler
    if isinstance(scheduler, NoScheduler | Pbt):
        return trials * full
    few = min(trials, MOST)
    races = -(-SIMULATED // few)
    judged = [(epoch, 1 - math.exp(-10 * epoch / full)) for epoch in _judged(scheduler, full)]
    total = 0
    for race in range(races):
        chance = random.Random(race)
        judge = make_scheduler(scheduler, full=full, seed=seed + race).judge
        for trial in range(few):
            quality = chance.random()
            stops = (epoch for epoch, risen in judged if judge(str(trial), epoch, quality * risen).stop)
            total += next(stops, full) if trial >= whole else max([full, *stops])
    return round(total / races * trials / few)


def _judged(scheduler: Asha | Hyperband | Median, full: int) -> list[int]:
    """Epochs below the full length at which a scheduler may stop a trial."""
    epochs = {scheduler.grace}
    if isinstance(scheduler, Median):
        step = -(-full // LOOKS)
        epochs.update(range(step, full, step))
    else:
        while max(epochs) < full:
            epochs.add(max(epochs) * scheduler.factor)
    return sorted(epoch for epoch in epochs if epoch < full)
