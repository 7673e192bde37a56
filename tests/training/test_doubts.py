"""What is said of settings that do nothing."""

from typing import Any

import pytest

from tuner.spec.trial_config import TrialConfig
from tuner.training.doubts import doubts

BACKBONE = {"name": "backbone", "arch": "resnet18"}


def said(train: dict[str, Any], weights: str = "none") -> list[str]:
    config = {"data": {"dataset": "digits"}, "model": BACKBONE | {"weights": weights}, "train": {"epochs": 3} | train}
    return doubts(TrialConfig.model_validate(config))


@pytest.mark.parametrize(
    ("train", "why"),
    [
        ({"trainable": "head"}, "is random and never learns"),
        ({"unfreeze": {"every": 3}}, "nothing but the head ever learns"),
        ({"unfreeze": {"at": [5, 9]}}, "nothing but the head ever learns"),
        ({"schedule": {"name": "multistep", "at": [3, 9]}}, "the rate is never reduced"),
        ({"early_stopping": {"patience": 3}}, "never runs out: 3 epochs of 3"),
    ],
)
def test_a_setting_that_does_nothing_is_doubted(train: dict[str, Any], why: str) -> None:
    (text,) = said(train)
    assert why in text


@pytest.mark.parametrize(
    "train",
    [
        {},
        {"trainable": 1},
        {"unfreeze": {"every": 2}},
        {"schedule": {"name": "multistep", "at": [2]}},
        {"early_stopping": {"patience": 2}},
        {"early_stopping": {"gap": 0.2, "epochs": 9}},
    ],
)
def test_what_does_something_is_not(train: dict[str, Any]) -> None:
    assert said(train) == []


def test_a_body_with_weights_may_rest() -> None:
    assert said({"trainable": "head"}, weights="a.pth") == []
