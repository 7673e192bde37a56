"""Rungs stop exactly those that a hand count stops; brackets race apart."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.search.rungs import Brackets, Rungs
from tuner.spec.search import Asha


def rungs(grace: int = 1, factor: int = 3, full: int = 10) -> Rungs:
    return Rungs(Asha(grace=grace, factor=factor), full)


def test_milestones_are_grace_times_powers_of_the_factor_below_the_full_length() -> None:
    assert rungs().milestones() == [1, 3, 9]
    assert rungs(grace=2, factor=2, full=16).milestones() == [2, 4, 8]
    assert rungs(full=9).milestones() == [1, 3]
    assert rungs(grace=10, full=10).milestones() == []


def test_grace_epochs_stop_nobody() -> None:
    asha = rungs(grace=4, factor=2, full=20)
    assert not asha.judge("a", 4, 0.9).stop
    assert not any(asha.judge("b", epoch, 0.0).stop for epoch in (1, 2, 3))
    assert asha.judge("b", 4, 0.0).stop


def test_decisions_equal_a_hand_count() -> None:
    asha = rungs()
    values = [0.5, 0.4, 0.6, 0.55, 0.7, 0.65, 0.1]
    # keep the best max(1, n // 3) of the n seen so far: 1, 1, 1, 1, 1, 2, 2
    stopped = [asha.judge(str(i), 1, v).stop for i, v in enumerate(values)]
    assert stopped == [False, True, False, True, False, False, True]


SCORES = st.sampled_from([-math.inf, math.nan, *(i / 8 for i in range(9))])
ARRIVALS = st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(1, 12), SCORES), max_size=60)


@given(ARRIVALS, st.integers(1, 4), st.integers(2, 4), st.integers(1, 13))
def test_decisions_equal_a_slow_reference(
    arrivals: list[tuple[str, int, float]], grace: int, factor: int, full: int
) -> None:
    asha, seen = rungs(grace, factor, full), dict[tuple[str, int], float]()
    for trial, epoch, score in arrivals:
        new = (trial, epoch) not in seen
        seen.setdefault((trial, epoch), score if math.isfinite(score) else -math.inf)
        here = [value for (_, at), value in seen.items() if at == epoch]
        above = sum(value > score for value in here)
        judged = new and epoch < full and epoch in [grace * factor**k for k in range(5)]
        # among the best 1/factor: fewer than that many are strictly better
        stops = judged and (not math.isfinite(score) or above >= max(1, len(here) // factor))
        assert asha.judge(trial, epoch, score).stop == stops


def test_equal_scores_go_on_together() -> None:
    asha = rungs()
    assert not any(asha.judge(str(i), 1, 0.1).stop for i in range(20))


def test_nan_is_the_worst_and_never_goes_on() -> None:
    asha = rungs()
    assert asha.judge("a", 1, math.nan).reason == "rung at epoch 1: its score is not a number"
    assert not asha.judge("b", 1, -100.0).stop


def test_a_second_value_of_a_trial_at_a_rung_counts_for_nothing() -> None:
    asha = rungs()
    asha.judge("a", 1, 0.5)
    asha.judge("a", 1, 0.9)
    assert not asha.judge("b", 1, 0.6).stop


def test_order_of_arrival_across_rungs_does_not_matter() -> None:
    asha = rungs()
    asha.judge("a", 3, 0.9)  # a resumed trial is first heard of at a later rung
    assert not asha.judge("b", 1, 0.1).stop


def test_the_reason_says_where_it_stood() -> None:
    asha = rungs()
    for trial in range(8):
        asha.judge(str(trial), 3, trial / 10)
    assert asha.judge("b", 3, 0.05).reason == "rung at epoch 3: 7 of 9 were better, the best 3 went on"
    alone = rungs()
    alone.judge("a", 1, 0.9)
    assert alone.judge("b", 1, 0.1).reason == "rung at epoch 1: 1 of 2 were better, the best went on"


# ---------------------------------------------------------------- brackets


def brackets(shares: list[int], seed: int = 0) -> Brackets:
    return Brackets([rungs() for _ in shares], shares, seed)


def test_trials_race_within_their_bracket_only() -> None:
    both = brackets([1, 1])
    trials = {both.bracket(f"{i:03d}"): f"{i:03d}" for i in range(20)}
    assert not both.judge(trials[0], 1, 0.9).stop
    assert not both.judge(trials[1], 1, 0.1).stop
    other = next(t for i in range(20) if both.bracket(t := f"{i:03d}") == 1 and t != trials[1])
    assert both.judge(other, 1, 0.0).reason == "bracket 2 of 2, rung at epoch 1: 1 of 2 were better, the best went on"


def test_a_bracket_without_others_is_not_spoken_of() -> None:
    assert brackets([1]).judge("a", 1, math.nan).reason == "rung at epoch 1: its score is not a number"


@pytest.mark.parametrize("shares", [[1, 1], [1, 1, 1], [81, 34, 15, 8, 5], [3, 1]])
def test_brackets_get_their_shares_of_the_trials(shares: list[int]) -> None:
    found = Counter(brackets(shares, seed).bracket(f"{i:03d}") for seed in range(20) for i in range(1, 101))
    assert [found[i] / 2000 for i in range(len(shares))] == pytest.approx([s / sum(shares) for s in shares], abs=0.04)


def test_the_bracket_follows_from_seed_and_id_alone() -> None:
    trials = [f"{i:03d}" for i in range(50)]
    once = [brackets([1, 1, 1]).bracket(t) for t in trials]
    again = brackets([1, 1, 1])
    assert once == [again.bracket(t) for t in reversed(trials)][::-1]
    assert once != [brackets([1, 1, 1], seed=1).bracket(t) for t in trials]
