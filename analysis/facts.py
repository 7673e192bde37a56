"""Facts of a run, without inference: how far the winner leads beside what is luck, and what was lost."""

from __future__ import annotations

import math
from collections.abc import Iterator

from analysis import fidelity, style
from analysis.gain import size
from analysis.results import Results
from analysis.worth import noise_of


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
            still = int((ends["best_epoch"] >= ends["epochs"] - ends["epochs"] // 10).sum())
            if still > len(ends) / 2:
                yield (
                    f"{still} of {len(ends)} trials that were trained to the end had their best epoch in the last "
                    "tenth: they were still learning."
                )
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
    ahead, luck = (size(v, metric.name, float(values[best])) for v in (lead, told.size))
    if not math.isfinite(told.size):
        yield f"The winner leads by {ahead}; nothing was repeated with another seed: it is not known what luck gives."
        return
    sure = "larger than that explains" if lead > 2 * math.sqrt(2) * told.size else "within it"
    yield f"The winner leads by {ahead}; one standard deviation of {told.source} is {luck}: the lead is {sure}."
