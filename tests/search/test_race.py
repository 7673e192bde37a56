"""The race counts every epoch once and on time, and judges picks by what they truly are."""

from __future__ import annotations

import json
import math
import random
import sys
from collections import Counter
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from optuna.distributions import distribution_to_json
from optuna.trial import TrialState

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import race
from curves import CHANCE, DEPTHS, RATES, WIDTHS, Settings, Task, make_space

pytestmark = pytest.mark.slow

FULL = 9


class Fixed:
    """Trains the given configurations in turn, each for `length` epochs."""

    def __init__(self, configs: list[Settings], length: int) -> None:
        self.queue = [(str(i), config) for i, config in enumerate(configs)]
        self.length = length

    def next(self) -> tuple[str, Settings] | None:
        return self.queue.pop(0) if self.queue else None

    def hear(self, trial: str, epoch: int, value: float) -> bool:
        return epoch == self.length


def config(width: int = 32, lr: float = 1e-3, depth: int = 3) -> Settings:
    return Settings("adam", lr, depth, width, 0.1, False)


def diverging(task: Task) -> Settings:
    return next(c for rate in range(20) if task.curve(c := config(lr=10 ** (-3 + rate / 5))).diverges == 1)


def some(seed: int, number: int) -> list[Settings]:
    r = random.Random(seed)

    def draw() -> Settings:
        optimizer = r.choice(list(RATES))
        rate = 10 ** r.uniform(*map(math.log10, RATES[optimizer]))
        return Settings(optimizer, rate, r.choice(DEPTHS), r.choice(WIDTHS), r.uniform(0, 0.6), r.random() < 0.5)

    return [draw() for _ in range(number)]


# ---------------------------------------------------------------- curves


def test_no_configuration_beats_the_known_optimum_and_one_comes_close() -> None:
    task = Task(3, 27)
    best = max(task.final(c) for c in some(0, 4000))
    assert task.optimum - 0.02 < best <= task.optimum


def test_a_measurement_is_the_curve_and_noise_of_the_stated_size_and_never_changes() -> None:
    task = Task(0, FULL)
    configs = [c for c in some(1, 2000) if task.curve(c).diverges is None]
    off = [task.accuracy(c, 3) - task.curve(c).at(3) for c in configs]
    assert np.std(off) == pytest.approx(math.sqrt(2) * 0.008, rel=0.1)
    assert off == [Task(0, FULL).accuracy(c, 3) - task.curve(c).at(3) for c in configs]


def test_some_configurations_diverge_and_some_that_start_behind_win() -> None:
    task = Task(0, 27)
    lost = diverging(task)
    assert math.isnan(task.accuracy(lost, 1))
    assert task.final(lost) == CHANCE
    curves = [task.curve(c) for c in some(2, 100) if task.curve(c).diverges is None]
    assert any(a.at(1) < b.at(1) - 0.05 and a.at(27) > b.at(27) + 0.05 for a, b in product(curves, curves))


def test_an_epoch_costs_in_proportion_to_the_blocks_multiply_adds() -> None:
    task = Task(0, FULL)
    small, wide, deep = (task.seconds(config(w, depth=d)) - 0.3 for w, d in ((32, 3), (64, 3), (32, 5)))
    assert task.seconds(config()) == pytest.approx(1.0)
    assert (wide, deep) == pytest.approx((4 * small, 5 / 3 * small))


# ---------------------------------------------------------------- the simulator


def test_the_clock_runs_as_two_workers_would() -> None:
    task, a, b, c = Task(0, FULL), config(8), config(64), config(32)
    x, y, z = (task.seconds(s) for s in (a, b, c))
    heard = race.simulate(Fixed([a, b, c], length=2), task, workers=2, budget=99)
    # a and b begin at 0; c takes a's worker at 2x
    expected = [(x, "0"), (2 * x, "0"), (y, "1"), (2 * y, "1"), (2 * x + z, "2"), (2 * x + 2 * z, "2")]
    assert [h.trial for h in heard] == [trial for _, trial in sorted(expected)]
    assert [h.clock for h in heard] == pytest.approx([clock for clock, _ in sorted(expected)])


def test_epochs_are_counted_exactly_and_in_order() -> None:
    heard = race.simulate(race.Engine(0, FULL), Task(0, FULL), workers=4, budget=100)
    assert len(heard) == 100
    by_trial: dict[str, list[int]] = {}
    for h in heard:
        by_trial.setdefault(h.trial, []).append(h.epoch)
    assert all(epochs == list(range(1, len(epochs) + 1)) and len(epochs) <= FULL for epochs in by_trial.values())
    assert [h.clock for h in heard] == sorted(h.clock for h in heard)


@pytest.mark.parametrize("make", [race.Engine, race.Ray])
def test_the_same_seed_gives_the_same_race(make: Callable[[int, int], race.Contestant]) -> None:
    def run(seed: int) -> list[race.Heard]:
        return race.simulate(make(seed, FULL), Task(0, FULL), workers=3, budget=60)

    assert repr(run(1)) == repr(run(1))  # not a number is not equal to itself
    assert repr(run(1)) != repr(run(2))


def test_the_pick_is_judged_by_its_true_accuracy_and_never_by_what_is_not_a_number() -> None:
    task = Task(0, FULL)
    configs = [diverging(task), config(8), config(64)]
    heard = race.simulate(Fixed(configs, length=1), task, workers=1, budget=3)
    seen = [task.accuracy(c, 1) for c in configs]
    best = configs[1] if seen[1] > seen[2] else configs[2]
    regret = [task.optimum - CHANCE] + [task.optimum - task.final(c) for c in (configs[1], best)]
    assert race.regrets(heard, task, 5) == pytest.approx([*regret, regret[-1], regret[-1]])


# ---------------------------------------------------------------- the contestants


def test_a_stopped_trial_never_counts_as_full() -> None:
    engine, task = race.Engine(0, FULL), Task(0, FULL)
    epochs = Counter(h.trial for h in race.simulate(engine, task, workers=2, budget=200))
    full = {trial for trial, number in epochs.items() if number == FULL}
    assert full == {trial for trial, state in engine.states.items() if state == "finished"}
    complete = [t for t in engine.sampler.study.trials if t.state is TrialState.COMPLETE]
    assert len(complete) == len(full) < len(epochs) / 2
    assert all(len(t.intermediate_values) == FULL for t in complete)


def test_a_diverged_trial_ends_at_once_here_and_trains_to_the_end_in_ray() -> None:
    engine, ray = race.Engine(0, FULL), race.Ray(0, FULL, diverged=math.nan)
    for contestant in (engine, ray):
        assert contestant.next()
    assert engine.hear("001", 1, math.nan)
    assert engine.states == {"001": "diverged"}
    assert [ray.hear("001", epoch, math.nan) for epoch in range(1, FULL + 1)] == [False] * (FULL - 1) + [True]


def test_ray_hears_a_stopped_trial_as_complete_with_its_last_value() -> None:
    ray = race.Ray(0, FULL)
    for trial, value in (("001", 0.9), ("002", 0.1)):
        ray.next()
        assert ray.hear(trial, 1, value) == (trial == "002")
    assert [(t.state, t.value) for t in ray.search._ot_study.trials][1] == (TrialState.COMPLETE, 0.1)


def test_ray_searches_the_same_space() -> None:
    ray = race.Ray(0, FULL)
    for _ in range(10):
        ray.next()
    found = {n: d for t in ray.search._ot_study.trials for n, d in t.distributions.items()}
    ours = {p["name"]: p["distribution"] for p in make_space(0, FULL).to_json()}
    assert {n: json.loads(distribution_to_json(d)) for n, d in found.items()} == ours


@pytest.mark.parametrize("workers", [1, 4])
def test_one_epoch_for_all_spends_its_budget_exactly(workers: int) -> None:
    contestant = race.OneEpoch(lambda number: config(lr=1e-5 * (number + 1)), FULL, 60)
    task = Task(0, FULL)
    heard = race.simulate(contestant, task, workers=workers, budget=60)
    epochs = Counter(h.trial for h in heard)
    assert Counter(epochs.values()) == {1: 60 - 3 * FULL, FULL: 3}
    first = {h.trial: h.value for h in heard if h.epoch == 1}
    assert {t for t, number in epochs.items() if number == FULL} == set(sorted(first, key=first.__getitem__)[-3:])


# ---------------------------------------------------------------- the report


def test_reached_is_where_the_median_stays() -> None:
    rows = np.array([[5.0, 1.0, 4.0, 2.0, 1.0], [6.0, 2.0, 4.0, 2.0, 1.0], [7.0, 3.0, 9.0, 2.0, 1.0]])
    assert race.reached(rows, 2.0) == 4  # at epoch 2 it only passed by
    assert race.reached(rows, 7.0) == 1
    assert race.reached(rows, 0.5) is None


def test_half_the_epochs_give_the_ratio_one_half() -> None:
    slow = np.array([[4.0, 3.0, 2.0, 1.0]] * 5)
    fast = np.array([[3.0, 1.0, 1.0, 1.0]] * 5)
    assert race.ratio_of_epochs(fast, slow) == {"ratio": 0.5, "low": 0.5, "high": 0.5}
