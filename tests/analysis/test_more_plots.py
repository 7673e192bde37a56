"""Figures of what mattered and what it costs, against values worked out another way; that each survives odd runs."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import pytest

import analysis
from analysis import effects as statistics
from analysis import pareto as front
from analysis import style
from analysis.findings import findings
from analysis.folders.goal import Goal, Objective
from analysis.folders.parameters import Parameter
from analysis.importance import Importance, MainEffect, Weighed
from analysis.interactions import Interaction
from analysis.page import report
from analysis.plots import FIGURES, edf, effects, hypervolume, importance, pairs, pareto, rank, slice
from analysis.results import Results
from analysis.settings import Floats, settings

LR = Parameter("lr", "lr", "float", True, log=True, low=1e-4, high=1e-1)
DROPOUT = Parameter("dropout", "dropout", "float", True, low=0, high=0.5)
DEPTH = Parameter("depth", "depth", "int", True, low=1, high=3)
OPTIMIZER = Parameter("optimizer", "optimizer", "choice", False, choices=("adam", "sgd"))
ALL = (LR, DROPOUT, DEPTH, OPTIMIZER)
BOTH = Goal((Objective("val_accuracy", "max"), Objective("params", "min")))
EVIL = "$\\frac{x$</script><img src=x onerror=alert(1)>日本" + "long" * 60
NAMES = ("importance", "effects", "pairs", "slice", "edf", "rank", "hypervolume", "pareto")
FIXTURES = sorted(p.name for p in (Path(__file__).parents[1] / "fixtures").iterdir() if p.is_dir())


def make(accuracy: Sequence[float] | Floats, parameters: tuple[Parameter, ...] = ALL, **columns: Any) -> Results:
    """One epoch a trial; of NaN a trial that failed. Settings that are not given are drawn."""
    count, rng = len(accuracy), np.random.default_rng(0)
    value = np.array(accuracy, dtype=float)
    ids = pd.Index([f"{n:04d}" for n in range(1, count + 1)], name="trial", dtype="str")
    drawn: Mapping[str, Any] = {
        "lr": 10 ** rng.uniform(-4, -1, count), "dropout": rng.uniform(0, 0.5, count),
        "depth": rng.integers(1, 4, count).astype(float),
        "optimizer": rng.choice(["adam", "sgd"], count).astype(object),
    }  # fmt: skip
    table: dict[str, Any] = {
        "number": np.arange(1, count + 1), "label": None, "state": np.where(np.isnan(value), "failed", "finished"),
        "reason": None, "epochs": np.where(np.isnan(value), 0, 1), "best_epoch": np.where(np.isnan(value), np.nan, 1.0),
        "full_epochs": 1.0, "seconds": 1.0, "started": 0.0, "ended": 1.0, "repeat_of": None, "breaks": None,
        "val_accuracy": value, **{p.column: drawn[p.column] for p in parameters if p.column in drawn}, **columns,
    }  # fmt: skip
    told = np.flatnonzero(~np.isnan(value))
    epochs = pd.DataFrame({"trial": ids[told], "epoch": np.int64(1), "val_accuracy": value[told]})
    trials = pd.DataFrame(table, index=ids)
    return Results(Path("run"), "run", "hypertune", trials, epochs, parameters, "val_accuracy", "max", {}, ())


def ahead(accuracy: Sequence[float]) -> list[float]:
    """Of how many others each is ahead, in percent; equal ones half: pair by pair."""
    count = len(accuracy)
    return [
        100 * sum((a > b) + (a == b) / 2 for j, b in enumerate(accuracy) if j != i) / (count - 1)
        for i, a in enumerate(accuracy)
    ]


def main_effect(results: Results, name: str, at: Sequence[float], mean: Sequence[float]) -> MainEffect:
    setting = next(s for s in settings(results) if s.name == name)
    middle = np.array(mean)
    return MainEffect(setting, np.array(at), middle, middle - 0.1, middle + 0.1)


# ---------------------------------------------------------------- importance


def weight(name: str, share: float, top: float, p: float = 0.005) -> Importance:
    return Importance(name, name, share, share - 0.1, share + 0.2, top, top - 0.1, top + 0.1, 0.2, p, 30)


def test_bars_are_shares_in_percent_with_whiskers_to_the_ends_of_their_intervals() -> None:
    told = Weighed((weight("lr", 0.5, 0.6), weight("depth", 0.2, 0.3, p=0.3), weight("wd", math.nan, 0.1)))
    it = importance.compute(make([0.5]), told)
    assert [tuple(round(v, 6) for v in bar[1:7]) for bar in it.bars] == [
        (50, 40, 70, 60, 50, 70), (20, 10, 40, 30, 20, 40), (0, 0, 0, 10, 0, 20),
    ]  # fmt: skip
    assert [bar.told for bar in it.bars] == [True, False, True]
    assert "50% (40% to 70%) of all differences" in it.bars[0].hover and "– of all" in it.bars[2].hover
    first, second = importance.draw(it).data
    assert list(first.x) == pytest.approx([50, 20, 0]) and list(second.x) == pytest.approx([60, 30, 10])
    assert list(first.error_x.array) == pytest.approx([20, 20, 0])
    assert list(first.error_x.arrayminus) == pytest.approx([10, 10, 0])
    assert list(first.marker.color) == [style.CATEGORIES[0], style.PALE, style.CATEGORIES[0]]


def test_fifteen_settings_have_bars_and_the_rest_is_counted() -> None:
    it = importance.compute(make([0.5]), Weighed(tuple(weight(f"s{n}", 0.02, 0.02) for n in range(20))))
    assert [bar.label for bar in it.bars] == [f"s{n}" for n in range(15)] and it.left_out == 5
    assert importance.draw(it).layout.xaxis2.title.text.replace("<br>", " ").endswith("5 more settings have less")


def test_what_decides_has_the_longest_bar_for_certain() -> None:
    results = make([0.5] * 40)
    results = make([0.5 + 0.1 * math.log10(v) for v in results.trials["lr"]])
    it = importance.compute(results)
    assert (it.bars[0].label, it.bars[0].told) == ("learning rate", True)
    assert it.bars[0].low > max(bar.share for bar in it.bars[1:])


# ---------------------------------------------------------------- effects, slice, rank


def test_each_panel_holds_its_trials_at_their_standing_and_the_course_that_the_forest_expects() -> None:
    accuracy = [0.1, 0.3, 0.3, 0.5, 0.9]
    results = make(accuracy, lr=[1e-4, 1e-3, 1e-2, 1e-2, 1e-1], depth=[1.0, 2, 3, 3, 1])
    courses = (
        main_effect(results, "lr", [-3, -2], [0.2, 0.6]),
        main_effect(results, "depth", [1, 2, 3], [0.1, 0.5, 1]),
    )
    it = effects.compute(results, Weighed((), courses))
    lr, depth = it.panels
    assert (lr.title, depth.title) == ("learning rate (log)", "depth")
    assert lr.x == pytest.approx((-4, -3, -2, -2, -1)) and list(lr.y) == pytest.approx(ahead(accuracy))
    assert lr.at == (-3, -2) and lr.mean == pytest.approx((20, 60))
    assert lr.low == pytest.approx((10, 50)) and lr.high == pytest.approx((30, 70))
    assert (lr.separate, depth.separate) == (False, True)
    assert np.abs(np.array(depth.x) - [1, 2, 3, 3, 1]).max() <= 0.12  # beside each other, not on another value
    assert depth.ticks == ((1, 2, 3), ("1", "2", "3"))
    assert lr.hover[0] == "trial 0001: learning rate 1e-4, ahead of 0%"


def test_a_trial_has_no_dot_where_it_did_not_use_the_setting_or_has_no_value() -> None:
    results = make([0.1, 0.2, math.nan, 0.4], optimizer=["adam", None, "sgd", "sgd"])
    it = effects.compute(results, Weighed((), (main_effect(results, "optimizer", [0, 1], [0.5, 0.5]),)))
    assert [text.split(":")[0] for text in it.panels[0].hover] == ["trial 0001", "trial 0004"]


def test_slices_hold_the_metric_as_shown_whether_it_is_final_and_when_it_was_tried() -> None:
    results = make([0.2, 0.4, math.nan, 0.3], lr=[1e-4, 1e-2, 1e-2, 1e-1], repeat_of=[None, None, None, "0001"])
    results.trials.loc["0002", "state"] = "stopped"
    it = slice.compute(results)
    lr = next(one for one in it.slices if one.title == "learning rate (log)")
    assert lr.x == pytest.approx((-4, -2)) and lr.y == (20, 40)
    assert (lr.number, lr.whole) == ((1, 2), (True, False))
    assert it.y_title == "validation accuracy (%)"


@pytest.mark.parametrize(
    ("mode", "accuracy", "ends"),
    [("max", [0, 0.5, 0.5, 0.5, 0.6], (20, 60)), ("min", [1, 0.5, 0.5, 0.5, 0.4], (40, 80))],
)
def test_what_lies_far_on_the_bad_side_is_outside_of_a_slice(mode: Any, accuracy: list[float], ends: Any) -> None:
    # The median is 50, the best 10 away from it: the bad end three times as far, and 5% of the height on both sides.
    assert slice.compute(replace(make(accuracy), mode=mode)).y_range == pytest.approx((ends[0] - 2, ends[1] + 2))


def test_ranks_pair_the_four_most_important_settings_and_draw_the_best_last() -> None:
    accuracy = [0.4, 0.1, 0.3, 0.3, 0.9]
    results = make(accuracy, lr=[1e-4, 1e-3, 1e-2, 1e-2, 1e-1], dropout=[0.1, 0.2, 0.3, 0.4, 0.5])
    courses = [main_effect(results, s.name, [0, 1], [0.5, 0.5]) for s in settings(results)]
    it = rank.compute(results, Weighed((), tuple(courses)))
    assert len(it.pairs) == math.comb(len(courses), 2)
    one = it.pairs[0]
    assert (one.x_title, one.y_title) == ("learning rate (log)", "dropout")
    assert one.shade == pytest.approx(sorted(ahead(accuracy)))
    assert one.x == pytest.approx((-3, -2, -2, -4, -1)) and one.y == pytest.approx((0.2, 0.3, 0.4, 0.1, 0.5))
    assert "fewer" in rank.compute(results, Weighed((), tuple(courses[:1]))).note.lower()


# ---------------------------------------------------------------- pairs


def test_a_map_holds_the_surface_with_the_setting_of_few_values_upwards() -> None:
    accuracy = [0.1, 0.3, 0.5, 0.9]
    results = make(accuracy, lr=[1e-4, 1e-3, 1e-2, 1e-1], depth=[1.0, 2, 3, 3])
    surface = np.array([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]])  # learning rates down, depths across
    places = np.array([-3.0, -2.0]), np.array([1.0, 2.0, 3.0])
    across = Interaction("lr", "depth", ("lr", "depth"), 0.25, 0.005, 4, surface, *places)
    upright = Interaction("depth", "lr", ("depth", "lr"), 0.25, 0.3, 4, surface.T, *places[::-1])
    weak = across._replace(share=0.001)
    for one in pairs.compute(results, (across, upright)).maps:
        assert (one.x_title, one.y_title, one.x, one.y) == ("learning rate (log)", "depth", (-3, -2), (1, 2, 3))
        assert one.z == ((10, 40), (20, 50), (30, 60))
        assert [x for x, _ in one.dots] == pytest.approx([-4, -3, -2, -1])
        assert np.abs(np.array([y for _, y in one.dots]) - [1, 2, 3, 3]).max() <= 0.2
    said = [one.said for one in pairs.compute(results, (across, upright, weak)).maps]
    assert said == [
        "25% of all differences, p ≤ 0.005",
        "25% of all differences, p = 0.3", "no more than chance",
    ]  # fmt: skip


# ---------------------------------------------------------------- distribution


def reached(accuracy: Sequence[float], at: float, mode: str) -> float:
    return 100 * float(np.mean([v >= at - 1e-9 if mode == "max" else v <= at + 1e-9 for v in accuracy]))


@pytest.mark.parametrize("mode", ["max", "min"])
def test_the_distribution_says_what_share_of_the_trials_reached_a_value(mode: Any) -> None:
    accuracy = [0.1, 0.4, 0.2, 0.3, 0.3]
    line = edf.compute(replace(make(accuracy), mode=mode), ()).lines[0]
    found = dict(zip(line.x, line.share, strict=True))  # of equal values the last, where the step ends
    assert len(found) == len(set(accuracy))
    assert all(share == pytest.approx(reached(accuracy, x / 100, mode)) for x, share in found.items())
    assert all(a < b for a, b in pairwise(line.share)) and line.trials == 5


def test_the_strongest_setting_of_few_values_that_is_sure_has_a_line_for_each() -> None:
    kinds = ["adam", "sgd"] * 15
    results = make([0.5 + 0.3 * (kind == "adam") + n / 1000 for n, kind in enumerate(kinds)], optimizer=kinds)
    told = statistics.effects(results)
    lines = edf.compute(results, told).lines
    assert [(one.name, one.trials) for one in lines] == [
        ("all trials", 30), ("optimizer adam", 15), ("optimizer sgd", 15),
    ]  # fmt: skip
    assert min(lines[1].x) == pytest.approx(80) and max(lines[2].x) == pytest.approx(52.9)
    assert len(edf.compute(results, tuple(one._replace(adjusted=0.5) for one in told)).lines) == 1


def test_repeats_and_trials_without_a_value_are_not_in_the_distribution() -> None:
    results = make([0.1, 0.4, math.nan, 0.3], repeat_of=[None, None, None, "0001"])
    assert edf.compute(results, ()).lines[0].x == pytest.approx((40, 10))


# ---------------------------------------------------------------- cost


def test_the_hypervolume_is_what_brute_force_counts() -> None:
    points = np.random.default_rng(1).uniform(size=(25, 2)).round(1)
    edges = np.unique([0.0, 1.0, *points.ravel()])
    width, middle = np.diff(edges), (edges[1:] + edges[:-1]) / 2
    cells = np.outer(width, width)
    expected = []
    for n in range(1, len(points) + 1):
        beaten = ((points[:n, 0, None, None] > middle[:, None]) & (points[:n, 1, None, None] > middle)).any(axis=0)
        expected.append(float(cells[beaten].sum()))
    assert hypervolume.volumes(points) == pytest.approx(expected)


def test_the_hypervolume_grows_with_trials_that_may_be_best_in_the_box_that_the_run_saw() -> None:
    # Scaled: accuracy 0, 1/2, 1; parameters from the worst 0, 3/4, 1/2.
    results = make([0.2, 0.4, 0.6, 0.9], params=[900.0, 300.0, 500.0, 100.0], breaks=[None, None, None, "x <= 1"])
    results = replace(results, goal=BOTH)
    scaled = [(0, 0), (0.5, 1), (1, 2 / 3)]
    assert hypervolume.compute(results).share == pytest.approx([100 * v for v in hypervolume.volumes(np.array(scaled))])
    assert hypervolume.compute(results).share == pytest.approx((0, 50, 100 * (0.5 + 0.5 * 2 / 3)))
    assert hypervolume.compute(results).x == (1, 2, 3)


def test_the_costs_of_a_run_with_one_objective_are_the_first_known_that_varied() -> None:
    results = make([0.2, 0.4])
    costs = ["params", "latency_ms", "seconds"]
    for n, name in enumerate(costs):
        table = results.trials.assign(**dict.fromkeys(costs[:n], 7.0), **{cost: [1.0, 2.0] for cost in costs[n:]})
        assert [goal.metric for goal in front.goals(replace(results, trials=table))] == ["val_accuracy", name]
    assert front.goals(results) == () and front.goals(replace(results, metric=None)) == ()
    assert front.goals(replace(results, trials=results.trials.assign(params=[1.0, 2.0]), goal=BOTH)) == BOTH.objectives


def test_the_drawn_front_is_brute_forces_and_optunas() -> None:
    rng = np.random.default_rng(2)
    rows = list(zip(rng.integers(1, 9, 30) / 10, rng.integers(1, 9, 30).astype(float), strict=True))
    results = make([a for a, _ in rows], params=[p for _, p in rows])
    chosen = {int(p.trial) - 1 for p in pareto.compute(results).points if p.kind == "front"}
    beaten = {n for n, (a, p) in enumerate(rows) if any(b >= a and q <= p and (b, q) != (a, p) for b, q in rows)}
    study = optuna.create_study(directions=["maximize", "minimize"])
    study.add_trials([optuna.trial.create_trial(values=list(row)) for row in rows])
    assert chosen == set(range(30)) - beaten == {trial.number for trial in study.best_trials}


@pytest.mark.parametrize(
    ("rows", "knee"),
    [
        ([(0.5, 10.0), (0.9, 20.0), (0.92, 99.0)], "0002"),  # more parameters than those of 0002 bring next to nothing
        ([(0.5, 10.0), (0.7, 30.0), (0.9, 50.0)], None),  # a straight line
        ([(0.5, 10.0), (0.6, 45.0), (0.9, 50.0)], None),  # bends the other way
        ([(0.5, 10.0), (0.9, 20.0)], None),
        ([(0.5, 1.0), (0.7, 100.0), (0.9, 10000.0)], None),  # straight in the logarithm of what it costs
        ([(0.5, 10.0), (0.5, 10.0), (0.5, 10.0)], None),
    ],
)
def test_the_knee_is_where_more_begins_to_cost_much(rows: list[tuple[float, float]], knee: str | None) -> None:
    results = make([a for a, _ in rows], params=[p for _, p in rows])
    assert front.knee(results, BOTH.objectives) == knee
    it = pareto.compute(replace(results, goal=BOTH))
    assert it.knee == knee
    assert ("(knee)" in "".join(text for trace in pareto.draw(it).data for text in trace.text)) == bool(knee)


def test_names_on_the_front_stay_inside_and_only_large_costs_are_written_with_letters() -> None:
    rows = [(0.5, 1.0), (0.6, 2.0), (0.9, 9.0)]
    small, large = (
        pareto.draw(pareto.compute(make([a for a, _ in rows], params=[k * p for _, p in rows]))) for k in (1, 1e3)
    )
    assert list(small.data[0].textposition) == ["top right", "top right", "top left"]
    assert (small.layout.xaxis.tickformat, large.layout.xaxis.tickformat) == (None, "~s")


# ---------------------------------------------------------------- long names


def test_a_long_name_is_cut_in_ticks_and_whole_in_what_hovers() -> None:
    kinds = [EVIL + str(n % 2) for n in range(4)]
    other = replace(OPTIMIZER, choices=(EVIL + "0", EVIL + "1"))
    results = make([0.1, 0.2, 0.3, 0.4], (other,), optimizer=kinds)
    it = slice.compute(results).slices[0]
    assert it.ticks is not None
    assert [len(text) for text in it.ticks[1]] == [18, 18] and all(text.endswith("…") for text in it.ticks[1])
    assert all(EVIL in text for text in it.hover)


# ---------------------------------------------------------------- odd runs and real ones


SOME = np.random.default_rng(3).uniform(0.1, 0.9, 30)
MANY = replace(OPTIMIZER, choices=tuple(f"kind {n}" for n in range(2000)))
HOSTILE = replace(OPTIMIZER, name=EVIL, column=EVIL, choices=(EVIL + "0", EVIL + "1"))
ODD = {
    "no trial": lambda: make([]),
    "one trial": lambda: make([0.5]),
    "all failed": lambda: make([math.nan] * 12),
    "constant settings": lambda: make(SOME, lr=1e-3, dropout=0.1, depth=2.0, optimizer="adam"),
    "no settings": lambda: make(SOME, ()),
    "no metric": lambda: replace(make(SOME), metric=None),
    "equal trials": lambda: make([0.5] * 30),
    "lowest is best": lambda: replace(make(SOME), mode="min"),
    "one setting": lambda: make(SOME, (LR,)),
    "a branch": lambda: make(SOME, dropout=[None if n % 3 else v / 2 for n, v in enumerate(SOME)]),
    "one category a trial": lambda: make(SOME, (LR, MANY), optimizer=[f"kind {n}" for n in range(30)]),
    "2,000 categories": lambda: make(SOME, (LR, MANY), optimizer=[f"kind {n // 2 * 99}" for n in range(30)]),
    "hostile names": lambda: make(
        SOME, (LR, HOSTILE), label=EVIL, params=1e6 * SOME[::-1], **{EVIL: [EVIL + str(n % 2) for n in range(30)]}
    ),
    "two objectives": lambda: replace(make(SOME, params=9 * SOME[::-1]), goal=BOTH),
}


@cache
def computed(name: str) -> Mapping[str, Any]:
    """What the report draws of an odd run or of a fixture, from few shuffles; a front's growth where there is none."""
    results = ODD[name]() if name in ODD else analysis.load(Path(__file__).parents[1] / "fixtures" / name)
    with pytest.MonkeyPatch.context() as quick:
        for module, names in (("importance", ("SHUFFLES", "RESAMPLES")), ("interactions", ("SHUFFLES",))):
            for constant in names:
                quick.setattr(f"analysis.{module}.{constant}", 9)
        quick.setattr("analysis.importance.REPLICATES", 3)
        quick.setattr("analysis.effects.MOST", 1.0)  # formulas instead of permutations
        return {"hypervolume": hypervolume.compute(results), **report.compute(results, findings(results))}


@pytest.mark.parametrize("figure", NAMES)
@pytest.mark.parametrize("run", [*ODD, *FIXTURES])
def test_every_figure_is_drawn_or_says_why_not(run: str, figure: str) -> None:
    it = computed(run)[figure]
    drawn = FIGURES[figure].draw(it)
    assert bool(it.note) == (not drawn.data) and "<img" not in drawn.to_json()
    texts = [text for axis in drawn.select_xaxes() for text in axis.ticktext or ()]
    assert all(len(text) <= 60 for text in texts) and len(texts) <= 10 * max(1, len(drawn.data))
    assert FIGURES[figure].draw_static(it).get_size_inches()[0] == 10


@pytest.mark.parametrize("figure", NAMES)
@pytest.mark.parametrize("run", ["hostile names", "one category a trial", "2,000 categories"])
def test_names_leave_room_for_the_figure(run: str, figure: str, recwarn: pytest.WarningsRecorder) -> None:
    from matplotlib import rc_context

    with rc_context({"text.parse_math": False}):
        FIGURES[figure].draw_static(computed(run)[figure]).savefig(io.BytesIO(), dpi=40)
    assert [str(one.message) for one in recwarn if "Glyph" not in str(one.message)] == []


EMPTY = {
    "importance": {"no trial", "one trial", "all failed", "constant settings", "no settings", "no metric"},
    "pairs": {"no trial", "one trial", "all failed", "constant settings", "no settings", "no metric", "one setting"},
    "slice": {"no trial", "one trial", "all failed", "constant settings", "no settings", "no metric"},
    "edf": {"no trial", "one trial", "all failed", "no metric"},
    "hypervolume": {*ODD} - {"two objectives"},
    "pareto": {*ODD} - {"two objectives", "hostile names"},
}


@pytest.mark.parametrize("figure", EMPTY)
def test_a_figure_is_empty_just_where_there_is_nothing_to_draw(figure: str) -> None:
    assert {run for run in ODD if computed(run)[figure].note} - {"equal trials"} == EMPTY[figure] - {"equal trials"}
    assert all(computed(run)[figure].note.endswith((".", ":")) for run in EMPTY[figure])
