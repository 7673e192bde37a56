"""A forest over settings and what it says of each alone and of each pair: functional ANOVA (Hutter et al., 2014).

A tree cuts the space into boxes with a value each, so that the mean over all settings but one or two is a sum over
boxes: exact, and a matrix product for the whole forest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from analysis.settings import Floats, Setting

POINTS = 24  # of a numeric setting's range
LEAF = 3  # trials in a leaf, at least


class Axis(NamedTuple):
    """One setting of the forest: `points` of its range or its values, each standing for the same share of it."""

    low: float
    high: float
    points: Floats


def axes(settings: Sequence[Setting]) -> tuple[Axis, ...]:
    """One a setting. Settings of few values have these, others the middles of 24 equal parts of their range."""
    return tuple(_axis(setting) for setting in settings)


def _axis(setting: Setting) -> Axis:
    if setting.distinct:
        # Between two values lies the border of their shares, in the measure of the forest: places in the row.
        return Axis(-0.5, len(setting.distinct) - 0.5, np.arange(len(setting.distinct), dtype=float))
    width = (setting.high - setting.low) / POINTS
    return Axis(setting.low, setting.high, setting.low + width * (np.arange(POINTS) + 0.5))


def matrix(settings: Sequence[Setting]) -> Floats:
    """Trials x settings as the forest reads them: numbers, and for settings of few values the place in their row."""
    columns = []
    for setting in settings:
        if setting.distinct:
            place = np.searchsorted(setting.distinct, np.nan_to_num(setting.x)).astype(float)
            columns.append(np.where(setting.used(), place, np.nan))
        else:
            columns.append(setting.x)
    return np.column_stack(columns)


class Terms(NamedTuple):
    """The parts of a forest's function. mean; mains: one array a setting over its points, without the mean; pairs:
    (i, j) -> points of i x points of j, without the mean and both mains.
    """

    mean: float
    mains: tuple[Floats, ...]
    pairs: dict[tuple[int, int], Floats]


class Forest:
    """Trees fitted to scores of trials, taken apart into boxes."""

    def __init__(self, x: Floats, y: Floats, axes: Sequence[Axis], *, trees: int, seed: int) -> None:
        from sklearn.ensemble import RandomForestRegressor

        self.axes = axes
        self.model = RandomForestRegressor(
            trees, min_samples_leaf=min(LEAF, max(1, len(y) // 8)), max_features=1.0 if x.shape[1] < 3 else 0.7,
            random_state=seed, bootstrap=True,
        ).fit(x, y)  # fmt: skip
        self.values, self.low, self.high = _boxes(self.model, axes)
        self.values = self.values / trees

    def explained(self, x: Floats, y: Floats) -> float:
        """Of the variance of y the share that trees explain on trials that they have not seen; may be below 0."""
        told, votes = np.zeros(len(y)), np.zeros(len(y))
        for tree, drawn in zip(self.model.estimators_, self.model.estimators_samples_, strict=True):
            out = np.setdiff1d(np.arange(len(y)), drawn)
            if len(out):
                told[out] += tree.predict(x[out].astype(np.float32), check_input=False)
                votes[out] += 1
        seen = votes > 0
        left, all_of_it = ((told[seen] / votes[seen] - y[seen]) ** 2).sum(), ((y[seen] - y[seen].mean()) ** 2).sum()
        return float(1 - left / all_of_it) if all_of_it else 0.0

    def variance(self) -> float:
        """Of the function over the whole space: 4,096 places, the same each time."""
        rng = np.random.default_rng(0)
        places = np.column_stack([rng.choice(axis.points, 4096) for axis in self.axes])
        return float(self.model.predict(places.astype(np.float32)).var())

    def terms(self, pairs: bool = True) -> Terms:
        """Means over everything else, taken apart."""
        inside = [
            ((axis.points[:, None] > low) & (axis.points[:, None] <= high)).astype(np.float32)
            for axis, low, high in zip(self.axes, self.low.T, self.high.T, strict=True)
        ]
        shares = np.array([one.mean(axis=0) for one in inside])  # settings x boxes: how much of the range a box has
        whole = shares.prod(axis=0)
        mean = float(self.values @ whole)
        others = [np.delete(shares, j, axis=0).prod(axis=0) for j in range(len(shares))]
        mains = tuple(inside[j] @ (self.values * others[j]) - mean for j in range(len(shares)))
        found = {}
        for i in range(len(shares) if pairs else 0):
            for j in range(i + 1, len(shares)):
                rest = np.delete(shares, [i, j], axis=0).prod(axis=0)
                both = (inside[i] * (self.values * rest).astype(np.float32)) @ inside[j].T
                found[i, j] = both.astype(float) - mean - mains[i][:, None] - mains[j][None, :]
        return Terms(mean, mains, found)


def _boxes(model: Any, axes: Sequence[Axis]) -> tuple[Floats, Floats, Floats]:
    """Values (boxes,), lower and upper ends (boxes, settings) of all leaves, level by level through all trees."""
    trees = [estimator.tree_ for estimator in model.estimators_]
    starts = np.cumsum([0, *(tree.node_count for tree in trees)])
    left = np.concatenate([tree.children_left + start for tree, start in zip(trees, starts, strict=False)])
    right = np.concatenate([tree.children_right + start for tree, start in zip(trees, starts, strict=False)])
    leaf = np.concatenate([tree.children_left < 0 for tree in trees])
    feature = np.concatenate([tree.feature for tree in trees])
    threshold = np.concatenate([tree.threshold for tree in trees])
    value = np.concatenate([tree.value[:, 0, 0] for tree in trees])
    low = np.tile([float(axis.low) - 1e-9 for axis in axes], (len(leaf), 1))
    high = np.tile([float(axis.high) for axis in axes], (len(leaf), 1))
    nodes: NDArray[np.intp] = starts[:-1]
    while len(nodes := nodes[~leaf[nodes]]):
        for child, ends, pick in ((left[nodes], high, np.minimum), (right[nodes], low, np.maximum)):
            low[child], high[child] = low[nodes], high[nodes]
            ends[child, feature[nodes]] = pick(ends[child, feature[nodes]], threshold[nodes])
        nodes = np.concatenate([left[nodes], right[nodes]])
    return value[leaf], low[leaf], high[leaf]
