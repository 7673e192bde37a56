"""EpochMetrics: what one epoch of training tells, under the names that result.json uses."""

from __future__ import annotations

from dataclasses import asdict, dataclass


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
