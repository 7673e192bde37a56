"""Scores of logits against scikit-learn's."""

import json
import math
import warnings
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import metrics as sk
from torch import Tensor

from tuner.training import metrics
from tuner.training.metrics import EpochMetrics, Scores, evaluate

CASES = {
    "few classes": (60, 3, 3),
    "many classes": (300, 12, 12),
    "two classes": (40, 2, 2),
    "classes that never occur": (50, 9, 4),
    "few images of many classes": (20, 40, 40),
}


def make(n: int, classes: int, seen: int, *, ties: bool = False) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(n)
    labels = torch.randint(seen, (n,), generator=generator)
    logits = torch.randn(n, classes, generator=generator) + 1.5 * torch.nn.functional.one_hot(labels, classes)
    return (logits[: n // 3].repeat(3, 1) if ties else logits), labels[: n // 3 * 3] if ties else labels


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> tuple[Tensor, Tensor]:
    return make(*CASES[request.param])


def test_the_macro_means_equal_scikit_learns(case: tuple[Tensor, Tensor]) -> None:
    scores, labels, predicted = evaluate(*case), case[1].numpy(), case[0].argmax(1).numpy()
    precision, recall, f1, _ = sk.precision_recall_fscore_support(labels, predicted, average="macro", zero_division=0)
    assert scores[2:5] == pytest.approx((f1, precision, recall), rel=1e-12)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "y_pred contains classes not in y_true")
        assert scores.balanced_accuracy == pytest.approx(sk.balanced_accuracy_score(labels, predicted), rel=1e-12)


def test_the_accuracy_of_each_class_is_scikit_learns_recall(case: tuple[Tensor, Tensor]) -> None:
    labels, predicted, every = case[1].numpy(), case[0].argmax(1).numpy(), range(case[0].shape[1])
    recall = sk.recall_score(labels, predicted, labels=every, average=None, zero_division=np.nan)
    each = evaluate(*case).class_accuracy
    assert each == tuple(None if np.isnan(value) else round(float(value), 4) for value in recall)
    assert (None in each) == (len(set(labels.tolist())) < len(each))


@pytest.mark.parametrize("classes", [metrics.MOST_CLASSES, metrics.MOST_CLASSES + 1])
def test_classes_are_told_one_by_one_up_to_a_hundred(classes: int) -> None:
    each = evaluate(*make(20, classes, classes)).class_accuracy
    assert each is None if classes > 100 else each is not None and len(each) == 100


def test_loss_and_accuracies_equal_scikit_learns(case: tuple[Tensor, Tensor]) -> None:
    logits, labels = case
    scores, every = evaluate(logits, labels), np.arange(logits.shape[1])
    p = logits.double().softmax(1)
    assert scores.loss == pytest.approx(sk.log_loss(labels, p, labels=every), rel=1e-9)
    assert scores.accuracy == sk.accuracy_score(labels, logits.argmax(1))
    for k, score in ((3, scores.top3_accuracy), (5, scores.top5_accuracy)):
        if len(every) > k:
            assert score == pytest.approx(sk.top_k_accuracy_score(labels, logits, k=k, labels=every))
        else:
            assert score is None


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("kind", CASES)
def test_roc_auc_is_the_mean_of_scikit_learns_over_the_classes_that_occur(kind: str, ties: bool) -> None:
    logits, labels = make(*CASES[kind], ties=ties)
    p = logits.double().softmax(1)
    areas = [sk.roc_auc_score(labels == c, p[:, c]) for c in np.unique(labels)]
    assert evaluate(logits, labels).roc_auc == pytest.approx(np.mean(areas), rel=1e-9)


def test_roc_auc_equals_scikit_learns_own_one_versus_rest() -> None:
    logits, labels = make(300, 12, 12)
    expected = sk.roc_auc_score(labels, logits.double().softmax(1), multi_class="ovr")
    assert evaluate(logits, labels).roc_auc == pytest.approx(expected, rel=1e-9)


def test_classes_ranked_in_parts_give_the_same_area(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, labels = make(50, 9, 9)
    whole = evaluate(logits, labels).roc_auc
    monkeypatch.setattr(metrics, "RANKED_AT_ONCE", 100)  # two classes at a time, the last one alone
    assert evaluate(logits, labels).roc_auc == whole


def measure_calibration(p: np.ndarray, labels: np.ndarray) -> float:
    """Guo et al. (2017), equations 2 and 3."""
    confidence, right, error = p.max(1), p.argmax(1) == labels, 0.0
    edges = np.linspace(0, 1, 16)
    for low, high in pairwise(edges):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            error += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return float(error)


def test_the_calibration_error_is_that_of_its_paper(case: tuple[Tensor, Tensor]) -> None:
    logits, labels = case
    expected = measure_calibration(logits.double().softmax(1).numpy(), labels.numpy())
    assert evaluate(logits, labels).ece == pytest.approx(expected, rel=1e-9)
    assert expected > 0.01


def test_who_is_certain_and_right_is_calibrated_and_who_is_certain_and_wrong_is_not() -> None:
    logits, labels = 50 * torch.eye(4), torch.arange(4)
    assert evaluate(logits, labels).ece == pytest.approx(0, abs=1e-9)
    assert evaluate(logits, labels.roll(1)).ece == pytest.approx(1)


def test_equal_logits_are_placed_as_argmax_places_them() -> None:
    scores = evaluate(torch.zeros(12, 12), torch.arange(12))
    assert (scores.accuracy, scores.top3_accuracy, scores.top5_accuracy) == pytest.approx((1 / 12, 3 / 12, 5 / 12))
    assert scores.roc_auc == 0.5


def test_there_is_no_area_where_one_class_alone_occurs() -> None:
    scores = evaluate(torch.randn(5, 3), torch.full((5,), 2))
    assert scores.roc_auc is None
    assert all(map(math.isfinite, (score for score in scores if isinstance(score, float))))


def test_a_class_that_is_never_right_counts_as_zero() -> None:
    assert evaluate(torch.tensor([[1.0, 0.0]] * 4), torch.tensor([0, 0, 1, 1])).macro_f1 == pytest.approx(1 / 3)


def test_logits_that_are_no_numbers_score_nothing_and_break_nothing() -> None:
    scores = evaluate(torch.full((6, 7), math.nan), torch.arange(1, 7))
    assert math.isnan(scores.loss)
    assert scores.top5_accuracy == 0


MEASURED: dict[str, Any] = {
    "epoch": 3,
    "train_loss": 1.0,
    "train_accuracy": 0.5,
    "lr": 0.1,
    "epoch_seconds": 1.0,
    "images_per_second": 9.0,
    "peak_memory_mb": 5.0,
    "params": 7,
}


def test_an_epoch_carries_all_scores_and_leaves_out_what_is_absent() -> None:
    scores = evaluate(*make(60, 4, 4))
    row = EpochMetrics.of(scores, clean_train_accuracy=0.9, **MEASURED).as_dict()
    present = {f"val_{name}": score for name, score in scores._asdict().items() if score is not None}
    assert json.loads(json.dumps(present)) == {name: row[name] for name in present}
    assert "val_top3_accuracy" in row and "val_top5_accuracy" not in row and "raw_val_loss" not in row
    assert row["accuracy_gap"] == 0.9 - scores.accuracy


def test_the_raw_weights_stand_beside_the_averaged_ones() -> None:
    averaged, raw = evaluate(*make(60, 3, 3)), evaluate(*make(40, 3, 3))
    row = EpochMetrics.of(averaged, raw=raw, clean_train_accuracy=1.0, **MEASURED).as_dict()
    assert (row["val_loss"], row["val_accuracy"]) == (averaged.loss, averaged.accuracy)
    assert (row["raw_val_loss"], row["raw_val_accuracy"]) == (raw.loss, raw.accuracy)


def test_an_epoch_that_diverged_has_no_numbers_where_others_have_scores() -> None:
    row = EpochMetrics.of(None, clean_train_accuracy=math.nan, **MEASURED).as_dict()
    usual = {f"val_{name}" for name in Scores._fields} - {f"val_{name}" for name in Scores._field_defaults}
    assert {name for name, value in row.items() if math.isnan(value)} == {
        *usual,
        "accuracy_gap",
        "clean_train_accuracy",
    }
