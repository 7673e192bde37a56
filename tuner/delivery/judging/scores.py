"""Scores: what predictions are worth: every number of a classification report, with 95% intervals over images.

All that is a sum over images (counts of each class, losses, calibration bins) is one table, so that 1,000 resamples
are one product. One function reads the scores from such sums: once for the value, once for all resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tuner.delivery.judging.paired import wilson
from tuner.delivery.judging.ranks import Ranked, rank
from tuner.delivery.predictions import Predictions
from tuner.training.metrics import BINS, TOP

Floats = NDArray[np.float64]
Counts = NDArray[np.uint8]

RESAMPLES = 1_000
"""Of the images, drawn with replacement (the percentile bootstrap of Efron, 1979)."""
RANKED, FEWEST = 400_000_000, 100
"""Probabilities that the resamples of ROC AUC and average precision go through, about 5 s on a core, and how many
resamples there are at least: 1,000 of 10,000 images of 40 classes, 400 of 100 classes."""
CHUNK = 2_000_000
"""Counts of images that are summed at a time: 16 MB."""
EDGES = (2.5, 97.5)

ORDER = (
    "accuracy", *(f"top{k}_accuracy" for k in TOP), "balanced_accuracy", "macro_precision", "macro_recall", "macro_f1",
    "weighted_precision", "weighted_recall", "weighted_f1", "roc_auc", "average_precision", "ece", "brier", "loss",
)  # fmt: skip
"""Of the metrics in a report."""
COUNTED = ("accuracy", *(f"top{k}_accuracy" for k in TOP))
"""Those that are a share of the images."""
FEW = 30
"""Images below which a bootstrap is known to be too sure."""


class Interval(NamedTuple):
    """A score and its 95% interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class ClassScores:
    """One class. images: that are of it; predicted: that are said to be; None where a score has no meaning.

    A class that is never predicted has precision 0. One without images has neither recall, F1 nor ranking scores, and
    no precision where it is not predicted either. Ranking scores: one against the rest.
    """

    name: str
    images: int
    predicted: int
    precision: Interval | None
    recall: Interval | None
    f1: Interval | None
    roc_auc: float | None
    average_precision: float | None


@dataclass(frozen=True)
class Scores:
    """metrics: by name, in the order of a report; per_class: in the order of the classes; notes: sentences.

    The macro averages go over the classes that occur in truth or prediction, as scikit-learn has it (zero_division 0),
    balanced accuracy and the ranking scores over those that occur in truth. brier: summed over classes (Brier, 1950),
    0 to 2; loss in nats; ece: 15 bins of equal width (Guo et al., 2017; arXiv 1706.04599).
    """

    metrics: dict[str, Interval]
    per_class: tuple[ClassScores, ...]
    notes: tuple[str, ...]


def score(
    found: Predictions, *, seed: int = 0, resamples: int = RESAMPLES, progress: Callable[[int, int], None] | None = None
) -> Scores:
    """All scores of predictions; the logits must be finite. progress: classes ranked, and of how many."""
    images, classes = found.logits.shape
    once, drawn = np.ones((1, images), dtype=np.uint8), draw(images, resamples, np.random.default_rng(seed))
    table = tabulate(found)
    point, again = (read_sums(table.add(each), images, classes) for each in (once, drawn))
    metrics = {name: interval(value[0], again.overall[name]) for name, value in point.overall.items()}
    metrics |= {name: widen(each, images) for name, each in metrics.items() if name in COUNTED}
    notes = _notes(found)
    ranked = rank(found, np.concatenate([once, drawn[: max(FEWEST, RANKED // (images * classes))]]), progress)
    if ranked is not None:
        metrics |= {name: interval(values[0], values[1:]) for name, values in ranked.macro.items()}
        if (count := len(ranked.macro["roc_auc"]) - 1) < resamples:
            notes.append(f"The intervals of ROC AUC and average precision rest on {count} resamples of the images.")
    return Scores(
        {name: metrics[name] for name in ORDER if name in metrics},
        tuple(_of_class(c, name, point, again, ranked) for c, name in enumerate(found.classes)),
        tuple(notes),
    )


# ---------------------------------------------------------------- resamples


def draw(images: int, resamples: int, rng: np.random.Generator) -> Counts:
    """How often each image is in each resample, (resamples, images); no count comes near 255."""
    counts = np.empty((resamples, images), dtype=np.uint8)
    for row in counts:
        row[:] = np.bincount(rng.integers(images, size=images), minlength=images)
    return counts


def interval(value: float, again: Floats) -> Interval:
    """A value with the percentiles of its resamples, those that have none left out.

    They hold the value itself, which ECE, larger in nearly every resample, could else fall out of.
    """
    known = again[np.isfinite(again)]
    low, high = np.percentile(known, EDGES) if len(known) else (value, value)
    return Interval(float(value), min(float(low), float(value)), max(float(high), float(value)))


def widen(found: Interval, images: int) -> Interval:
    """A share of so many images with Wilson's interval: a bootstrap would be certain of a share of none or all."""
    return Interval(found.value, *wilson(round(found.value * images), images))


# ---------------------------------------------------------------- what adds up over images


@dataclass(frozen=True)
class Table:
    """What each image adds to each sum: `sparse` (rows, images) to counts and bins, `dense` (2 + k, images)."""

    sparse: Any
    dense: Floats

    def add(self, counts: Counts) -> Floats:
        """Sums (rows, resamples) over the images of each resample."""
        step = max(1, CHUNK // counts.shape[1])
        parts = [counts[at : at + step].T.astype(np.float64) for at in range(0, len(counts), step)]
        return np.concatenate([np.concatenate([self.sparse @ part, self.dense @ part]) for part in parts], axis=1)


def tabulate(found: Predictions) -> Table:
    """Rows: images, predicted and right of each class; confidence and right of each bin; loss, Brier score, top k."""
    from scipy.sparse import csr_array

    images, classes = found.logits.shape
    each, right, confidence = np.arange(images), found.right, found.probabilities.max(axis=1)
    bins = 3 * classes + np.ceil(confidence * BINS).astype(np.int64) - 1
    entries = [  # row, image, what it adds
        (found.labels, each, np.ones(images)),
        (found.predicted + classes, each, np.ones(images)),
        (found.labels[right] + 2 * classes, each[right], np.ones(right.sum())),
        (bins, each, confidence),
        (bins[right] + BINS, each[right], np.ones(right.sum())),
    ]
    row, image, value = (np.concatenate(part) for part in zip(*entries, strict=True))
    return Table(csr_array((value, (row, image)), shape=(3 * classes + 2 * BINS, images)), _each_image(found))


def _each_image(found: Predictions) -> Floats:
    """Loss, Brier score and whether the truth is among the top k, of each image: (2 + k, images)."""
    logits, labels = found.logits.astype(np.float64), found.labels[:, None]
    own, most = np.take_along_axis(logits, labels, axis=1), logits.max(axis=1, keepdims=True)
    loss = np.log(np.exp(logits - most).sum(axis=1)) + (most - own)[:, 0]
    truth = np.take_along_axis(found.probabilities, labels, axis=1)[:, 0]
    brier = np.square(found.probabilities).sum(axis=1) - 2 * truth + 1
    first = np.arange(logits.shape[1]) < labels  # of equals the first is first, as argmax has it
    place = ((logits > own) | ((logits == own) & first)).sum(axis=1)
    return np.stack([loss, brier, *(place < k for k in TOP)])


class Read(NamedTuple):
    """Scores read from sums, for each resample: overall (resamples,), of each class (resamples, classes)."""

    overall: dict[str, Floats]
    truth: Floats
    guessed: Floats
    precision: Floats
    recall: Floats
    f1: Floats


def read_sums(sums: Floats, images: int, classes: int) -> Read:
    """The scores of each column of sums (rows, resamples), as `tabulate` orders them."""
    truth, guessed, hit = sums[: 3 * classes].reshape(3, classes, -1).transpose(0, 2, 1)
    confidence, right = sums[3 * classes : 3 * classes + 2 * BINS].reshape(2, BINS, -1)
    loss, brier, *tops = sums[3 * classes + 2 * BINS :] / images
    precision, recall = hit / np.maximum(guessed, 1), hit / np.maximum(truth, 1)  # zero_division 0
    f1 = 2 * hit / np.maximum(truth + guessed, 1)
    kinds = {"precision": precision, "recall": recall, "f1": f1}
    overall = {
        "accuracy": hit.sum(axis=1) / images,
        **{f"top{k}_accuracy": top for k, top in zip(TOP, tops, strict=True) if classes > k},
        "balanced_accuracy": _mean(recall, truth > 0),
        **{f"macro_{name}": _mean(values, truth + guessed > 0) for name, values in kinds.items()},
        **{f"weighted_{name}": (values * truth).sum(axis=1) / images for name, values in kinds.items()},
        "ece": np.abs(confidence - right).sum(axis=0) / images,
        "brier": brier,
        "loss": loss,
    }
    return Read(overall, truth, guessed, precision, recall, f1)


def _mean(values: Floats, counted: NDArray[np.bool_]) -> Floats:
    found: Floats = np.where(counted, values, 0).sum(axis=1) / counted.sum(axis=1)
    return found


def _of_class(c: int, name: str, point: Read, again: Read, ranked: Ranked | None) -> ClassScores:
    images, predicted = int(point.truth[0, c]), int(point.guessed[0, c])
    has = again.truth[:, c] > 0  # a resample without images of the class says nothing of its recall
    precision = interval(point.precision[0, c], again.precision[:, c]) if images or predicted else None
    auc, ap = (None, None) if ranked is None else (ranked.roc_auc[c], ranked.average_precision[c])
    return ClassScores(
        name,
        images,
        predicted,
        precision=widen(precision, predicted) if precision and predicted else precision,
        recall=widen(interval(point.recall[0, c], again.recall[has, c]), images) if images else None,
        f1=interval(point.f1[0, c], again.f1[has, c]) if images else None,
        roc_auc=float(auc) if auc is not None and images else None,
        average_precision=float(ap) if ap is not None and images else None,
    )


# ---------------------------------------------------------------- what must be said


def _notes(found: Predictions) -> list[str]:
    """What the numbers do not say by themselves."""
    classes = len(found.classes)
    truth, guessed = (np.bincount(each, minlength=classes) for each in (found.labels, found.predicted))
    never = [name for name, n, m in zip(found.classes, truth, guessed, strict=True) if n and not m]
    without = [name for name, n in zip(found.classes, truth, strict=True) if not n]
    notes = []
    if len(found.labels) < FEW:
        notes.append(f"Of so few images ({len(found.labels)}) the intervals are rough, and rather too narrow.")
    if never:
        notes.append(f"Never predicted: {_list(never)}. The precision is stated as 0, and counts so in the averages.")
    if without:
        rule = "Recall and F1 cannot be told; where it is predicted all the same, the macro averages count it as 0"
        notes.append(f"No image of {_list(without)}. {rule}.")
    if len(without) == classes - 1:
        notes.append("All images are of one class, so that there is no ROC AUC and no average precision.")
    return notes


def _list(names: Sequence[str], most: int = 8) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
