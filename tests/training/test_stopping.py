"""When a trial ends by its own rules."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace

import pytest

from tuner.spec.train import EarlyStopping
from tuner.training.metrics import EpochMetrics
from tuner.training.stopping import StoppingState, hear


def last_state(config: EarlyStopping, values: Sequence[float], gaps: Sequence[float] = ()) -> tuple[int, str]:
    """Epoch and reason of the end; the last epoch and nothing where there is none."""
    state, epoch = StoppingState(), 0
    for epoch, value in enumerate(values, 1):
        gap = gaps[epoch - 1] if gaps else 0.0
        metrics = EpochMetrics.of(
            None,
            clean_train_accuracy=math.nan,
            epoch=epoch,
            train_loss=1.0,
            train_accuracy=0.5,
            lr=0.1,
            epoch_seconds=1.0,
            images_per_second=1.0,
            peak_memory_mb=1.0,
            params=1,
        )
        metrics = replace(metrics, accuracy_gap=gap)
        state = StoppingState(**json.loads(json.dumps(hear(config, state, metrics, value)._asdict())))
        if state.reason:
            break
    return epoch, state.reason


def test_patience_counts_epochs_since_the_best() -> None:
    config = EarlyStopping(patience=3)
    assert last_state(config, [1, 2, 1, 1.5, 3, 3, 2, 2.9, 9]) == (8, "no better value for 3 epochs, since epoch 5")
    assert last_state(config, [1, 0, 0, 2, 0, 0, 3]) == (7, "")


def test_smaller_values_of_a_loss_come_turned() -> None:
    assert last_state(EarlyStopping(patience=2), [-0.5, -0.4, -0.45, -0.41]) == (
        4,
        "no better value for 2 epochs, since epoch 2",
    )


@pytest.mark.parametrize("values", [[math.nan] * 5, [0.1, math.nan, math.nan, 0.5]])
def test_a_value_that_is_no_number_is_not_better(values: list[float]) -> None:
    assert last_state(EarlyStopping(patience=2), values)[0] < 4


def test_a_gap_must_last_to_count() -> None:
    config, rising = EarlyStopping(gap=0.1, epochs=3), range(10)
    assert last_state(config, rising, [0.2, 0.2, 0.1, 0.2, 0.3, 0.15, 0.2, 0, 0, 0]) == (
        6,
        "training accuracy was more than 0.1 above validation accuracy for 3 epochs in a row, at last by 0.150",
    )
    assert last_state(config, rising, [0.2, 0.2, 0.1, 0.2, 0.3, 0, 0.2, 0, 0.5, 0.5])[1] == ""


def test_each_rule_is_silent_where_it_is_not_set() -> None:
    assert last_state(EarlyStopping(patience=5), [5, 1, 1], [0.9] * 3)[1] == ""
    assert last_state(EarlyStopping(gap=0.95), [5] * 12, [0.9] * 12)[1] == ""
