"""The Pareto front and the noise floor: hand counts, and the front against Optuna's."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis import pareto
from analysis.folders.goal import Goal, Objective, read_goal
from analysis.plots import pareto as figure
from analysis.repeats import repeats
from analysis.results import Results

BOTH = Goal((Objective("acc", "max"), Objective("params", "min")))


def run(rows: list[tuple[float, float]], goal: Goal = BOTH, **changes: list[Any]) -> Results:
    """Finished trials 000, 001, ... with accuracy and parameters at their best epoch."""
    fixed: dict[str, Any] = {"state": "finished", "label": None, "epochs": 1, "repeat_of": None, "breaks": None}
    table = pd.DataFrame(rows, columns=["acc", "params"]).assign(**fixed | changes)
    table.index = pd.Index([f"{n:03d}" for n in range(len(rows))], name="trial")
    epochs = table.reset_index()[["trial", "acc", "params"]].assign(epoch=1)
    return Results(Path(), "run", "hypertune", table, epochs, (), "acc", "max", {}, (), goal)


FIVE = [(0.5, 100.0), (0.9, 900.0), (0.8, 300.0), (0.7, 400.0), (0.8, 300.0)]


def test_the_front_is_who_is_not_beaten_best_first_and_equals_stand_together() -> None:
    assert pareto.front(run(FIVE)) == ["001", "002", "004", "000"]


def test_repeats_breakers_and_trials_without_every_value_are_not_on_it() -> None:
    none = [None] * 5
    assert pareto.front(run(FIVE, repeat_of=[None, "000", *none[2:]])) == ["002", "004", "000"]
    assert pareto.front(run(FIVE, breaks=[None, "params <= 800", *none[2:]])) == ["002", "004", "000"]
    assert pareto.front(run([*FIVE, (math.nan, 1.0), (1.0, math.inf)])) == pareto.front(run(FIVE))


def test_one_objective_has_its_best_trials_and_none_has_no_front() -> None:
    assert pareto.front(run(FIVE, Goal((Objective("params", "min"),)))) == ["000"]
    assert pareto.front(run(FIVE, Goal())) == []
    assert pareto.front(run(FIVE, Goal((Objective("speed", "max"),)))) == []


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=12))
def test_the_front_is_optunas(rows: list[tuple[int, int]]) -> None:
    study = optuna.create_study(directions=["maximize", "minimize"])
    study.add_trials([optuna.trial.create_trial(values=[float(v) for v in row]) for row in rows])
    expected = {f"{trial.number:03d}" for trial in study.best_trials}
    assert set(pareto.front(run([(float(a), float(p)) for a, p in rows]))) == expected


def test_the_figure_tells_the_front_from_the_rest_and_draws_wide_ranges_on_a_logarithm() -> None:
    it = figure.compute(run([*FIVE, (0.95, 9000.0)], breaks=[None] * 5 + ["params <= 800"]))
    kinds = {p.trial: p.kind for p in it.points}
    assert kinds == {"001": "front", "002": "front", "004": "front", "000": "front", "003": "other", "005": "breaks"}
    assert (it.points[0].x, it.points[0].y) == (100.0, 50.0)
    assert (it.x_title, it.y_title, it.log, it.step) == ("parameters (log)", "accuracy (%)", True, "hv")
    assert it.ticks[0] == (100.0, "100") and it.ticks[-1][1].endswith("k")
    assert not figure.compute(run(FIVE)).log


def test_the_figure_of_three_objectives_has_no_line_and_that_of_one_takes_what_a_trial_costs() -> None:
    three = Goal((*BOTH.objectives, Objective("epochs", "min")))
    assert figure.compute(run(FIVE, three)).step is None
    one = Goal(BOTH.objectives[:1])
    assert figure.compute(run(FIVE, one)) == figure.compute(run(FIVE))
    assert figure.compute(run([(acc, 7.0) for acc, _ in FIVE], one)).note.startswith("The run has one objective, and")
    assert figure.compute(run([(math.nan, 1.0)])).note == "No trial has a value of every objective yet."


def test_a_goal_is_read_as_far_as_it_is_sound() -> None:
    goal = read_goal(
        {
            "objectives": [{"metric": "acc", "mode": "max"}, None, {"metric": 3}, {"metric": "b", "mode": "up"}],
            "constraints": ["params <= 200,000", "x < 3", 7, "y >= few", "acc >= 0.5"],
        }
    )
    assert goal.objectives == (Objective("acc", "max"), Objective("b", None))
    assert [(c.metric, c.sense, c.bound) for c in goal.constraints] == [("params", "<=", 2e5), ("acc", ">=", 0.5)]
    assert goal.broken({"params": 200_001, "acc": None}) == ("params <= 200,000",)
    assert goal.broken({"params": 200_000, "acc": 0.4}) == ("acc >= 0.5",)


def test_the_noise_floor_is_the_spread_of_a_trial_and_its_repeats() -> None:
    found = repeats(run([(0.8, 1), (0.9, 1), (0.7, 1), (math.nan, 1)], repeat_of=[None, None, "000", "000"]))
    assert found is not None
    assert list(found) == ["000", (0.8, 0.7)]
    assert (found.mean, found.deviation) == pytest.approx((0.75, 0.0707107))


def test_without_a_second_value_there_is_no_noise_floor() -> None:
    assert repeats(run(FIVE)) is None
    assert repeats(run([(0.8, 1), (math.nan, 1)], repeat_of=[None, "000"])) is None
