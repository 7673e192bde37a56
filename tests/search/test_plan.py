"""Counts before the start: epochs that a search will take."""

from __future__ import annotations

from typing import Any

import pytest

from tuner.search import plan
from tuner.search.plan import expected_epochs
from tuner.search.schedulers import Verdict, make_scheduler
from tuner.spec.search import Asha, Hyperband, Median, NoScheduler, Pbt, Search


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


def test_a_population_trains_to_the_end() -> None:
    assert expected_epochs(Search(scheduler=Pbt()), trials=8, full=40) == 320


def test_hyperband_and_the_median_rule_save_too() -> None:
    for scheduler in (Hyperband(), Median()):
        assert 30 < expected_epochs(Search(scheduler=scheduler), trials=30, full=27) < 0.9 * 30 * 27


def test_a_million_trials_are_extrapolated() -> None:
    few, many = (expected_epochs(Search(scheduler=Asha()), trials, 27) for trials in (300, 1_000_000))
    assert abs(many / few - 1_000_000 / 300) < 10


def test_a_rung_counts_wherever_it_lies_in_a_long_training() -> None:
    """Nobody is judged before epoch 200 of 1,000, and two of three stop there."""
    spent = expected_epochs(Search(scheduler=Asha(grace=200, factor=3)), trials=300, full=1000)
    assert 0.3 < spent / (300 * 1000) < 0.5


@pytest.mark.parametrize("scheduler", [Asha(), Hyperband(), Median(), Median(grace=9000)])
def test_a_million_trials_of_ten_thousand_epochs_are_simulated_in_few_questions(
    scheduler: Asha | Hyperband | Median, monkeypatch: pytest.MonkeyPatch
) -> None:
    questions = 0

    def counted(*given: Any, **options: Any) -> Any:
        made = make_scheduler(*given, **options)

        class Counted:
            def judge(self, trial: str, epoch: int, score: float) -> Verdict:
                nonlocal questions
                questions += 1
                return made.judge(trial, epoch, score)

        return Counted()

    monkeypatch.setattr(plan, "make_scheduler", counted)
    assert expected_epochs(Search(scheduler=scheduler), trials=1_000_000, full=10_000) > 1_000_000
    assert questions < 100_000


def test_the_median_rule_is_expected_to_save_what_it_saves_of_rising_curves() -> None:
    """Half of the epochs at most at 27 epochs; of flat curves it would be a quarter."""
    spent = expected_epochs(Search(scheduler=Median(grace=3)), trials=100, full=27)
    assert 0.4 < spent / (100 * 27) < 0.5


def test_what_is_never_stopped_takes_all_of_its_epochs() -> None:
    search = Search(scheduler=Asha(grace=1, factor=3))
    assert expected_epochs(search, trials=7, full=10, whole=7) == 70
    assert expected_epochs(search, trials=10, full=10, whole=7) > 70
