"""Whether one run's result is better than another's by more than noise, or why that cannot be known."""

from __future__ import annotations

import math
from statistics import mean, stdev, variance
from typing import Literal, NamedTuple

from analysis.style import Metric, number

LEVEL = 0.95
SHARES = ("val_accuracy", "val_top3_accuracy", "val_top5_accuracy")  # shares of validation images: binomial

Basis = Literal["welch", "one repeated", "validation size", "nothing"]


class Result(NamedTuple):
    """What one run reached. value: of its best trial. seeds: that trial's and its repeats' values, () for none.

    metric: its own name for the metric; validation: how many images it was measured on, None where unknown.
    """

    name: str
    value: float
    seeds: tuple[float, ...]
    metric: str
    validation: int | None


class Difference(NamedTuple):
    """One run over another, in the metric's own unit, so that above 0 is better where higher is better.

    first, second: rows of the two; change: second minus first, of means over seeds where both were repeated, else of
    best values. margin: half the 95% interval around change; None where nothing tells. basis: where it is from. better:
    true or false where the change is larger than noise, None where it is not or cannot be known. text: a sentence.
    """

    first: int
    second: int
    change: float
    margin: float | None
    basis: Basis
    better: bool | None
    text: str


def judge(first: Result, second: Result, rows: tuple[int, int], metric: Metric) -> Difference:
    """Second over first.

    Both repeated: Welch's t interval of the difference of means (Welch, 1947). One repeated: Student's t interval of a
    difference of two single results that scatter as its seeds do. None: a margin from the number of validation images
    alone, both accuracies taken as independent binomial shares with one success and one failure added (Agresti and
    Caffo, 2000); it knows nothing of seeds, so that a difference below it means nothing and one above it little.
    """
    change, margin, basis = _measure(first, second)
    seen = margin is not None and basis in ("welch", "one repeated") and abs(change) > margin
    better = (change > 0) is (metric.best == "highest") if seen else None
    text = _sentence(first, second, change, margin, basis, metric)
    return Difference(*rows, change, margin, basis, better, text)


def _measure(first: Result, second: Result) -> tuple[float, float | None, Basis]:
    from scipy.stats import t

    one, two = first.seeds, second.seeds
    change, quantile = second.value - first.value, (1 + LEVEL) / 2
    repeated = [seeds for seeds in (one, two) if len(seeds) > 1 and variance(seeds) > 0]
    if len(one) > 1 and len(two) > 1 and repeated:
        parts = [variance(seeds) / len(seeds) for seeds in (one, two)]
        freedom = sum(parts) ** 2 / sum(p**2 / (len(s) - 1) for p, s in zip(parts, (one, two), strict=True))
        return mean(two) - mean(one), float(t.ppf(quantile, freedom)) * math.sqrt(sum(parts)), "welch"
    if repeated:
        seeds = repeated[0]
        return change, float(t.ppf(quantile, len(seeds) - 1)) * stdev(seeds) * math.sqrt(2), "one repeated"
    images = first.validation if first.validation == second.validation else None
    if first.metric in SHARES and images and all(0 <= r.value <= 1 for r in (first, second)):
        shares = [(r.value * images + 1) / (images + 2) for r in (first, second)]
        return change, 1.96 * math.sqrt(sum(p * (1 - p) / (images + 2) for p in shares)), "validation size"
    return change, None, "nothing"


def points(change: float, metric: Metric, sign: bool = True) -> str:
    """A difference as people say it: +1.4 points, or +0.013 of what is no percentage."""
    text = f"{100 * abs(change):.1f} points" if metric.factor == 100 else number(abs(change))
    return (("−" if change < 0 else "+") if sign else "") + text


def _sentence(first: Result, second: Result, change: float, margin: float | None, basis: Basis, metric: Metric) -> str:
    higher = change >= 0
    what = f"{second.name} is {points(change, metric, sign=False)} {'above' if higher else 'below'} {first.name}"
    what = f"{second.name} and {first.name} reached the same" if change == 0 else what
    why = "the repeats do not differ at all" if first.seeds or second.seeds else "nothing was repeated"
    unknown = f"{what}. Whether that is more than noise cannot be known: {why}."
    if margin is None:
        return unknown
    size = points(margin, metric, sign=False)
    if basis == "validation size":
        n = f"{second.validation:,}"
        text = f"{unknown} From the size of the validation set alone (n = {n}), differences below {size} mean nothing"
        return text + (
            "." if abs(change) < margin else "; this one is larger, what another seed would do is not known."
        )
    low, high = points(change - margin, metric), points(change + margin, metric)
    how = f"95% interval {low.removesuffix(' points')} to {high}"
    if basis == "welch":
        how += f", Welch's t over {len(first.seeds)} and {len(second.seeds)} seeds"
        what += " on average" if change else ""
    else:
        known = first if len(first.seeds) > 1 and variance(first.seeds) > 0 else second
        how += f", if both scatter as the {len(known.seeds)} seeds of {known.name} do"
    verdict = "larger than the noise between seeds" if abs(change) > margin else "within the noise between seeds"
    return f"{what} ({how}): {verdict}."
