import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix, f1_score

from tuner.training.metrics import compute_macro_f1, count_confusion


@pytest.mark.parametrize(("classes", "seen"), [(2, 2), (5, 5), (7, 4)])
def test_confusion_and_macro_f1_equal_scikit_learns(classes: int, seen: int) -> None:
    rng = np.random.default_rng(classes)
    truth, predicted = rng.integers(0, seen, 50), rng.integers(0, seen, 50)
    confusion = count_confusion(torch.from_numpy(truth), torch.from_numpy(predicted), classes)
    assert confusion.tolist() == confusion_matrix(truth, predicted, labels=range(classes)).tolist()
    assert compute_macro_f1(confusion) == pytest.approx(f1_score(truth, predicted, average="macro"), rel=1e-12)


def test_a_class_that_is_never_right_counts_as_zero() -> None:
    assert compute_macro_f1(torch.tensor([[2, 0], [2, 0]])) == pytest.approx((2 / 3 + 0) / 2)
