"""Facts of a run, without inference: how far the winner leads beside what is luck, and what was lost."""

from __future__ import annotations

import math
from collections.abc import Iterator

from analysis import fidelity, style
from analysis.gain import size
from analysis.results import Results
from analysis.worth import noise_of

SURE = 1.96 * math.sqrt(2)  # standard deviations of a result: 95% of the differences of two are smaller


def facts(results: Results) -> Iterator[str]:
    """What happened, without inference: the lead of the winner, trials lost, whether the best were still learning."""
    metric = style.metric(results)
    trials = results.trials[results.trials["repeat_of"].isna()]
    best = results.best()
    if best is not None:
        yield from _lead(results, metric, best)
        ends = trials[trials["state"] == "finished"]
        ends = ends[ends["epochs"] >= 5]
        if len(ends) >= 3:
            late = int((ends["best_epoch"] > 0.9 * ends["epochs"]).sum())
            if late > len(ends) / 2:
                yield f"{late} of {len(ends)} trials that were trained to the end were best in the last tenth of it."
    lost = trials["state"].isin(fidelity.LOST)
    if lost.any():
        yield f"{int(lost.sum())} of {len(trials)} trials diverged or failed."
    broken = trials["breaks"].notna()
    if broken.any():
        yield f"{int(broken.sum())} of {len(trials)} trials break a constraint and cannot be best."


def _lead(results: Results, metric: style.Metric, best: str) -> Iterator[str]:
    values = style.metric_values(results, results.trials)[results.eligible()].dropna()
    values = values[~results.trials.loc[values.index, "state"].isin(fidelity.LOST) | (values.index == best)]
    if len(values) < 2:
        return
    second = values.drop(best).max() if results.mode == "max" else values.drop(best).min()
    lead, told = abs(float(values[best] - second)), noise_of(results)
    ahead = size(lead, metric.name, float(values[best]))
    if not math.isfinite(told.size):
        yield f"The winner leads by {ahead}; nothing was repeated with another seed: it is not known what luck gives."
        return
    limit = SURE * told.size
    sure = "more than that" if lead > limit else "within that"
    yield (
        f"The winner leads by {ahead}. By {told.source}, two results of one configuration differ by up to "
        f"{size(limit, metric.name, float(values[best]))} in 19 of 20 cases: the lead is {sure}."
    )
