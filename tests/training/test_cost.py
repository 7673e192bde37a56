from collections.abc import Callable

import pytest

from tuner.errors import Infeasible
from tuner.spec.trial_config import TrialConfig
from tuner.training.cost import count, measure_epoch_seconds
from tuner.training.dataset import Dataset
from tuner.training.trainer import Trainer

Configure = Callable[..., TrialConfig]


def test_parameters_and_multiply_adds_are_those_of_a_hand_count(configure: Configure) -> None:
    config = configure(model={"depth": 2, "width": 4, "convs": 2, "head": {"hidden": [5]}})
    cost = count(config, classes=3, image_size=8, channels=1)
    weights = [1 * 4 * 9, 4 * 4 * 9, 4 * 8 * 9, 8 * 8 * 9]
    assert cost.params == sum(weights) + 2 * (4 + 4 + 8 + 8) + (8 * 5 + 5) + (5 * 3 + 3)
    assert cost.multiply_adds == 64 * sum(weights[:2]) + 16 * sum(weights[2:]) + 8 * 5 + 5 * 3


def test_the_counted_parameters_are_those_trained(configure: Configure, make_images: Callable[..., Dataset]) -> None:
    config = configure(model={"depth": 2, "dropout": 0.1})
    trained = Trainer(config, make_images()).params
    assert count(config, classes=3, image_size=8, channels=1).params == trained


def test_a_model_that_does_not_fit_is_infeasible(configure: Configure) -> None:
    with pytest.raises(Infeasible, match="at most 3 blocks fit"):
        count(configure(model={"depth": 4}), classes=3, image_size=8, channels=1)


def test_a_huge_model_is_counted_without_memory(configure: Configure) -> None:
    config = configure(model={"depth": 2, "width": 60_000, "growth": 1.0})
    assert count(config, classes=3, image_size=8, channels=1).params > 32e9


def test_seconds_grow_with_the_images(configure: Configure, make_images: Callable[..., Dataset]) -> None:
    few, many = make_images(train=64, validation=16), make_images(train=64_000, validation=16_000)
    assert 0 < measure_epoch_seconds(configure(), few) < measure_epoch_seconds(configure(), many)
