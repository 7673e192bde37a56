"""Gain: what more trials should bring beside the noise, from the values of those that ended; numbers, no run folder.

A new trial is a draw that either passes a threshold near the top of what was seen, or changes nothing. By extreme value
theory what passes such a threshold passes it by a generalised Pareto deviate (Pickands, 1975), whose shape tells how
near the end is: where a quality falls off smoothly around one best point in d settings, the shape is -2/d at its peak.
Shape and scale are weighed on a grid, how often the threshold is passed by a gamma deviate; the best of `more` draws
then has a distribution in closed form, so that nothing is left to a random generator.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LEAST, KNOWN = 8, 5
"""Trials, and among them values, without which nothing is told."""

TOP = 0.25
"""Of all trials that stand for the tail; at most half of those with a value."""

SHAPE, SPREAD = -0.4, 0.2
"""What is believed of the shape before anything is seen: a peak in five settings; -0.8 (two) to 0 (none) are likely.

Of tails heavier than exponential, which accuracies and losses do not have at their best end, too little is expected.
"""

SHAPES: Floats = np.linspace(-0.9, 0.4, 14) + 1e-6  # never 0 itself, where the formula has its limit
SCALES: Floats = np.geomspace(0.2, 10, 40)  # of the mean excess


STEPS = 5
"""Last steps of a leader's curve that tell how it trembles."""


class Gain(NamedTuple):
    """What is to be won, in the metric's own unit, never below 0: the mean, 80% of the chance between low and high.

    chance: of winning more than the noise.
    """

    expected: float
    low: float
    high: float
    chance: float


def gain(
    values: Sequence[float], *, maximise: bool, more: int, noise: float = 0.0, most: float = math.inf
) -> Gain | None:
    """How far the best of `more` further trials should lie above the best so far.

    values: of the trials in the order in which they ended; NaN for one that gave no new best and whose value is not
    known, such as one that was stopped. most: what can be won at all, such as 1 - best of an accuracy. None: fewer than
    8 trials, or 5 values.
    """
    signed = np.asarray(values, dtype=float) * (1.0 if maximise else -1.0)
    if len(signed) < LEAST or np.isfinite(signed).sum() < KNOWN:
        return None
    gains, at_most = predict(signed, more)
    at_most = np.where(gains >= most, 1.0, at_most)
    gains = np.minimum(gains, most)
    expected = float(np.sum(np.diff(gains) * (1 - (at_most[1:] + at_most[:-1]) / 2)))
    low, high = np.interp((0.1, 0.9), at_most, gains)
    return Gain(expected, float(low), float(high), float(1 - np.interp(noise, gains, at_most)))


def predict(values: Floats, more: int, *, shape: float = SHAPE, spread: float = SPREAD) -> tuple[Floats, Floats]:
    """Gains from 0 up, and how likely it is that `more` draws bring no more than each; larger values are better."""
    known = np.sort(values[np.isfinite(values)])[::-1]
    top = max(min(round(TOP * len(values)), len(known) // 2), KNOWN - 1)
    excess = known[:top] - known[top]
    mean, best = float(excess.mean()), float(excess[0])
    if mean <= 1e-12 * max(1.0, abs(float(known[0]))):
        return np.array([0.0, 1.0]), np.array([1.0, 1.0])  # a plateau: the best values are all the same
    shapes, scales = (grid.ravel() for grid in np.meshgrid(SHAPES, SCALES * mean, indexing="ij"))
    inside = 1 + shapes * best / scales > 0
    shapes, scales = shapes[inside], scales[inside]
    stretch = np.log1p(shapes[:, None] * excess / scales[:, None]).sum(axis=1)
    fit = -(1 + 1 / shapes) * stretch - top * np.log(scales) - ((shapes - shape) / spread) ** 2 / 2
    weight = np.exp(fit - fit.max())
    likely = weight > 1e-4
    weight, shapes, scales = weight[likely] / weight[likely].sum(), shapes[likely, None], scales[likely, None]
    gains = 20 * mean * np.linspace(0, 1, 160) ** 2
    base = np.maximum(1 + shapes * (best + gains) / scales, 0)
    passing = np.exp(-np.log(base, out=np.full_like(base, -np.inf), where=base > 0) / shapes)
    at_most = (len(values) / (len(values) + more * passing)) ** top
    return gains, weight @ at_most


def gained(values: Sequence[float], *, maximise: bool, more: int) -> float:
    """What the last `more` trials gained, at most the later half of them; infinite where nothing was before."""
    earlier = values[: len(values) - min(more, len(values) // 2)]
    change = best_of(values, maximise=maximise) - best_of(earlier, maximise=maximise)
    return abs(change) if math.isfinite(change) else math.inf


class Noise(NamedTuple):
    """How far results lie apart for no reason, one standard deviation; NaN where nothing tells. source: what told."""

    size: float
    source: str


def noise(
    best: float,
    *,
    metric: str,
    repeats: Sequence[float] = (),
    validation: int | None = None,
    curves: Sequence[Sequence[float]] = (),
) -> Noise:
    """The noise of one result, by the first of these that is known.

    repeats: values of one configuration with several seeds; then their standard deviation. validation: number of
    validation images; for an accuracy the standard error of a share p of so many, sqrt(p (1 - p) / n), with one right
    and one wrong image added. curves: of the leading trials, epoch by epoch; how their last steps differ.
    """
    if len(repeats) > 1:
        return Noise(float(np.std(repeats, ddof=1)), f"the noise between {len(repeats)} seeds")
    if validation and is_share(metric, best):
        share = (best * validation + 1) / (validation + 2)
        return Noise(math.sqrt(share * (1 - share) / validation), f"the noise of {validation:,} validation images")
    steps = [np.diff(np.asarray(curve, dtype=float)[-STEPS - 1 :]) for curve in curves]
    known = [each[np.isfinite(each)] for each in steps]
    off = np.concatenate([each - each.mean() for each in known if len(each) > 1] or [np.array([])])
    freedom = len(off) - sum(len(each) > 1 for each in known)
    if freedom > 1:  # a step is the difference of two results
        return Noise(math.sqrt(float(np.sum(off**2)) / freedom / 2), "the leaders' jitter from epoch to epoch")
    return Noise(math.nan, "not known")


def is_share(metric: str, value: float) -> bool:
    """Whether it is an accuracy in 0..1."""
    return "acc" in metric.replace("/", ".").rsplit(".", 1)[-1].lower() and 0 <= value <= 1


def best_of(values: Sequence[float], *, maximise: bool) -> float:
    """The best of them, NaN passed over; NaN where there is none."""
    known = [value for value in values if math.isfinite(value)]
    return (max if maximise else min)(known, default=math.nan)


def most_of(metric: str, best: float) -> float:
    """What can still be won at all."""
    return 1 - best if is_share(metric, best) else math.inf


def size(value: float, metric: str, best: float) -> str:
    """A difference in words: 0.8 points of an accuracy, 0.0123 of anything else."""
    return f"{100 * value:.1f} points" if is_share(metric, best) else f"{value:.3g}"


def enough(
    values: Sequence[float],
    *,
    maximise: bool,
    more: int,
    metric: str,
    repeats: Sequence[float] = (),
    validation: int | None = None,
    curves: Sequence[Sequence[float]] = (),
) -> str:
    """Why `more` further trials are not worth it: what they should gain is less than the noise. Empty where they are.

    Empty too where it cannot be told, and where as many trials before them gained more than the noise: draws from one
    distribution know nothing of a search that still climbs. The arguments are those of `gain` and `noise`.
    """
    best = best_of(values, maximise=maximise)
    floor = noise(best, metric=metric, repeats=repeats, validation=validation, curves=curves)
    found = gain(values, maximise=maximise, more=more, noise=floor.size, most=most_of(metric, best))
    if found is None or not max(found.expected, gained(values, maximise=maximise, more=more)) < floor.size:
        return ""
    gains, least = (size(value, metric, best) for value in (found.expected, floor.size))
    return f"another {more} trials should gain {gains}, less than the noise {least} ({floor.source})"
