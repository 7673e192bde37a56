"""What every scheduler keeps to, whatever its rule; and how brackets lie."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.search.rungs import Brackets
from tuner.search.schedulers import SCHEDULERS, Scheduler, make_scheduler
from tuner.spec.search import Asha, Hyperband, Median, NoScheduler, Pbt
from tuner.spec.trial_config import KINDS

FULL = 12
STOPPING: dict[str, Asha | Hyperband | Median] = {
    "asha": Asha(),
    "asha in brackets": Asha(factor=2, brackets=3),
    "hyperband": Hyperband(factor=2),
    "median": Median(),
}
ALL: dict[str, NoScheduler | Asha | Hyperband | Median | Pbt] = {**STOPPING, "none": NoScheduler(), "pbt": Pbt()}
Arrivals = list[tuple[str, int, float]]
SCORES = st.sampled_from([-math.inf, math.nan, *(i / 8 for i in range(9))])
ARRIVALS = st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(1, FULL + 2), SCORES), max_size=60)

every = pytest.mark.parametrize("name", ALL)
every_stopping = pytest.mark.parametrize("name", STOPPING)


def make(name: str, seed: int = 0, full: int = FULL) -> Scheduler:
    return make_scheduler(ALL[name], full=full, seed=seed)


def hear(scheduler: Scheduler, arrivals: Arrivals) -> list[bool]:
    return [scheduler.judge(*arrival).stop for arrival in arrivals]


def some(seed: int, trials: int = 40) -> Arrivals:
    """Every epoch of some trials of differing quality, in turn."""
    chance = random.Random(seed)
    return [(f"{t:03d}", epoch, chance.random()) for epoch in range(1, FULL + 1) for t in range(trials)]


def test_there_is_one_for_every_name_of_the_space_file_and_each_is_tested_here() -> None:
    assert SCHEDULERS.keys() == KINDS["search.scheduler"].keys() == {config.name for config in ALL.values()}


@every_stopping
def test_it_stops_trials_and_says_why(name: str) -> None:
    scheduler = make(name)
    verdicts = [scheduler.judge(*arrival) for arrival in some(0)]
    assert any(verdict.stop for verdict in verdicts)
    assert all(verdict.stop == bool(verdict.reason) for verdict in verdicts)
    if isinstance(scheduler, Brackets) and len(scheduler.brackets) > 1:
        assert all(v.reason.startswith(("bracket 1 of ", "bracket 2 of ", "bracket 3 of ")) for v in verdicts if v.stop)


@pytest.mark.parametrize("name", ["none", "pbt"])
@given(arrivals=ARRIVALS)
def test_none_and_pbt_stop_nobody(name: str, arrivals: Arrivals) -> None:
    assert not any(hear(make(name), arrivals))


@every
@given(arrivals=ARRIVALS)
def test_it_never_stops_a_trial_at_the_full_length_or_beyond(name: str, arrivals: Arrivals) -> None:
    stopped = hear(make(name), arrivals)
    assert not any(stop for stop, (_, epoch, _) in zip(stopped, arrivals, strict=True) if epoch >= FULL)


@every
@given(arrivals=ARRIVALS, again=st.randoms(use_true_random=False))
def test_a_second_score_of_a_trial_and_epoch_changes_nothing(
    name: str, arrivals: Arrivals, again: random.Random
) -> None:
    first = list({arrival[:2]: arrival for arrival in reversed(arrivals)}.values())[::-1]
    plain, twice = make(name), make(name)
    for place, (trial, epoch, score) in enumerate(first):
        assert plain.judge(trial, epoch, score) == twice.judge(trial, epoch, score)
        heard = again.choice(first[: place + 1])
        assert not twice.judge(*heard[:2], again.random()).stop


@every
def test_a_resumed_trial_first_heard_late_leaves_earlier_epochs_alone(name: str) -> None:
    usual, resumed = make(name), make(name)
    resumed.judge("late", 11, 0.9)
    early = [arrival for arrival in some(1) if arrival[1] < 11]
    assert hear(usual, early) == hear(resumed, early)


@every
@given(arrivals=ARRIVALS, cut=st.integers(0, 60), seed=st.integers(0, 9))
def test_judging_the_same_history_again_rebuilds_it(name: str, arrivals: Arrivals, cut: int, seed: int) -> None:
    lived, rebuilt = make(name, seed), make(name, seed)
    verdicts = [lived.judge(*arrival) for arrival in arrivals]
    for arrival in arrivals[:cut]:
        rebuilt.judge(*arrival)
    assert [rebuilt.judge(*arrival) for arrival in arrivals[cut:]] == verdicts[cut:]


@every
@given(arrivals=ARRIVALS, epoch=st.integers(1, FULL))
def test_what_is_not_a_number_stops_wherever_the_lowest_number_would(name: str, arrivals: Arrivals, epoch: int) -> None:
    verdicts = []
    for score in (-1e9, -math.inf, math.nan):
        scheduler = make(name)
        hear(scheduler, arrivals)
        verdicts.append(scheduler.judge("last", epoch, score).stop)
    assert verdicts[0] <= verdicts[1] == verdicts[2]


@every_stopping
def test_what_is_not_a_number_is_stopped_even_alone(name: str) -> None:
    trials = [f"{t:03d}" for t in range(20)]
    assert any(make(name).judge(trial, 1, math.nan).stop for trial in trials)
    assert not any(make(name).judge(trial, 1, 0.0).stop for trial in trials)


@every
@given(data=st.data())
def test_the_best_of_curves_that_never_cross_is_never_stopped(name: str, data: st.DataObject) -> None:
    course = data.draw(st.lists(st.floats(-1, 1), min_size=FULL, max_size=FULL))
    trials = data.draw(st.lists(st.sampled_from(range(200)), min_size=2, max_size=8, unique=True))
    turns = data.draw(st.permutations([trial for trial in trials for _ in range(FULL)]))
    scheduler, epochs = make(name), dict.fromkeys(trials, 0)
    for trial in turns:
        epochs[trial] += 1
        verdict = scheduler.judge(f"{trial:03d}", epochs[trial], course[epochs[trial] - 1] + trial / 10)
        assert not (verdict.stop and trial == max(trials))


class Counted(float):
    """A number that counts how often it is compared."""

    comparisons = 0

    def __lt__(self, other: float) -> bool:
        Counted.comparisons += 1
        return float.__lt__(self, other)

    def __gt__(self, other: float) -> bool:
        Counted.comparisons += 1
        return float.__gt__(self, other)

    def __ge__(self, other: float) -> bool:
        Counted.comparisons += 1
        return float.__ge__(self, other)

    def __add__(self, other: float) -> Counted:
        return Counted(float.__add__(self, other))

    __radd__ = __add__

    def __truediv__(self, other: float) -> Counted:
        return Counted(float.__truediv__(self, other))


@every_stopping
def test_judging_a_trial_takes_few_comparisons_however_many_there_are(name: str) -> None:
    scheduler, chance, most = make(name), random.Random(0), 0
    for trial in range(4096):
        before = Counted.comparisons
        scheduler.judge(f"{trial:04d}", 1, Counted(chance.random()))
        most = max(most, Counted.comparisons - before)
    assert 8 <= most <= 2 * 12 + 6  # two searches among 2^12; in brackets among fewer


# ---------------------------------------------------------------- brackets, worked by hand


def laid(scheduler: Scheduler) -> list[list[int]]:
    assert isinstance(scheduler, Brackets)
    return [bracket.milestones() for bracket in scheduler.brackets]


@pytest.mark.parametrize(
    ("config", "full", "milestones"),
    [
        (Asha(grace=1, factor=3), 10, [[1, 3, 9]]),
        (Asha(grace=1, factor=3, brackets=2), 10, [[1, 3, 9], [3, 9]]),
        (Asha(grace=1, factor=3, brackets=5), 9, [[1, 3], [3]]),
        (Asha(grace=2, factor=2, brackets=3), 16, [[2, 4, 8], [4, 8], [8]]),
        (Asha(grace=10, factor=3, brackets=3), 10, [[]]),
    ],
)
def test_asha_has_the_brackets_that_can_still_stop_somebody(
    config: Asha, full: int, milestones: list[list[int]]
) -> None:
    scheduler = make_scheduler(config, full=full, seed=0)
    assert laid(scheduler) == milestones
    assert isinstance(scheduler, Brackets) and set(scheduler.shares) == {1}


@pytest.mark.parametrize(
    ("config", "full", "milestones", "shares"),
    [
        # Li et al., 2018, table 1: R = 81, eta = 3
        (Hyperband(factor=3), 81, [[1, 3, 9, 27], [3, 9, 27], [9, 27], [27], []], (81, 34, 15, 8, 5)),
        (Hyperband(factor=3), 80, [[1, 3, 9], [3, 9], [9], []], (27, 12, 6, 4)),
        (Hyperband(factor=3), 243, None, (243, 98, 41, 18, 9, 6)),
        (Hyperband(grace=2, factor=4), 100, [[2, 8], [8], []], (16, 6, 3)),
        (Hyperband(grace=5), 14, [[]], (1,)),
        (Hyperband(grace=20), 10, [[]], (1,)),
    ],
)
def test_hyperband_has_the_brackets_and_shares_of_the_textbook(
    config: Hyperband, full: int, milestones: list[list[int]] | None, shares: tuple[int, ...]
) -> None:
    scheduler = make_scheduler(config, full=full, seed=0)
    assert isinstance(scheduler, Brackets) and scheduler.shares == shares
    assert milestones is None or laid(scheduler) == milestones


@given(st.integers(1, 5), st.integers(2, 5), st.integers(1, 400))
def test_hyperband_goes_from_the_most_eager_bracket_to_one_that_stops_nobody(
    grace: int, factor: int, full: int
) -> None:
    found = laid(make_scheduler(Hyperband(grace=grace, factor=factor), full=full, seed=0))
    most = 0 if grace > full else math.floor(math.log(full / grace, factor) + 1e-9)
    assert [len(milestones) for milestones in found] == list(range(most, -1, -1))
    assert all(milestones == found[0][index:] for index, milestones in enumerate(found))
    assert all(epoch < full for milestones in found for epoch in milestones)


def test_another_seed_spreads_the_trials_otherwise() -> None:
    assert hear(make("hyperband", seed=0), some(0)) != hear(make("hyperband", seed=1), some(0))
