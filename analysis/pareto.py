"""The Pareto front of a run with several objectives: the trials that no other one beats in everything."""

from __future__ import annotations

from typing import cast

import numpy as np
import pandas as pd

from analysis.goal import Objective
from analysis.raw import guess_mode
from analysis.results import Results


def objectives(results: Results) -> tuple[Objective, ...]:
    """The run's objectives that its trials report, each with a direction, the one that drove the search first."""
    numeric = [o for o in results.goal.objectives if o.metric in results.trials]
    return tuple(Objective(o.metric, o.mode or guess_mode(o.metric)) for o in numeric)


def values(results: Results) -> pd.DataFrame:
    """Each objective at each trial's best epoch, for the trials that may be best and have them all."""
    allowed = results.trials[results.eligible()]
    table = pd.DataFrame({o.metric: allowed[o.metric].astype(float) for o in objectives(results)}, index=allowed.index)
    return cast(pd.DataFrame, table.loc[np.isfinite(table.to_numpy()).all(axis=1)])


def front(results: Results) -> list[str]:
    """The trials that no other beats in one objective without losing in another, best first by the first objective.

    Trials with the same values stand on it together. Without objectives it is empty.
    """
    goals, table = objectives(results), values(results)
    if not goals:
        return []
    score = table.to_numpy() * np.array([1.0 if o.mode == "max" else -1.0 for o in goals])
    on_it = [not bool(((score >= mine).all(axis=1) & (score > mine).any(axis=1)).any()) for mine in score]
    found = table.loc[np.array(on_it, dtype=bool)].sort_values(
        goals[0].metric, ascending=goals[0].mode == "min", kind="stable"
    )
    return [str(trial) for trial in found.index]
