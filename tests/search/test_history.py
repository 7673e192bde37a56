"""Of many trials a model is fitted on the open ones, the best, and an even spread of the rest."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState, create_trial

from tuner.search import history
from tuner.search.history import History, Told
from tuner.spec.objective import Objective

HIGH, LOW = Objective("val_accuracy", "max"), Objective("params", "min")


@pytest.fixture(autouse=True, scope="module")
def _few() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(history, "FITTED", 20)
        patch.setattr(history, "GOOD", 5)
        yield


def thin(told: Sequence[Told | None], objectives: Sequence[Objective]) -> list[int]:
    known = History(objectives)
    for one in told:
        known.enter({}, one)
    return known.thin()


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


def best_of_all(told: Sequence[Told | None], objectives: Sequence[Objective]) -> list[int]:
    """The oracle: what `thin` keeps of the best, by a look at all trials; the front by Optuna."""
    finished = [(place, one) for place, one in enumerate(told) if one is not None and one.complete]
    if len(objectives) == 1:
        finished.sort(key=lambda item: (item[1].violation, -objectives[0].sign * item[1].values[0]))
        return [place for place, _ in finished[: history.GOOD]]
    kept = [item for item in finished if not item[1].violation]
    study = optuna.create_study(directions=["maximize" if o.mode == "max" else "minimize" for o in objectives])
    study.add_trials([create_trial(state=TrialState.COMPLETE, values=list(one.values)) for _, one in kept])
    places = [kept[trial.number][0] for trial in study.best_trials]
    return places[:: max(1, -(-len(places) // history.GOOD))]


fates = st.builds(
    lambda state, values, over: Told(state, values, {}, {"rule": over}),
    st.sampled_from(("finished", "finished", "stopped", "diverged")),
    st.tuples(st.sampled_from([0.0, 0.1, 0.5, 0.9, math.nan]), st.integers(0, 4).map(float)),
    st.sampled_from([-1.0, 0.0, 0.0, 2.0]),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(fates, max_size=60), st.randoms(use_true_random=False), st.booleans())
def test_what_is_kept_up_to_date_is_what_a_look_at_all_would_find(fate: list[Told], chance: Any, several: bool) -> None:
    objectives = [HIGH, LOW] if several else [LOW]
    fate = fate if several else [replace(one, values=one.values[1:]) for one in fate]
    known, told = History(objectives), list[Told | None]()
    for one in fate:  # entered in one order, told in another, some never
        known.enter({})
        told.append(None)
        if chance.random() < 0.7:
            place = chance.choice([place for place, old in enumerate(told) if old is None])
            known.tell(place, one)
            told[place] = one
    expected = best_of_all(told, objectives)
    still_open = [place for place, one in enumerate(told) if one is None]
    rest = sorted(set(range(len(told))) - set(expected) - set(still_open))
    step = max(1, -(-len(rest) // (history.FITTED - len(expected))))
    assert known.thin() == sorted([*still_open, *expected, *rest[::step]])
    assert known.finished == sum(one is not None and one.complete for one in told)
