"""The median rule stops exactly those that the paper's sentence stops, worked slowly and by hand."""

from __future__ import annotations

import itertools
import math
from statistics import fmean, median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.search.median import MedianRule
from tuner.spec.search import Median


def rule(grace: int = 1, least: int = 3, full: int = 10) -> MedianRule:
    return MedianRule(Median(grace=grace, least=least), full)


def run(judge: MedianRule, trial: str, scores: list[float]) -> list[bool]:
    return [judge.judge(trial, epoch, score).stop for epoch, score in enumerate(scores, start=1)]


def test_the_best_so_far_is_held_against_the_median_of_the_averages() -> None:
    judge = rule()
    for trial, scores in {"a": [0.2, 0.4], "b": [0.4, 0.6], "c": [0.6, 1.0]}.items():
        run(judge, trial, scores)
    # averages at epoch 1: 0.2, 0.4, 0.6; at epoch 2: 0.3, 0.5, 0.8
    assert run(judge, "d", [0.4, 0.4]) == [False, True]
    # with d's own 0.4 and 0.4 the medians are 0.4 and 0.45
    assert run(judge, "e", [0.45, 0.1]) == [False, False]
    assert run(judge, "f", [0.3, 0.44]) == [True, False]


def test_equal_to_the_median_goes_on_and_as_many_as_least_are_needed() -> None:
    judge = rule(least=4)
    for trial in "abc":
        run(judge, trial, [0.5])
    assert run(judge, "d", [0.1]) == [False]
    assert run(judge, "e", [0.4999]) == [True]
    assert run(judge, "f", [0.5]) == [False]


def test_trials_at_chance_level_all_go_on() -> None:
    judge = rule()  # three times 0.1, added and divided, is more than 0.1
    assert not any(stop for trial in range(20) for stop in run(judge, str(trial), [0.1] * 9))


def test_grace_epochs_stop_nobody() -> None:
    judge = rule(grace=3)
    for trial in "abc":
        run(judge, trial, [0.9, 0.9, 0.9])
    assert run(judge, "d", [0.1, 0.1, 0.1]) == [False, False, True]


def test_the_reason_says_where_it_stood() -> None:
    judge = rule()
    for trial, score in zip("abcde", [0.1, 0.2, 0.4, 0.5, 0.6], strict=True):
        run(judge, trial, [score])
    said = judge.judge("x", 1, 0.2).reason
    assert said == "median at epoch 1: the averages of 3 of 5 others were above its best"
    assert judge.judge("f", 1, math.nan).reason == "median at epoch 1: its score is not a number"


def test_what_is_not_a_number_stops_its_trial_and_leaves_the_others_alone() -> None:
    clean, dirty = rule(), rule()
    for judge in (clean, dirty):
        for trial, score in zip("abc", [0.4, 0.5, 0.6], strict=True):
            run(judge, trial, [score, score])
    for trial in "xyz":
        assert run(dirty, trial, [-math.inf, 0.9]) == [True, False]
    for trial, score in zip("mno", [0.45, 0.5, 0.55], strict=True):
        assert run(clean, trial, [score, score]) == run(dirty, trial, [score, score])


def slow(config: Median, full: int, seen: dict[tuple[str, int], float], trial: str, epoch: int) -> bool:
    """The rule as the paper says it, from everything that arrived."""
    if not config.grace <= epoch < full:
        return False
    if seen[trial, epoch] == -math.inf:
        return True
    averages = []
    for other in {t for t, e in seen if e == epoch} - {trial}:
        scores = [seen[other, e] for e in range(1, epoch + 1) if (other, e) in seen]
        if -math.inf not in scores:
            averages.append(sum(scores) / len(scores))
    best = max(score for (t, e), score in seen.items() if t == trial and e <= epoch)
    return len(averages) >= config.least and best < median(averages)


SCORES = st.sampled_from([-math.inf, math.nan, *(i / 8 for i in range(9))])
ARRIVALS = st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(1, 7), SCORES), max_size=60)


@given(ARRIVALS, st.integers(1, 3), st.integers(2, 4))
def test_decisions_equal_a_slow_reference(arrivals: list[tuple[str, int, float]], grace: int, least: int) -> None:
    judge, seen = rule(grace, least, full=7), dict[tuple[str, int], float]()
    for trial, epoch, score in arrivals:
        new = (trial, epoch) not in seen
        seen.setdefault((trial, epoch), score if math.isfinite(score) else -math.inf)
        expected = new and slow(Median(grace=grace, least=least), 7, seen, trial, epoch)
        assert judge.judge(trial, epoch, score).stop == expected


@given(st.lists(st.tuples(st.floats(-10, 10), st.floats(-10, 10), st.floats(-10, 10)), min_size=3, max_size=5))
def test_the_last_verdict_does_not_depend_on_the_order_before_it(curves: list[tuple[float, float, float]]) -> None:
    arrivals = [(str(t), e, score) for t, curve in enumerate(curves) for e, score in enumerate(curve, start=1)]
    middle = median(fmean(curve) for curve in curves)
    for order in itertools.islice(itertools.permutations(arrivals), 0, 5000, 500):
        judge = rule()
        for trial, epoch, score in order:
            judge.judge(trial, epoch, score)
        assert judge.judge("x", 3, middle - 1e-9).stop
        assert not judge.judge("y", 3, middle + 1e-9 + 1e-9 * abs(middle)).stop


def test_a_later_epoch_that_came_first_does_not_count_as_so_far() -> None:
    judge = rule()
    for trial in "abc":
        run(judge, trial, [0.5, 0.5])
    assert not judge.judge("d", 2, 0.9).stop
    assert judge.judge("d", 1, 0.4).stop


def test_an_average_is_of_a_whole_curve() -> None:
    judge = rule()
    for trial in "abc":
        run(judge, trial, [0.1, 0.9])
    assert run(judge, "d", [0.5, 0.5]) == [False, False]  # the others' average is 0.5
    assert run(judge, "e", [0.4, 0.4]) == [False, True]


@pytest.mark.parametrize("epoch", [10, 11])
def test_from_the_full_length_on_nobody_is_judged(epoch: int) -> None:
    judge = rule()
    assert not any(judge.judge(trial, epoch, 0.9).stop for trial in "abc")
    assert not judge.judge("d", epoch, -math.inf).stop
