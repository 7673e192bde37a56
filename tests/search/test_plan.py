"""Counts before the start: epochs that a search will take."""

from __future__ import annotations

from tuner.search.plan import expected_epochs
from tuner.spec.trial_config import Asha, NoScheduler, Search


def test_without_a_scheduler_every_epoch_is_spent() -> None:
    assert expected_epochs(Search(scheduler=NoScheduler()), trials=18, full=10) == 180


def test_asha_spends_between_one_grace_each_and_everything() -> None:
    spent = expected_epochs(Search(scheduler=Asha(grace=1, factor=3)), trials=18, full=10)
    assert 18 < spent < 180 / 2


def test_a_longer_grace_spends_more() -> None:
    short, long = (expected_epochs(Search(scheduler=Asha(grace=g, factor=3)), 30, 27) for g in (1, 9))
    assert short < long


def test_a_grace_as_long_as_the_training_stops_nobody() -> None:
    assert expected_epochs(Search(scheduler=Asha(grace=10)), trials=5, full=10) == 50
