"""Curves: what a figure shows of predictions: confusion, calibration, ROC and precision against recall."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tuner.delivery.predictions import Predictions
from tuner.training.metrics import BINS

Floats = NDArray[np.float64]

POINTS = 200
"""Of a curve; a figure of 1,000 pixels shows no more."""
CURVES = 20
"""Classes that get one, those with most images; there is one of the mean besides."""
PAIRS = 20


class Pair(NamedTuple):
    """Images of one class that were taken for another: times, and as a share of all that are of `truth`."""

    truth: int
    predicted: int
    times: int
    share: float


class Bin(NamedTuple):
    """Images whose confidence lies in (low, high]: their mean confidence, and the share of them that is right."""

    low: float
    high: float
    images: int
    confidence: float
    accuracy: float


class Curve(NamedTuple):
    """Of a class against the rest, or `macro`, the mean of them all."""

    name: str
    x: Floats
    y: Floats


def confusion(found: Predictions) -> NDArray[np.int64]:
    """Counts (classes, classes): rows the truth, columns what was predicted."""
    from sklearn.metrics import confusion_matrix

    made: NDArray[np.int64] = confusion_matrix(found.labels, found.predicted, labels=np.arange(len(found.classes)))
    return made


def confused(counts: NDArray[np.int64]) -> list[Pair]:
    """The pairs of classes that are taken for each other most often, by a confusion matrix."""
    wrong = counts - np.diag(np.diag(counts))
    order = np.argsort(-wrong, axis=None, kind="stable")[:PAIRS]
    images = counts.sum(axis=1)
    pairs = zip(*np.unravel_index(order, wrong.shape), strict=True)
    return [Pair(int(t), int(p), int(wrong[t, p]), float(wrong[t, p] / images[t])) for t, p in pairs if wrong[t, p]]


def calibration(found: Predictions) -> list[Bin]:
    """Confidence beside accuracy in bins of equal width, those without images left out (Guo et al., 2017)."""
    confidence, right = found.probabilities.max(axis=1), found.right
    member = np.ceil(confidence * BINS).astype(np.int64) - 1
    each = [(n, member == n) for n in np.unique(member).tolist()]
    return [
        Bin(n / BINS, (n + 1) / BINS, int(its.sum()), float(confidence[its].mean()), float(right[its].mean()))
        for n, its in each
    ]


def roc(found: Predictions) -> list[Curve]:
    """True against false positive rate; the macro curve is the mean over classes at each false positive rate."""
    from sklearn.metrics import roc_curve

    curves = {}
    for c in _ranked(found):
        x, y, _ = roc_curve(found.labels == c, found.probabilities[:, c])
        curves[c] = (x, y)
    return _shown(found, curves)


def precision_recall(found: Predictions) -> list[Curve]:
    """Precision (y) against recall (x); the macro curve is the mean over classes at each recall."""
    from sklearn.metrics import precision_recall_curve

    curves = {}
    for c in _ranked(found):
        y, x, _ = precision_recall_curve(found.labels == c, found.probabilities[:, c])
        curves[c] = (x[::-1], y[::-1])
    return _shown(found, curves)


def _ranked(found: Predictions) -> list[int]:
    """Classes with images, most first; none where all images are of one."""
    images = np.bincount(found.labels, minlength=len(found.classes))
    occur = [c for c in np.argsort(-images, kind="stable").tolist() if images[c]]
    return occur if len(occur) > 1 else []


def _shown(found: Predictions, curves: dict[int, tuple[Floats, Floats]]) -> list[Curve]:
    if not curves:
        return []
    grid = np.linspace(0, 1, POINTS)
    macro = np.mean([np.interp(grid, x, y) for x, y in curves.values()], axis=0)
    chosen = sorted(list(curves)[:CURVES])
    return [Curve("macro", grid, macro), *(Curve(found.classes[c], *thin(*curves[c])) for c in chosen)]


def thin(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """At most 200 points of a curve, evenly along its length, its ends among them."""
    if len(x) <= POINTS:
        return x, y
    length = np.append(0, np.hypot(np.diff(x), np.diff(y)).cumsum())
    kept = np.unique(np.searchsorted(length, np.linspace(0, length[-1], POINTS)).clip(max=len(x) - 1))
    return x[kept], y[kept]
