"""Paired: two models on the very same images: who is right where, by how much, and whether chance would do that."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.05
"""Of the test, and 1 minus the level of the intervals."""


@dataclass(frozen=True)
class Paired:
    """Images that both, only the first, only the second, neither is right on; first minus second accuracy, in 0..1.

    low, high: 95% interval of the difference; p: of the exact test that images one alone is right on fall evenly.
    """

    both: int
    first: int
    second: int
    neither: int
    difference: float
    low: float
    high: float
    p: float


def pair(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> Paired:
    """Compare two models by whether each is right on each image, (N,) each, at least one image.

    p: McNemar (1947) in its exact form: of the images that one alone is right on, the first's are binomial with one
    half. Interval: see `interval`.
    """
    from scipy.stats import binomtest

    both, neither = int((first & second).sum()), int((~first & ~second).sum())
    only_first, only_second = int((first & ~second).sum()), int((~first & second).sum())
    apart = only_first + only_second
    p = float(binomtest(only_first, apart, 0.5).pvalue) if apart else 1.0
    low, high = interval(both, only_first, only_second, neither)
    return Paired(both, only_first, only_second, neither, (only_first - only_second) / len(first), low, high, p)


def interval(both: int, first: int, second: int, neither: int) -> tuple[float, float]:
    """95% interval of the difference of two paired shares, from the four counts.

    Method 10 of Newcombe (1998, Statistics in Medicine 17, 2635-2650): Wilson's intervals of both shares, put together
    by their correlation, which is corrected for continuity. It has a width where the two never part.
    """
    n = both + first + second + neither
    p1, p2 = (both + first) / n, (both + second) / n
    (l1, u1), (l2, u2) = wilson(both + first, n), wilson(both + second, n)
    product = math.sqrt((both + first) * (second + neither) * (both + second) * (first + neither))
    excess = both * neither - first * second
    corrected = max(excess - n / 2, 0) if excess > 0 else excess
    phi = corrected / product if product else 0.0
    down = (p1 - l1) ** 2 - 2 * phi * (p1 - l1) * (u2 - p2) + (u2 - p2) ** 2
    up = (u1 - p1) ** 2 - 2 * phi * (u1 - p1) * (p2 - l2) + (p2 - l2) ** 2
    return p1 - p2 - math.sqrt(max(down, 0)), p1 - p2 + math.sqrt(max(up, 0))


def wilson(right: int, n: int) -> tuple[float, float]:
    """95% interval of a share, `right` of `n` (Wilson, 1927); as scipy has it, a hundred times as fast."""
    z = NormalDist().inv_cdf(1 - LEVEL / 2)
    middle, margin = right + z**2 / 2, z * math.sqrt(right * (n - right) / n + z**2 / 4)
    return max((middle - margin) / (n + z**2), 0.0), min((middle + margin) / (n + z**2), 1.0)


def holm(p: Sequence[float]) -> list[float]:
    """p values corrected for being several (Holm, 1979): at 0.05 one false alarm in 20 such lists, not lines."""
    order = np.argsort(p, kind="stable")
    raised = np.maximum.accumulate(np.arange(len(order), 0, -1) * np.asarray(p, dtype=float)[order])
    corrected = np.empty(len(order))
    corrected[order] = np.minimum(raised, 1)
    return [float(value) for value in corrected]
