"""Random order: what the same trials would have given, had chance chosen which came first."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def expected_best(
    values: NDArray[np.float64], maximise: bool, draws: NDArray[np.int64] | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """The best of k of these n values drawn without replacement: its mean, its 10% and its 90% quantile.

    Exact, by order statistics: the best of k is at most the i-th smallest value with probability C(i, k) / C(n, k)
    (Dodge et al., 2019, "Show Your Work", arXiv:1909.03004, there with replacement). Quantiles are the smallest values
    that are reached with that probability. Arrays of one entry for each k of `draws`, by default 1 .. n. O(n) a draw.
    """
    ordered = np.sort(values if maximise else -values)
    n = len(ordered)
    draws = np.arange(1, n + 1) if draws is None else draws
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])  # of factorials
    found = np.empty((3, len(draws)))
    for place, k in enumerate(map(int, draws)):
        reached = np.exp(logs[k:] - logs[: n - k + 1] - logs[n] + logs[n - k])  # of the k-th smallest and those above
        found[0, place] = np.diff(reached, prepend=0.0) @ ordered[k - 1 :]
        at = np.searchsorted(reached, np.array([0.1, 0.9]) - 1e-9)
        found[1:, place] = ordered[k - 1 + np.minimum(at, n - k)]
    return (found[0], found[1], found[2]) if maximise else (-found[0], -found[2], -found[1])
