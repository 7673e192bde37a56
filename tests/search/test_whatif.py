"""A replay does what the search would have done, makes up nothing, and recommends only what the record carries."""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tuner.records import writer
from tuner.runner.conductor import Conductor
from tuner.search import whatif
from tuner.search.play import Config, Course, Record, play
from tuner.search.preflight import Size
from tuner.search.sampler import Sampler
from tuner.spec.search import Asha, Hyperband, Median, NoScheduler, RandomSampler
from tuner.spec.space import parse_space

SPACE = """
name: c
seed: 7
data: {{dataset: digits}}
model: {{name: cnn, depth: {{int: [1, 5]}}, width: {{int: [8, 64]}}}}
train: {{epochs: {full}, optimizer: {{name: adam, lr: {{loguniform: [1.0e-5, 1.0e-1]}}}}}}
search: {{trials: {trials}, scheduler: {scheduler}}}
"""
CONFIGS = (
    *(Asha(grace=grace, factor=factor) for grace in (1, 2) for factor in (2, 3)),
    Asha(factor=2, brackets=3),
    Hyperband(),
    Median(),
    Median(grace=3),
    NoScheduler(),
)
every = pytest.mark.parametrize("config", CONFIGS, ids=whatif.name)


def curve(chance: random.Random, full: int) -> tuple[float, ...]:
    """Towards a ceiling, noisy: curves cross."""
    top, pace = chance.uniform(0.2, 0.9), chance.uniform(0.05, 0.8)
    return tuple(top * (1 - math.exp(-pace * e)) + chance.gauss(0, 0.03) for e in range(1, full + 1))


def ranked(courses: Sequence[Course]) -> tuple[str, ...]:
    return tuple(c.trial for c in sorted(courses, key=lambda c: -c.best[-1]))


def make(count: int = 24, full: int = 9, workers: int = 3, seed: int = 0) -> Record:
    """Trials trained in full, but for one that diverged, one that failed and one that ended early by itself."""
    chance = random.Random(seed)
    courses = []
    for n in range(count):
        seconds = chance.uniform(0.5, 2)
        scores, state = curve(chance, full), "finished"
        if n == 5:
            scores, state = (*scores[:3], -math.inf), "diverged"
        elif n in (7, 8):
            scores, state = scores[:4], "failed" if n == 7 else "finished"
        courses.append(Course(f"{n + 1:03d}", scores, (seconds,) * len(scores), state, full, to_the_end=n == 2))
    return Record(tuple(courses), full, workers, seed=7, ranked=ranked(courses))


def conduct(record: Record, config: Config, folder: Path) -> dict[str, tuple[int, str, float]]:
    """The search itself on these curves: the last epoch of each trial, its end, and when it was."""
    scheduler = config.model_dump_json().replace('"', "")
    text = SPACE.format(full=record.full, trials=len(record.courses), scheduler=scheduler.replace(":", ": "))
    space = parse_space(text, "c")
    sampler = Sampler(space, lambda config: Size(1, 1), RandomSampler())
    busy: list[tuple[float, int, str, int]] = []
    ended: dict[str, tuple[int, str, float]] = {}
    with writer.create(folder, "c") as run:
        conductor = Conductor(space, sampler, run, trials=len(record.courses), full=record.full, seconds=None)

        def begin(worker: int, clock: float) -> None:
            if job := conductor.next():
                course = record.courses[int(job.trial.id) - 1]
                job.trial.to_the_end = course.to_the_end
                heapq.heappush(busy, (clock + course.seconds[0], worker, job.trial.id, 1))

        for worker in range(record.workers):
            begin(worker, 0.0)
        while busy:
            clock, worker, trial, epoch = heapq.heappop(busy)
            course = record.courses[int(trial) - 1]
            last = epoch == len(course.scores)
            value = course.scores[epoch - 1]
            row: dict[str, Any] = {
                "epoch": epoch, "val_accuracy": value if math.isfinite(value) else None, "val_loss": 1.0,
                "train_loss": 1.0, "epoch_seconds": 1.0, "params": 1,
            }  # fmt: skip
            if last and course.state == "finished" and epoch < course.full:
                row["ends"] = "by itself"
            done = conductor.hear(trial, row, host="here", pid=1)
            if last and course.state == "failed" and not done:
                conductor.fail(trial, "broken")
                done = True
            if done:
                ended[trial] = epoch, str(conductor.trials[trial].state), clock
                begin(worker, clock)
            else:
                heapq.heappush(busy, (clock + course.seconds[epoch], worker, trial, epoch + 1))
    return ended


# ---------------------------------------------------------------- the replay


@every
def test_full_curves_are_replayed_exactly_as_the_conductor_would_have_run_them(config: Config, tmp_path: Path) -> None:
    record = make()
    ended = conduct(record, config, tmp_path)
    told = play(record, config)
    assert {c.trial: e for c, e in zip(record.courses, told.epochs, strict=True)} == {t: e[0] for t, e in ended.items()}
    stopped = {c.trial for c, stop in zip(record.courses, told.stopped, strict=True) if stop}
    assert stopped == {trial for trial, (_, state, _) in ended.items() if state == "stopped"}
    assert told.seconds == pytest.approx(max(clock for _, _, clock in ended.values()))
    assert not any(told.unknown)


@pytest.mark.parametrize("config", [Asha(grace=2, factor=2), Hyperband(), Median()], ids=whatif.name)
def test_a_run_played_again_under_its_own_scheduler_is_that_run(config: Config, tmp_path: Path) -> None:
    whole = make(seed=1)
    ended = conduct(whole, config, tmp_path)
    courses = []
    for course in whole.courses:
        epochs, state, _ = ended[course.trial]
        left = replace(course, scores=course.scores[:epochs], seconds=course.seconds[:epochs], state=state)
        courses.append(left)
    record = replace(whole, courses=tuple(courses), ranked=ranked(courses))
    told = play(record, config)
    assert told.epochs == tuple(len(course.scores) for course in courses)
    assert told.stopped == tuple(course.state == "stopped" for course in courses)
    assert whatif.compare(record, [config], config).own == len(courses)


def of(*curves: Sequence[float], full: int = 3, workers: int = 1, cut: Sequence[int] = ()) -> Record:
    """Trials a, b, ... whose epochs take a second; those at `cut` were stopped."""
    courses = [
        Course("abcdefghijkl"[n], tuple(scores), (1.0,) * len(scores), "stopped" if n in cut else "finished", full)
        for n, scores in enumerate(curves)
    ]
    return Record(tuple(courses), full, workers, ranked=ranked(courses))


def test_who_would_have_gone_on_past_its_record_is_held_there_and_frees_its_worker() -> None:
    record = of((0.5,), (0.1, 0.2, 0.3), cut=[0])
    told = play(record, NoScheduler())
    assert (told.epochs, told.unknown, told.stopped) == ((1, 3), (True, False), (False, False))
    assert (told.began, told.seconds) == ((0.0, 1.0), 4.0)


def test_bounds_hold_what_was_not_recorded() -> None:
    found = whatif.weigh(of((0.5,), (0.1, 0.2, 0.3), cut=[0]), NoScheduler())
    assert (found.epochs, found.unknown, found.best) == ((5, 6), 1, 0.5)


def test_who_is_unknown_may_beat_the_winner_and_then_nobody_can_tell() -> None:
    record = of((0.4,), (0.5, 0.6, 0.7), workers=2, cut=[0])
    assert whatif.weigh(record, Asha(grace=2, factor=2)).winner is None  # it comes first to epoch 2
    assert whatif.weigh(record, Asha(grace=1, factor=2)).winner is None  # and first of all is never stopped
    assert whatif.weigh(of((0.5, 0.6, 0.7), (0.4,), cut=[1]), Asha(grace=1, factor=2)).winner is True


@pytest.mark.parametrize("state", ["running", "interrupted"])
def test_a_trial_that_did_not_end_is_unknown_beyond_its_record(state: str) -> None:
    record = of((0.5, 0.6), (0.1, 0.2, 0.3))
    record = replace(record, courses=(replace(record.courses[0], state=state), record.courses[1]))
    assert play(record, NoScheduler()).unknown == (True, False)


def test_what_is_lost_is_counted_by_hand() -> None:
    record = of((0.5, 0.6, 0.6), (0.4, 0.5, 0.9), (0.6, 0.6, 0.7))
    found = whatif.weigh(record, Asha(grace=1, factor=3))
    # a is first and goes on; b is worse than a at epoch 1; c is the best of three there
    assert (found.epochs, found.stopped, found.winner, found.top, found.best) == ((7, 7), 1, False, (2, 2), 0.7)
    assert (found.to_best, found.to_99, found.seconds) == (None, None, 7.0)


def test_time_to_target_is_the_clock_at_the_first_epoch_that_good() -> None:
    found = whatif.weigh(of((0.1, 0.5, 0.5), (0.1, 0.996, 1.0)), NoScheduler())
    assert (found.to_99, found.to_best) == (5.0, 6.0)


def test_a_loss_counts_as_reached_within_a_hundredth_of_it() -> None:
    found = whatif.weigh(of((-0.9, -0.5, -0.5), (-0.9, -0.404, -0.4)), NoScheduler())
    assert (found.to_99, found.to_best) == (5.0, 6.0)


def test_the_ranking_agrees_in_full_without_a_scheduler_and_less_with_an_eager_one() -> None:
    record = of((0.5, 0.6, 0.6), (0.4, 0.5, 0.9), (0.6, 0.6, 0.7))
    assert whatif.weigh(record, NoScheduler()).agreement == pytest.approx(1)
    # ranks that it leaves: a 2, b 1, c 3; in the end: a 1, b 3, c 2
    assert whatif.weigh(record, Asha()).agreement == pytest.approx(1 - 6 * (1 + 4 + 1) / (3 * 8))


def test_only_trials_that_were_recorded_to_the_end_are_among_the_best_but_for_the_winner() -> None:
    record = of((0.9,), (0.1, 0.2, 0.3), (0.8,), cut=[0, 2])
    assert record.top == ((0, 1), (1, 3))


def test_an_epoch_that_breaks_a_constraint_never_wins() -> None:
    course = Course("a", (0.2, 0.9, 0.3), (1.0,) * 3, "finished", 3, counts=(True, False, True))
    assert course.best == (-math.inf, 0.2, 0.2, 0.3)


def test_trials_of_another_length_are_not_compared() -> None:
    record = of((0.5, 0.6, 0.7), (0.1, 0.2, 0.3), workers=2)
    record = replace(record, courses=(record.courses[0], replace(record.courses[1], full=9)))
    assert play(record, Asha()).epochs == (3, 3)


# ---------------------------------------------------------------- other orders, and what is recommended


LATE = ((0.1, 0.1, 0.9), *((0.2 + n / 100, 0.3, 0.3 + n / 100) for n in range(11)))


def test_a_late_winner_is_kept_only_in_orders_in_which_it_comes_first() -> None:
    first = 0
    for seed in range(whatif.ORDERS):
        order = list(range(len(LATE)))
        random.Random(seed).shuffle(order)
        first += order[0] == 0
    assert whatif.in_orders(of(*LATE), Asha()) == (first, first)
    assert whatif.in_orders(of(*LATE), NoScheduler()) == (whatif.ORDERS, whatif.ORDERS)


@pytest.mark.parametrize("config", [Asha(), Median(grace=2), Hyperband()], ids=whatif.name)
def test_orders_are_counted_as_whole_replays_would_count_them(config: Config) -> None:
    record = make(seed=3)
    kept = 0
    for seed in range(whatif.ORDERS):
        order = list(range(len(record.courses)))
        random.Random(seed).shuffle(order)
        kept += play(record, config, order=order).kept(record)[0]
    assert whatif.in_orders(record, config) == (kept, kept)


def test_the_cheapest_setting_that_keeps_all_is_recommended_where_curves_never_cross() -> None:
    record = of(*([n * 5 % 12 / 12 + e / 100 for e in range(9)] for n in range(12)), full=9)
    answer = whatif.compare(record, whatif.settings(record))
    assert answer.advice
    assert answer.advice.winner and answer.advice.orders == (20, 20) and answer.advice.top[0] >= 3
    cheaper = [o for o in answer.outcomes if o.epochs[1] < answer.advice.epochs[1]]
    assert cheaper and all(o.top[0] < 3 or not o.winner for o in cheaper)


def test_nothing_is_recommended_where_the_winner_came_late_or_trials_are_few() -> None:
    late = whatif.compare(of(*LATE), [Asha()])
    assert late.advice is None
    few = whatif.compare(of(*([n / 12 + e / 100 for e in range(3)] for n in range(9))), [Median(grace=2)])
    assert few.compared == 9 and few.advice is None


@pytest.mark.parametrize("full", [2, 3, 8, 30, 100])
def test_the_grid_holds_every_scheduler_and_the_runs_own_and_each_asha_can_stop(full: int) -> None:
    own = Asha(grace=7, factor=5)
    found = whatif.settings(of((0.1,) * full, full=full), own)
    assert own in found and {config.name for config in found} == {"none", "asha", "hyperband", "median"}
    assert all(config.grace < full for config in found if isinstance(config, Asha) and config != own)


def test_the_median_rule_is_left_out_where_it_would_take_minutes() -> None:
    record = of((0.1,) * 5000, full=5000)
    assert whatif.slow(record)
    assert not any(isinstance(config, Median) for config in whatif.settings(record, Median()))
