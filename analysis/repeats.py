"""The noise floor: how far the results of one configuration lie apart when only the seed changes."""

from __future__ import annotations

from statistics import mean, stdev
from typing import NamedTuple

import numpy as np

from analysis.results import Results


class Repeats(NamedTuple):
    """One trial and its repeats with other seeds: their best values, its own first. In the metric's own unit."""

    trial: str
    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Of all of them; a little too good, for the trial was chosen because it was good."""
        return mean(self.values)

    @property
    def deviation(self) -> float:
        """Sample standard deviation: a difference that is not clearly larger may be luck."""
        return stdev(self.values)


def repeats(results: Results) -> Repeats | None:
    """The trial that was repeated, with every value that is known; None where there are not two."""
    of = results.trials["repeat_of"].dropna()
    if of.empty or results.metric not in results.trials:
        return None
    trial = str(of.mode()[0])
    members = [t for t in (trial, *of.index[of == trial]) if t in results.trials.index]
    values = results.trials.loc[members, results.metric].astype(float)
    known = tuple(float(value) for value in values[np.isfinite(values)])
    return Repeats(trial, known) if len(known) > 1 else None
