"""The figures of an evaluation, in the order of its page: draw(evaluation) for the page, draw_static for paper."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from analysis.evaluation import (
    confused,
    confusion,
    corruptions,
    per_class,
    reliability,
    sheet,
    thresholds,
    training,
)
from analysis.evaluation.read import Evaluation


def _nothing(_: Evaluation) -> str:
    return ""


class Kind(NamedTuple):
    """One figure. `title` says what it shows, `reading` how to read it; draw is None where it exists on paper only.

    has: whether an evaluation has anything to draw; said: what its numbers say, in a sentence.
    """

    title: str
    reading: str
    draw: Callable[[Evaluation], Any] | None
    draw_static: Callable[[Evaluation], Any]
    has: Callable[[Evaluation], Any]
    said: Callable[[Evaluation], str] = _nothing


FIGURES: dict[str, Kind] = {
    "confusion": Kind(
        "What each class was taken for",
        "A row is a true class, a column what the model said. Blue is right, red an error, on a scale of its own so "
        "that rare errors can be seen. Numbers are percent of the row's images; where there is none it is below 0.5.",
        confusion.draw,
        confusion.draw_static,
        lambda evaluation: evaluation.data.images,
        confusion.said,
    ),
    "confusion_counts": Kind(
        "The same in numbers of images",
        "Coloured by the number of images, not by the share of their class: large classes stand out.",
        partial(confusion.draw, counts=True),
        partial(confusion.draw_static, counts=True),
        lambda evaluation: evaluation.data.images,
    ),
    "confused": Kind(
        "Its most frequent errors",
        "What the image showed → what it was taken for; in brackets, how much of the true class that is.",
        confused.draw,
        confused.draw_static,
        lambda evaluation: evaluation.confused,
        confused.said,
    ),
    "wrong": Kind(
        "Surest, and wrong",
        "The errors that the model was most confident of: an odd image, a wrong label, or what it has not learned.",
        None,
        sheet.draw_static,
        lambda evaluation: evaluation.wrong,
    ),
    "per_class": Kind(
        "Precision, recall and F1 of each class",
        "Precision: of the images called so, how many are. Recall: of the images that are, how many were called so. "
        "F1 is between the two. Whiskers are 95% intervals: long ones where a class has few images.",
        per_class.draw,
        per_class.draw_static,
        per_class.rows,
        per_class.said,
    ),
    "reliability": Kind(
        "How sure it says it is, and how often it is right",
        "On the dashed line a model is as sure as it should be; below it, too sure. Whiskers are 95% intervals of "
        "the share that is right; the bars below say how many images it is about.",
        reliability.draw,
        reliability.draw_static,
        lambda evaluation: evaluation.calibration,
        reliability.said,
    ),
    "roc": Kind(
        "ROC curves",
        "How many of a class are found, over how many others are called so by mistake.",
        partial(thresholds.draw, which="roc"),
        partial(thresholds.draw_static, which="roc"),
        lambda evaluation: evaluation.curves.roc,
    ),
    "precision_recall": Kind(
        "Precision-recall curves",
        "How pure what is called so remains, as more of a class is found.",
        partial(thresholds.draw, which="pr"),
        partial(thresholds.draw_static, which="pr"),
        lambda evaluation: evaluation.curves.pr,
    ),
    "corruptions": Kind(
        "What worse images cost",
        "Accuracy on the same images, harmed more and more; whiskers are 95% intervals.",
        corruptions.draw,
        corruptions.draw_static,
        corruptions.kinds,
        corruptions.said,
    ),
    "training_accuracy": Kind(
        "Accuracy over the epochs",
        "Training images are measured while it learns, with what augmentation does to them.",
        partial(training.draw, which="accuracy"),
        partial(training.draw_static, which="accuracy"),
        partial(training.has, which="accuracy"),
    ),
    "training_loss": Kind(
        "Loss over the epochs",
        "Where the loss on validation images rises again, it learns by heart.",
        partial(training.draw, which="loss"),
        partial(training.draw_static, which="loss"),
        partial(training.has, which="loss"),
    ),
}
