"""Ranks: what goes by the order of probabilities, ROC AUC and average precision, of many resamples at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tuner.delivery.predictions import Predictions

Floats = NDArray[np.float64]
CHUNK = 2_000_000
"""Counts of images that are gone through at a time: 16 MB."""


@dataclass(frozen=True)
class Ranked:
    """Areas of each class (classes,), nan for one without images; macro: their mean in each resample."""

    roc_auc: Floats
    average_precision: Floats
    macro: dict[str, Floats]


def rank(
    found: Predictions, counts: NDArray[np.uint8], progress: Callable[[int, int], None] | None = None
) -> Ranked | None:
    """ROC AUC and average precision of each class against the rest; None where all images are of one class.

    counts: how often each image is in each resample (resamples, images); the areas of each class are of the first.
    """
    occurs = np.unique(found.labels).tolist()
    if len(occurs) < 2:
        return None
    first = np.full((2, len(found.classes)), np.nan)
    total, known = np.zeros((2, len(counts))), np.zeros(len(counts))
    for done, c in enumerate(occurs, 1):
        each = areas(found.probabilities[:, c], found.labels == c, counts)
        first[:, c] = each[:, 0]
        total += np.nan_to_num(each)
        known += np.isfinite(each[0])
        if progress:
            progress(done, len(occurs))
    with np.errstate(invalid="ignore"):  # a resample of one class alone has no area
        roc_auc, average_precision = total / known
    return Ranked(first[0], first[1], {"roc_auc": roc_auc, "average_precision": average_precision})


def areas(probability: Floats, positive: NDArray[np.bool_], counts: NDArray[np.uint8]) -> Floats:
    """ROC AUC and average precision (2, resamples) of one class; nan where a resample is all of it, or none.

    ROC AUC: the share of pairs in the right order, equals counting half (Mann and Whitney, 1947). Average precision:
    the mean precision at the positives. Only groups of equal probability that hold a positive add to either.
    """
    order = np.argsort(-probability, kind="stable")
    group = np.flatnonzero(np.diff(probability[order], prepend=np.inf))  # where each begins
    hits = np.flatnonzero(positive[order])
    held, first = np.unique(np.searchsorted(group, hits, side="right") - 1, return_index=True)
    begin, end = group[held], np.append(group, len(order))[held + 1]
    found = np.empty((2, len(counts)))
    step = max(1, CHUNK // len(order))
    for at in range(0, len(counts), step):
        drawn = counts[at : at + step, order]
        seen = np.zeros((len(drawn), len(order) + 1), dtype=np.int64)
        np.cumsum(drawn, axis=1, out=seen[:, 1:])
        right = np.add.reduceat(drawn[:, hits], first, axis=1, dtype=np.int64)  # positives of each group
        above = right.cumsum(axis=1)  # and with those before it
        positives, all_of = above[:, -1], seen[:, -1]
        wrong = seen[:, begin] + seen[:, end] - 2 * above + right  # negatives before it, and with its own
        pairs = (right * ((all_of - positives)[:, None] - wrong / 2)).sum(axis=1)
        precision = above / np.maximum(seen[:, end], 1)
        with np.errstate(invalid="ignore"):
            found[0, at : at + step] = pairs / (positives * (all_of - positives))
            found[1, at : at + step] = (right * precision).sum(axis=1) / positives
    return np.where(np.isfinite(found).all(axis=0), found, np.nan)
