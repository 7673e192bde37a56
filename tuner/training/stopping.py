"""Early stopping: when a trial ends by its own rules, whatever the search thinks of it."""

from __future__ import annotations

import math
from typing import NamedTuple

from tuner.spec.train import EarlyStopping
from tuner.training.metrics import EpochMetrics


class StoppingState(NamedTuple):
    """What the rules have heard, in JSON values.

    best: greatest value so far; bad: epochs since without a greater one; apart: epochs in a row with too large a gap;
    reason: why the trial is over, empty while it is not.
    """

    best: float | None = None
    bad: int = 0
    apart: int = 0
    reason: str = ""


def hear(config: EarlyStopping, state: StoppingState, metrics: EpochMetrics, value: float) -> StoppingState:
    """After an epoch. value: of the metric that the search improves, turned so that larger is better.

    A value that is not finite is no better one.
    """
    better = math.isfinite(value) and (state.best is None or value > state.best)
    best, bad = (value, 0) if better else (state.best, state.bad + 1)
    apart = state.apart + 1 if config.gap is not None and metrics.accuracy_gap > config.gap else 0
    reason = ""
    if config.gap is not None and apart >= config.epochs:
        reason = (
            f"training accuracy was more than {config.gap:g} above validation accuracy "
            f"for {apart} epoch{'s' * (apart != 1)} in a row, at last by {metrics.accuracy_gap:.3f}"
        )
    if config.patience is not None and bad >= config.patience:
        reason = f"no better value for {bad} epoch{'s' * (bad != 1)}, since epoch {metrics.epoch - bad}"
    return StoppingState(best, bad, apart, reason)
