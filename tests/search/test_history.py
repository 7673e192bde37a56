"""Of many trials a model is fitted on the open ones, the best, and an even spread of the rest."""

from __future__ import annotations

import pytest

from tuner.search import history
from tuner.search.history import Told, thin
from tuner.spec.objective import Objective

HIGH, LOW = Objective("val_accuracy", "max"), Objective("params", "min")


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "FITTED", 20)
    monkeypatch.setattr(history, "GOOD", 5)


def done(*values: float, over: float = 0.0) -> Told:
    return Told("finished", values, {}, {"latency_ms <= 5": over})


def test_the_best_all_stay_and_the_rest_is_spread_evenly() -> None:
    kept = thin([done(float(value)) for value in range(200)], [HIGH])
    assert kept[-5:] == [195, 196, 197, 198, 199]
    assert kept[:-5] == list(range(0, 195, 13)) and len(kept) <= 20
    assert thin([done(float(value)) for value in range(200)], [Objective("val_loss", "min")])[:5] == [0, 1, 2, 3, 4]


def test_what_is_open_stays() -> None:
    assert {3, 77} < set(thin([None if place in (3, 77) else done(1.0) for place in range(100)], [HIGH]))


def test_what_keeps_the_rules_is_better_than_what_breaks_them() -> None:
    told = [done(float(value), over=1.0 if value % 50 else 0.0) for value in range(200)]
    assert {0, 50, 100, 150, 199} < set(thin(told, [HIGH]))


def test_of_two_objectives_the_front_stays() -> None:
    told = [done(0.5 - value / 1000, 500.0 + value) for value in range(100)]  # each worse than the one before
    front = {17: done(0.9, 900.0), 33: done(0.7, 300.0), 81: done(0.55, 100.0)}
    kept = thin([front.get(place, one) for place, one in enumerate(told)], [HIGH, LOW])
    assert front.keys() < set(kept) and len(kept) <= 20


def test_stopped_and_diverged_trials_are_of_the_rest() -> None:
    told = [Told("stopped", (9.0,)) if place % 2 else done(0.1) for place in range(100)]
    assert set(thin(told, [HIGH])) > {0, 2, 4, 6, 8}
    assert not done(float("nan")).complete and not Told("finished").complete


def test_a_history_without_anything_finished_is_spread() -> None:
    for objectives in ([HIGH], [HIGH, LOW]):
        assert thin([Told("diverged")] * 100, objectives) == list(range(0, 100, 5))
