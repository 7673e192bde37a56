"""EpochMetrics: what one epoch of training tells, under the names that result.json uses; Scores: what logits tell."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

TOP = (3, 5)
BINS = 15  # of the calibration error, as Guo et al. (2017) have it
MOST_CLASSES = 100  # that are told one by one: with 1,000 a row would be seven times as long
RANKED_AT_ONCE = 2**22  # numbers sorted in one go: about 200 MB; 50,000 images of 1,000 classes would want 3 GB


class Scores(NamedTuple):
    """What logits are worth. Loss in nats, the rest in 0..1.

    The macro means go over the classes that occur in truth or prediction, balanced accuracy and ROC AUC over those that
    occur in truth. The scores that default to None are absent where they would say nothing: top k where there are no
    more than k classes, ROC AUC where no more than one class occurs, the accuracy of each class (its recall, to 4
    digits; None for one that does not occur in truth) where there are more than 100.
    """

    loss: float
    accuracy: float
    macro_f1: float
    macro_precision: float
    macro_recall: float
    balanced_accuracy: float
    ece: float
    roc_auc: float | None = None
    top3_accuracy: float | None = None
    top5_accuracy: float | None = None
    class_accuracy: tuple[float | None, ...] | None = None


@dataclass(frozen=True)
class EpochMetrics:
    """One epoch. Losses in nats, accuracies and F1 in 0..1, times in seconds, memory in MiB.

    Train values are running means over the epoch, as trained: augmentation and dropout on, weights changing; clean is
    on training images as validation sees its own. With a moving average of the weights the val values are those of the
    averaged weights, and raw those of the others. None: absent, see Scores.
    """

    epoch: int
    train_loss: float
    train_accuracy: float
    clean_train_accuracy: float
    val_loss: float
    val_accuracy: float
    val_macro_f1: float
    val_macro_precision: float
    val_macro_recall: float
    val_balanced_accuracy: float
    val_ece: float
    val_roc_auc: float | None
    val_top3_accuracy: float | None
    val_top5_accuracy: float | None
    val_class_accuracy: tuple[float | None, ...] | None
    raw_val_loss: float | None
    raw_val_accuracy: float | None
    accuracy_gap: float
    lr: float
    epoch_seconds: float
    images_per_second: float
    peak_memory_mb: float
    params: int

    @classmethod
    def of(
        cls, scores: Scores | None, *, raw: Scores | None = None, clean_train_accuracy: float, **measured: Any
    ) -> EpochMetrics:
        """Metrics of validation scores; those of an epoch that diverged, and was not validated, have None for them.

        raw: scores of the raw weights where `scores` are of averaged ones; measured: all other fields.
        """
        unknown: list[Any] = [math.nan] * (len(Scores._fields) - len(Scores._field_defaults))
        scores = scores or Scores(*unknown)
        return cls(
            **{f"val_{name}": score for name, score in scores._asdict().items()},
            raw_val_loss=None if raw is None else raw.loss,
            raw_val_accuracy=None if raw is None else raw.accuracy,
            clean_train_accuracy=clean_train_accuracy,
            accuracy_gap=clean_train_accuracy - scores.accuracy,
            **measured,
        )

    def as_dict(self) -> dict[str, Any]:
        """As result.json has it: numbers, and a list of them for `val_class_accuracy`; what is absent is left out."""
        row = {name: value for name, value in asdict(self).items() if value is not None}
        return row if self.val_class_accuracy is None else {**row, "val_class_accuracy": [*self.val_class_accuracy]}


def evaluate(logits: Tensor, labels: Tensor) -> Scores:
    """Scores of logits (N, classes) against labels (N,), computed on their device; a GPU is waited for once.

    All but `ece` equal scikit-learn's. Where a logit is not finite the loss is not either, and the other
    scores mean nothing.
    """
    n, classes = logits.shape
    log_p = logits.double().log_softmax(1)  # in fp32 what is nearly certain would tie
    predicted = logits.argmax(1)
    right = predicted == labels
    none, ones = torch.zeros(classes, dtype=torch.int64, device=labels.device), torch.ones_like(labels)
    truth, guessed, hit = (  # per class; bincount would wait for a GPU
        none.scatter_add(0, at, each).double()
        for at, each in ((labels, ones), (predicted, ones), (labels, right.long()))
    )
    precision, recall = hit / guessed.clamp(min=1), hit / truth.clamp(min=1)
    occurs = truth + guessed > 0
    auc, ranked = _rank_one_vs_rest(log_p, labels, truth)
    scores = {
        "loss": -log_p.gather(1, labels[:, None]).mean(),
        "accuracy": hit.sum() / n,  # a mean on a GPU is a product with 1 / n: not quite 1 where all are right
        "macro_f1": _mean(2 * hit / (truth + guessed).clamp(min=1), occurs),
        "macro_precision": _mean(precision, occurs),
        "macro_recall": _mean(recall, occurs),
        "balanced_accuracy": _mean(recall, truth > 0),
        "ece": _calibration_error(log_p.amax(1).exp(), right),
        "roc_auc": _mean(auc, ranked),
    }
    place = _place(logits, labels)
    scores |= {f"top{k}_accuracy": (place < k).double().sum() / n for k in TOP if classes > k}
    told = torch.where(truth > 0, recall, math.nan)[: classes if classes <= MOST_CLASSES else 0]
    numbers = torch.cat([torch.stack([*scores.values()]), told]).tolist()
    found = dict(zip(scores, numbers, strict=False))
    if math.isnan(found["roc_auc"]):
        del found["roc_auc"]
    each = tuple(None if math.isnan(value) else round(value, 4) for value in numbers[len(scores) :])
    return Scores(**found, class_accuracy=each or None)


def _mean(values: Tensor, counted: Tensor) -> Tensor:
    """Mean of what is counted; not a number where nothing is."""
    return torch.where(counted, values, 0).sum() / counted.sum()


def _place(logits: Tensor, labels: Tensor) -> Tensor:
    """Place (N,) of the true class among all, from 0; of equals the first is first, as argmax has it."""
    own = logits.gather(1, labels[:, None])
    before = torch.arange(logits.shape[1], device=logits.device) < labels[:, None]
    return (~(logits <= own) | ((logits == own) & before)).sum(1)


def _calibration_error(confidence: Tensor, right: Tensor) -> Tensor:
    """Expected calibration error over 15 bins of equal width, each open below (Guo et al., 2017; arXiv 1706.04599)."""
    bins = (confidence * BINS).ceil() - 1
    member = bins[:, None] == torch.arange(BINS, device=bins.device)
    return torch.where(member, (confidence - right.double())[:, None], 0).sum(0).abs().sum() / len(bins)


def _rank_one_vs_rest(scores: Tensor, labels: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Area under the ROC curve (classes,) of each class against the rest, and for which classes there is one.

    By the sum of the positives' ranks (Mann and Whitney, 1947), equal scores sharing the mean of theirs.
    """
    n = len(scores)
    position = torch.arange(1, n + 1, device=scores.device)
    classes = torch.arange(len(truth), device=scores.device)
    parts = math.ceil(scores.numel() / RANKED_AT_ONCE)
    sums = []
    for part, columns in zip(classes.chunk(parts), scores.chunk(parts, dim=1), strict=True):
        values, order = columns.T.sort(dim=1)
        new = torch.ones_like(values, dtype=torch.bool)
        new[:, 1:] = values[:, 1:] != values[:, :-1]
        first = torch.where(new, position, 1).cummax(1).values
        last = torch.where(new.roll(-1, 1), position, n).flip(1).cummin(1).values.flip(1)
        sums.append(torch.where(labels[order] == part[:, None], first + last, 0).sum(1) / 2)
    rank_sum, rest = torch.cat(sums), n - truth
    area = (rank_sum - truth * (truth + 1) / 2) / (truth * rest).clamp(min=1)
    return area, (truth > 0) & (rest > 0)
