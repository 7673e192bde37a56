"""Worth: whether another hour of the search is worth it: what it should gain, beside the noise of one result."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from analysis import fidelity, style
from analysis.gain import LEAST, Noise, best_of, gain, gained, most_of, noise, size
from analysis.repeats import repeats
from analysis.results import Results

LEADERS = 5
"""Trials whose last epochs tell the jitter, where neither repeats nor the validation images tell the noise."""

OPEN = frozenset({"running", "interrupted"})


class Worth(NamedTuple):
    """What so many more trials should gain over the best so far, in the metric's own unit; NaN where it is not told.

    low, high: 80% of the chance lies between them. chance: of gaining more than the noise, one standard deviation of a
    result. hours: what the trials would take; None where their pace is not known. enough: the gain is less than the
    noise, and so is what the last so many trials gained. text: all of it in a sentence; note: why there is none.
    """

    gain: float
    low: float
    high: float
    chance: float
    noise: float
    noise_source: str
    trials: int
    hours: float | None
    enough: bool
    text: str
    note: str = ""


def worth(results: Results, hours: float = 1.0) -> Worth:
    """What `hours` more of this search should gain; where its pace is not known, a tenth more trials, but 10 at least.

    Never told of more trials than have ended: further ahead than that nothing was tested (benchmarks/worth.py). Trials
    that were stopped are draws that gave no new best: what they would have reached is not known.
    """
    values, metric, maximise = ended_values(results), results.metric or "", results.mode == "max"
    best = best_of(values, maximise=maximise)
    pace = _pace(results, len(values))
    more = max(1, min(round(pace * hours), len(values))) if pace else max(10, len(values) // 10)
    spent = None if not pace else hours if more < len(values) else more / pace
    floor = noise_of(results)
    found = gain(values, maximise=maximise, more=more, noise=floor.size, most=most_of(metric, best))
    if found is None:
        known = int(np.isfinite(values).sum())
        note = (
            f"Too few trials to tell what more would gain: {len(values)} ended, {known} of them trained to the end; "
            f"{LEAST} are needed, a good half of them to the end."
        )
        return Worth(math.nan, math.nan, math.nan, math.nan, *floor, more, spent, False, "", note)
    lately = gained(values, maximise=maximise, more=more)
    enough = bool(max(found.expected, lately) < floor.size)
    trials = f"{more:,} trial{'s' * (more != 1)}"
    span = f"Another {trials}" if spent is None else f"Another {_span(spent)} (about {trials})"
    if spent is not None and more == len(values):
        span = f"As many trials again ({more:,}, about {style.duration(3600 * spent)})"
    ends = " to ".join(size(end, metric, best).removesuffix(" points") for end in (found.low, found.high))
    verdict = "its noise is not known."
    if math.isfinite(floor.size):
        less = found.expected < floor.size
        but = f", but the last {more:,} trials gained {size(lately, metric, best)}" if less and not enough else ""
        verdict = (
            f"{'less' if less else 'more'} than {floor.source} ({size(floor.size, metric, best)}){but}: "
            f"{'not worth it' if enough else 'worth it'}."
        )
    text = f"{span} should gain {size(found.expected, metric, best)} ({ends}), {verdict}"
    return Worth(*found, *floor, more, spent, enough, text)


def noise_of(results: Results) -> Noise:
    """How far a result of this run lies from another of the same configuration: one standard deviation.

    By repeats with other seeds, else by the number of validation images, else by the leaders' last epochs.
    """
    again, data = repeats(results), results.run.get("data")
    images = data.get("validation") if isinstance(data, dict) else None
    best = results.best()
    return noise(
        math.nan if best is None else float(style.metric_values(results, results.trials)[best]),
        metric=results.metric or "",
        repeats=again.values if again else (),
        validation=images if isinstance(images, int) and images > 0 else None,
        curves=_leaders(results),
    )


def ended_values(results: Results) -> list[float]:
    """A value a trial that ended, in the order in which they did; NaN for one that gave no new best.

    A trial's value is known where it finished and keeps to the constraints. One that was stopped leads all the same
    where it has passed every one of these.
    """
    trials = results.trials[results.trials["repeat_of"].isna() & ~results.trials["state"].isin(OPEN)]
    trials = trials.sort_values("ended" if trials["ended"].notna().all() else "number", kind="stable")
    values = style.metric_values(results, trials).where(trials["breaks"].isna()).to_numpy(dtype=float)
    finished = (trials["state"] == "finished").to_numpy()
    sign = 1.0 if results.mode == "max" else -1.0
    top = np.max(sign * values[finished & np.isfinite(values)], initial=-math.inf)
    leads = (sign * values > top) & (trials["state"] == "stopped").to_numpy() & math.isfinite(top)
    return [float(value) for value in np.where(finished | leads, values, math.nan)]


def _pace(results: Results, ended: int) -> float | None:
    """Trials an hour, over the whole search; None where the times are not known."""
    began, last = results.trials["started"].min(), results.trials["ended"].max()
    seconds = float(last - began)
    return 3600 * ended / seconds if ended and math.isfinite(seconds) and seconds > 0 else None


def _leaders(results: Results) -> list[list[float]]:
    table = fidelity.curves(results)
    leaders = table.loc[fidelity.order(results)[:LEADERS]].to_numpy(dtype=float)
    return [row[np.isfinite(row)].tolist() for row in leaders]


def _span(hours: float) -> str:
    return "hour" if hours == 1 else f"{hours:g} hours"
