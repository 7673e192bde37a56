"""Facts of a run, without inference: how far the winner leads beside what is luck, and what was lost."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from analysis import fidelity, style
from analysis.repeats import repeats
from analysis.results import Results


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


class Noise(NamedTuple):
    """Standard deviation of the metric that is luck, in its own unit, and where it is known from."""

    deviation: float
    source: str


def noise(results: Results) -> Noise | None:
    """By repeats with other seeds; else, of an accuracy, by the number of validation images. None: not known."""
    repeated = repeats(results)
    if repeated is not None:
        return Noise(repeated.deviation, f"{len(repeated.values)} trainings of one configuration")
    best, data = results.best(), results.run.get("data")
    images = data.get("validation") if isinstance(data, dict) else None
    if best is None or not isinstance(images, int) or images < 1 or style.metric(results).factor != 100:
        return None
    share = float(style.metric_values(results, results.trials)[best])
    return Noise(math.sqrt(max(share * (1 - share), 0.25 / images) / images), f"{images:,} validation images alone")


def _lead(results: Results, metric: style.Metric, best: str) -> Iterator[str]:
    values = style.metric_values(results, results.trials)[results.eligible()].dropna()
    values = values[~results.trials.loc[values.index, "state"].isin(fidelity.LOST) | (values.index == best)]
    if len(values) < 2:
        return
    second = values.drop(best).max() if results.mode == "max" else values.drop(best).min()
    lead = abs(float(values[best] - second))
    told = noise(results)
    unit = f"{metric.factor * lead:.1f} points" if metric.factor == 100 else style.number(lead)
    if told is None:
        yield f"The winner leads by {unit}; nothing was repeated with another seed, so it is not known what luck gives."
        return
    luck = f"{metric.factor * told.deviation:.1f} points" if metric.factor == 100 else style.number(told.deviation)
    sure = lead > 2 * math.sqrt(2) * told.deviation
    yield (
        f"The winner leads by {unit}; luck alone has a standard deviation of {luck} ({told.source}): the lead is "
        + ("larger than that explains." if sure else "within it.")
    )
