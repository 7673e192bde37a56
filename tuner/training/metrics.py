"""EpochMetrics: what one epoch of training tells, under the names that result.json uses."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class EpochMetrics:
    """One epoch. Losses in nats, accuracies and F1 in 0..1, times in seconds, memory in MiB.

    Train values are running means over the epoch, as trained: augmentation and dropout on, weights changing.
    """

    epoch: int
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    val_macro_f1: float
    accuracy_gap: float
    lr: float
    epoch_seconds: float
    images_per_second: float
    peak_memory_mb: float
    params: int

    def as_dict(self) -> dict[str, float | int]:
        """Flat, under the names of result.json."""
        return asdict(self)


def count_confusion(labels: Tensor, predictions: Tensor, classes: int) -> Tensor:
    """Confusion matrix (classes, classes) of int64 labels and predictions (N,): rows are the truth."""
    return (labels * classes + predictions).bincount(minlength=classes * classes).view(classes, classes)


def compute_macro_f1(confusion: Tensor) -> float:
    """Mean F1 over the classes that occur in truth or prediction, as scikit-learn's `f1_score(average="macro")`."""
    support = confusion.sum(0) + confusion.sum(1)
    occurs = support > 0
    return float((2 * confusion.diagonal()[occurs] / support[occurs].double()).mean())
