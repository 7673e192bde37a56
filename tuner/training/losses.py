"""The training loss over smoothed, weighted and mixed labels, and how classes are made to count alike."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def mixed_loss(
    logits: Tensor,
    labels: Tensor,
    others: Tensor | None,
    share: Tensor | None,
    *,
    smoothing: float,
    weights: Tensor | None,
) -> Tensor:
    """Cross entropy in nats of logits (N, classes) and labels (N,), a scalar in fp32.

    others, share: as `mix` gives them; each image then counts `share` times with its first label and the rest with the
    other one. smoothing: share of the truth that is spread over all classes (Szegedy et al., 2016). weights (classes,):
    the loss is then the weighted mean, as torch's cross_entropy has it.
    """
    logits = logits.float()
    if others is None or share is None:
        return F.cross_entropy(logits, labels, weights, label_smoothing=smoothing)
    both = [(labels, share), (others, 1 - share)]
    losses = [
        part * F.cross_entropy(logits, target, weights, reduction="none", label_smoothing=smoothing)
        for target, part in both
    ]
    if weights is None:
        return (losses[0] + losses[1]).mean()
    return (losses[0] + losses[1]).sum() / sum((part * weights[target]).sum() for target, part in both)


def hits(logits: Tensor, labels: Tensor, others: Tensor | None, share: Tensor | None) -> Tensor:
    """How right each prediction is, fp32 (N,): 1 or 0, or the share of the label that it meets where two are mixed."""
    predictions = logits.argmax(1)
    right = (predictions == labels).float()
    if others is None or share is None:
        return right
    return share * right + (1 - share) * (predictions == others).float()


def balanced_weights(labels: Tensor, classes: int) -> Tensor:
    """Weights (classes,) in fp32 that make all classes count alike: n / (classes that occur x count), 0 for the others.

    As scikit-learn's `compute_class_weight("balanced")` (King and Zeng, 2001).
    """
    counts = labels.bincount(minlength=classes).double()
    occur = counts > 0
    return torch.where(occur, len(labels) / (occur.sum() * counts.clamp(min=1)), 0.0).float()


def balanced_order(labels: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Indices (count,) into labels (N,), drawn with replacement so that each class that occurs is as probable."""
    return (1 / labels.bincount().double())[labels].multinomial(count, replacement=True, generator=generator)
