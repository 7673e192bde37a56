"""The Pareto front: the trials that no other one beats in everything, and the knee where more begins to cost much."""

from __future__ import annotations

from typing import cast

import numpy as np
import pandas as pd

from analysis.folders.goal import Objective
from analysis.folders.raw import guess_mode
from analysis.results import Results


def objectives(results: Results) -> tuple[Objective, ...]:
    """The run's objectives that its trials report, each with a direction, the one that drove the search first."""
    numeric = [o for o in results.goal.objectives if o.metric in results.trials]
    return tuple(Objective(o.metric, o.mode or guess_mode(o.metric)) for o in numeric)


COSTS = ("params", "latency_ms", "seconds")  # what a better trial may cost, where the run names no second objective


def goals(results: Results) -> tuple[Objective, ...]:
    """The objectives; where there is one alone, with what it costs: parameters, latency or seconds, the first known.

    A cost counts where it varied. Empty where there is nothing to weigh against the metric.
    """
    found = objectives(results)
    if len(found) > 1:
        return found
    if results.metric is None or results.metric not in results.trials:
        return ()
    whole = results.trials[results.eligible() & (results.trials["state"] == "finished")]
    for cost in COSTS:
        known = whole[cost].dropna() if cost in whole else pd.Series(dtype=float)
        if len(known) and known.min() < known.max():
            return (Objective(results.metric, results.mode), Objective(cost, "min"))
    return ()


def values(results: Results, of: tuple[Objective, ...] | None = None) -> pd.DataFrame:
    """Each objective at each trial's best epoch, for the trials that may be best and have them all."""
    of = objectives(results) if of is None else of
    allowed = results.trials[results.eligible()]
    if len(objectives(results)) < 2:  # a cost that nobody aimed at: a trial that was stopped is cheap for being stopped
        allowed = allowed[allowed["state"] == "finished"]
    table = pd.DataFrame({o.metric: allowed[o.metric].astype(float) for o in of}, index=allowed.index)
    return cast(pd.DataFrame, table.loc[np.isfinite(table.to_numpy()).all(axis=1)])


def front(results: Results, of: tuple[Objective, ...] | None = None) -> list[str]:
    """The trials that no other beats in one objective without losing in another, best first by the first objective.

    Trials with the same values stand on it together. Without objectives it is empty.
    """
    of = objectives(results) if of is None else of
    table = values(results, of)
    if not of or table.empty:
        return []
    score = table.to_numpy() * np.array([1.0 if o.mode == "max" else -1.0 for o in of])
    # Best first by the first objective: a trial can be beaten only by one before it, or by an equal one.
    order = np.lexsort(tuple(-score[:, k] for k in range(score.shape[1]))[::-1])
    kept: list[int] = []
    for n in order:
        best = score[kept]
        if not bool(((best >= score[n]).all(axis=1) & (best > score[n]).any(axis=1)).any()):
            kept.append(int(n))
    return [str(table.index[n]) for n in kept]


def knee(results: Results, of: tuple[Objective, ...] | None = None) -> str | None:
    """The trial of a front of two objectives beyond which more of the first costs much of the second.

    It lies furthest from the straight line between the ends of the front, both objectives scaled to its ends, costs
    that span a factor of ten or more by their logarithm (Satopaa et al., 2011). None where the front has no bend: fewer
    than three trials, or none that lies well (a tenth) beyond the line.
    """
    of = objectives(results) if of is None else of
    if len(of) != 2:
        return None
    trials = front(results, of)
    table = values(results, of).loc[trials].to_numpy() * np.array([1.0 if o.mode == "max" else -1.0 for o in of])
    if len(trials) < 3 or (np.ptp(table, axis=0) == 0).any():
        return None
    costs = np.abs(table[:, 1])
    if costs.min() > 0 and costs.max() / costs.min() >= 10:
        table[:, 1] = np.sign(table[:, 1]) * np.log(costs)
    scaled = (table - table.min(axis=0)) / np.ptp(table, axis=0)
    beyond = scaled.sum(axis=1) - 1
    at = int(beyond.argmax())
    return trials[at] if beyond[at] > 0.1 else None
