"""Rungs stop exactly those that a hand count stops."""

from __future__ import annotations

import math
import random

import pytest

from tuner.search.rungs import Rungs
from tuner.spec.trial_config import Asha


def rungs(grace: int = 1, factor: int = 3, full: int = 10, sign: int = 1) -> Rungs:
    return Rungs(Asha(grace=grace, factor=factor), full, sign)


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
    assert [asha.judge(str(i), 1, v).stop for i, v in enumerate(values)] == [
        False,
        True,
        False,
        True,
        False,
        False,
        True,
    ]


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_decisions_equal_a_slow_reference(factor: int) -> None:
    chance, asha, seen = random.Random(factor), rungs(factor=factor), list[float]()
    for trial in range(300):
        value = round(chance.random(), 2)
        seen.append(value)
        keep = max(1, len(seen) // factor)
        expected = value < sorted(seen, reverse=True)[keep - 1]
        assert asha.judge(str(trial), 1, value).stop == expected


def test_minimised_metrics_stop_the_high_ones() -> None:
    asha = rungs(sign=-1)
    assert [asha.judge(str(i), 1, v).stop for i, v in enumerate([0.5, 0.9, 0.2])] == [False, True, False]


def test_nan_is_the_worst_and_never_goes_on() -> None:
    asha = rungs()
    assert asha.judge("a", 1, math.nan).stop
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
    asha.judge("a", 1, 0.9)
    assert asha.judge("b", 1, 0.1).reason == "rung at epoch 1: 1 of 2 were better, the best went on"
