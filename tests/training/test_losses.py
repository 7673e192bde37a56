"""The training loss against torch's and against its definition; class balance against scikit-learn's."""

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor
from torch.nn import functional as F

from tuner.training.losses import balanced_order, balanced_weights, hits, mixed_loss

WEIGHTS = torch.tensor([0.5, 1.0, 2.0, 4.0])


def make(n: int = 9, classes: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(n, classes, generator=generator)
    return logits, *torch.randint(classes, (2, n), generator=generator)


def by_definition(logits: Tensor, truth: Tensor, smoothing: float, weights: Tensor, spread: Tensor) -> float:
    """Mean over images of -sum(w q log p), q smoothed, divided by the weights of the labels: truth (N, classes)."""
    q = (1 - smoothing) * truth + smoothing * spread
    return float(-(weights * q * logits.double().log_softmax(1)).sum() / (weights * truth).sum())


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_without_mixing_it_is_torchs_cross_entropy(smoothing: float, weights: Tensor | None) -> None:
    logits, labels, _ = make()
    expected = F.cross_entropy(logits, labels, weights, label_smoothing=smoothing)
    assert mixed_loss(logits, labels, None, None, smoothing=smoothing, weights=weights) == expected


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_a_mixed_label_counts_by_its_share(smoothing: float, weights: Tensor | None) -> None:
    logits, labels, others = make()
    share = torch.tensor(0.7)
    truth = 0.7 * F.one_hot(labels, 4).double() + 0.3 * F.one_hot(others, 4).double()
    expected = by_definition(
        logits, truth, smoothing, torch.ones(4) if weights is None else weights, torch.tensor(0.25)
    )
    loss = mixed_loss(logits, labels, others, share, smoothing=smoothing, weights=weights)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_a_share_of_its_own_for_each_image_is_taken_too() -> None:
    logits, labels, others = make()
    share = torch.linspace(0, 1, 9)
    each = [
        mixed_loss(logits[i : i + 1], labels[i : i + 1], others[i : i + 1], share[i], smoothing=0.1, weights=None)
        for i in range(9)
    ]
    loss = mixed_loss(logits, labels, others, share, smoothing=0.1, weights=None)
    assert loss.item() == pytest.approx(torch.stack(each).mean().item())


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_a_batch_that_was_let_alone_costs_what_it_would_unmixed(weights: Tensor | None) -> None:
    logits, labels, others = make()
    unmixed = mixed_loss(logits, labels, None, None, smoothing=0.1, weights=weights)
    loss = mixed_loss(logits, labels, others, torch.tensor(1.0), smoothing=0.1, weights=weights)
    assert loss.item() == pytest.approx(unmixed.item(), rel=1e-6)


def test_half_precision_is_computed_in_fp32() -> None:
    logits, labels, others = make()
    half = logits.bfloat16()
    loss = mixed_loss(half, labels, others, torch.tensor(0.4), smoothing=0.1, weights=None)
    assert loss.dtype == torch.float32
    assert loss == mixed_loss(half.float(), labels, others, torch.tensor(0.4), smoothing=0.1, weights=None)


def test_hits_count_by_share() -> None:
    logits, labels, others = torch.eye(3), torch.tensor([0, 0, 2]), torch.tensor([1, 1, 2])
    assert hits(logits, labels, None, None).tolist() == [1, 0, 1]
    assert hits(logits, labels, others, torch.tensor(0.75)).tolist() == [0.75, 0.25, 1]


LABELS = torch.tensor([0] * 60 + [1] * 5 + [3] * 35)


def test_balanced_weights_equal_scikit_learns_and_are_nought_for_a_class_that_never_occurs() -> None:
    expected = compute_class_weight("balanced", classes=np.array([0, 1, 3]), y=LABELS.numpy())
    weights = balanced_weights(LABELS, 5)
    assert weights[[0, 1, 3]].tolist() == pytest.approx(expected.tolist())
    assert weights[[2, 4]].tolist() == [0, 0]


def test_balanced_order_draws_each_class_alike_and_each_of_its_images() -> None:
    order = balanced_order(LABELS, 6000, torch.Generator().manual_seed(0))
    counts = LABELS[order].bincount().tolist()
    assert counts[2] == 0
    assert [counts[0], counts[1], counts[3]] == pytest.approx([2000] * 3, rel=0.1)
    assert set(order.tolist()) == set(range(len(LABELS)))


def test_balanced_order_is_the_generators_alone() -> None:
    orders = [balanced_order(LABELS, 50, torch.Generator().manual_seed(1)) for _ in range(2)]
    assert torch.equal(*orders)
