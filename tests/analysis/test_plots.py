"""Figures: what each is computed from, against hand counts; and that every one survives odd runs."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pytest

from analysis.folders.parameters import Parameter
from analysis.plots import FIGURES, best_so_far, correlation, curves, importance, interaction
from analysis.plots.dimensions import dimensions
from analysis.results import Results

LR = Parameter("lr", "train.lr", "float", True, log=True, low=1e-4, high=1e-1)
DEPTH = Parameter("depth", "model.depth", "choice", True, choices=(1, 2, 3))
OPT = Parameter("opt", "train.optimizer.name", "choice", False, choices=("adam", "sgd"))
MOMENTUM = Parameter("momentum", "train.momentum", "float", True, low=0, high=1)
ALL = (LR, DEPTH, OPT, MOMENTUM)
# trial, state, accuracy by epoch, lr, depth, optimizer, momentum
TRIALS = (
    ("001", "finished", (0.2, 0.5, 0.4), 1e-3, 1, "adam", None),
    ("002", "stopped", (0.1,), 1e-2, 2, "sgd", 0.9),
    ("003", "finished", (0.3, 0.6, 0.8), 1e-2, 3, "adam", None),
    ("004", "diverged", (math.nan,), 1e-1, 3, "sgd", 0.5),
)


def make(
    rows: tuple[Any, ...] = TRIALS, parameters: tuple[Parameter, ...] = ALL, mode: Literal["max", "min"] = "max"
) -> Results:
    """Results of the rows above; a row's own parameters only as far as they are searched."""
    trials, epochs = [], []
    for number, (trial, state, values, *settings) in enumerate(rows, 1):
        known = [v for v in values if not math.isnan(v)]
        best = (max if mode == "max" else min)(known, default=math.nan)
        fixed = {
            "trial": trial, "number": number, "label": None, "state": state, "reason": None, "epochs": len(values),
            "best_epoch": values.index(best) + 1 if known else math.nan, "full_epochs": 3.0, "seconds": 1.5,
            "started": 0.0, "ended": 1.0, "repeat_of": None, "breaks": None, "val_accuracy": best,
        }  # fmt: skip
        trials.append(fixed | dict(zip((p.column for p in ALL), settings, strict=True)))
        epochs += [{"trial": trial, "epoch": e, "val_accuracy": v} for e, v in enumerate(values, 1)]
    columns = ["trial", "number", "label", "state", "reason", "epochs", "best_epoch", "full_epochs", "seconds",
               "started", "ended", "repeat_of", "breaks", "val_accuracy", *(p.column for p in ALL)]  # fmt: skip
    table = pd.DataFrame(trials, columns=columns).set_index("trial")
    unused = {p.column for p in ALL} - {p.column for p in parameters}
    frame = pd.DataFrame(epochs, columns=["trial", "epoch", "val_accuracy"])
    return Results(
        Path("run"),
        "run",
        "hypertune",
        table.drop(columns=list(unused)),
        frame,
        parameters,
        "val_accuracy",
        mode,
        {},
        (),
    )


def test_best_so_far_steps_up_and_ends_with_the_last_trial() -> None:
    it = best_so_far.compute(make())
    by_trials = it.courses[0]
    assert (by_trials.x, by_trials.best) == ((1, 3, 4), (50.0, 80.0, 80.0))
    assert (by_trials.dot_x, it.dot_y) == ((1, 2, 3), (50.0, 10.0, 80.0))
    assert it.kinds == ("finished", "not finished", "finished")
    assert it.y_title == "validation accuracy (%)"


def test_best_so_far_by_epochs_follows_their_own_order() -> None:
    results = make(TRIALS[:2])
    results.epochs["seq"] = [1, 4, 6, 2]  # 002 ended between the first two epochs of 001
    it = best_so_far.compute(results)
    by_epochs = it.courses[1]
    assert (by_epochs.x, by_epochs.best) == ((1, 3, 4), (20.0, 50.0, 50.0))
    assert (by_epochs.dot_x, it.dot_y) == ((3, 2), (50.0, 10.0))


def test_best_so_far_passes_over_who_cannot_be_best() -> None:
    rows = (("000", "diverged", (0.6, math.nan), 1e-3, 1, "adam", None), *TRIALS, ("005", *TRIALS[2][1:]))
    results = make(rows)
    results.trials["breaks"] = [None, "params <= 9", *[None] * 4]
    results.trials["repeat_of"] = [None] * 5 + ["003"]
    it = best_so_far.compute(results)
    assert (it.courses[0].x, it.courses[0].best) == ((3, 4, 5), (10.0, 80.0, 80.0))
    assert it.courses[0].dot_x == (1, 2, 3, 4)
    assert it.kinds == ("cannot be best", "cannot be best", "not finished", "finished")


def test_best_so_far_steps_down_where_low_is_good() -> None:
    assert best_so_far.compute(make(mode="min")).courses[0].best == (20.0, 10.0, 10.0)


def test_curves_go_from_worst_to_best() -> None:
    it = curves.compute(make())
    assert [(c.trial, c.state, c.epochs) for c in it.curves] == [
        ("002", "stopped", (1,)), ("001", "finished", (1, 2, 3)), ("003", "finished", (1, 2, 3)),
    ]  # fmt: skip
    assert it.curves[1].y == (20.0, 50.0, 40.0)
    assert (it.best, it.best_label, it.full) == ("003", "trial 003, best 80.0%", 3)


@pytest.mark.parametrize("count", [18, 6])  # more values of momentum than colours, and fewer
def test_a_trial_without_the_setting_of_the_colour_is_a_square_of_its_own_group(count: int) -> None:
    rows = tuple(
        (f"{i:03d}", "finished", (i / 20,), 10.0 ** (i / 4 - 4), 1, "adam", i / 9 if i % 2 else None)
        for i in range(count)
    )
    it = interaction.compute(make(rows), color="momentum")
    assert {p.trial for p in it.points if p.group == "not used"} == {f"{i:03d}" for i in range(0, count, 2)}
    shown = {t.name: t.marker.symbol for t in interaction.draw(it).data if t.showlegend is not False}
    assert shown["not used"] == "square"


def test_importance_names_the_branch_where_two_settings_share_a_column() -> None:
    adam, sgd = (
        Parameter(
            f"opt[{o}].lr", "train.lr", "float", True, low=0, high=1, active_when=({"name": "opt", "values": [o]},)
        )
        for o in ("adam", "sgd")
    )
    rows = tuple((f"{i:03d}", "finished", (i / 40,), i / 40, 1, ("adam", "sgd")[i % 2], 0.5) for i in range(40))
    it = importance.compute(make(rows, (OPT, adam, sgd)))
    assert {bar.label for bar in it.bars} == {"optimizer", "learning rate (adam)", "learning rate (sgd)"}
    assert sum(bar.top for bar in it.bars) == pytest.approx(100)
    told = {bar.label: bar.told for bar in it.bars}
    assert told == {"optimizer": False, "learning rate (adam)": True, "learning rate (sgd)": True}


def test_interaction_takes_the_learning_rate_and_the_depth_by_default() -> None:
    it = interaction.compute(make())
    assert (it.x_title, it.y_title, it.colour_title) == ("learning rate (log)", "validation accuracy (%)", "depth")
    assert it.groups == ("1", "2", "3")
    assert {(p.trial, p.x, p.y, p.group, p.state) for p in it.points} == {
        ("003", -2.0, 80.0, "3", "finished"), ("001", -3.0, 50.0, "1", "finished"), ("002", -2.0, 10.0, "2", "stopped"),
    }  # fmt: skip
    assert "stopped at epoch 1" in next(p.hover for p in it.points if p.trial == "002")


def test_interaction_takes_any_pair_and_marks_what_is_not_used() -> None:
    it = interaction.compute(make(), x="depth", color="train.momentum")
    assert (it.x_title, it.colour_title, it.groups) == ("depth", "momentum", ("0.9", "not used"))
    by_category = interaction.compute(make(), x="optimizer", color="lr")
    assert by_category.ticks == ((0.0, 1.0), ("adam", "sgd"))


def test_interaction_refuses_a_setting_that_is_not_there_and_lists_those_that_are() -> None:
    with pytest.raises(ValueError, match=r"no setting 'width'.*train\.lr, model\.depth"):
        interaction.compute(make(), x="width")


def test_a_setting_with_many_values_colours_continuously_and_one_with_many_names_has_others() -> None:
    many = Parameter("opt", "train.optimizer.name", "choice", False, choices=tuple("abcdefgh"))
    rows = tuple((f"{i}", "finished", (i / 10,), 10.0**-i, 1, "abcdefgh"[i], i / 10) for i in range(8))
    it = interaction.compute(make(rows), color="momentum")
    assert it.groups == () and sorted(p.shade for p in it.points) == pytest.approx([i / 10 for i in range(8)])
    it = interaction.compute(make(rows, (LR, many)), color="optimizer")
    assert it.groups == ("a", "b", "c", "d", "e", "others")
    assert {p.group for p in it.points if p.trial in "567"} == {"others"}


# ---------------------------------------------------------------- associations


def test_spearman_against_a_hand_count() -> None:
    # Ranks 1 2 3 4 against 2 1 4 3: 1 - 6 * 4 / (4 * 15) = 0.6.
    assert correlation.spearman(np.array([1.0, 5, 6, 9]), np.array([20.0, 10, 40, 30])) == pytest.approx(0.6)
    assert math.isnan(correlation.spearman(np.ones(4), np.arange(4.0)))


def test_the_correlation_ratio_against_a_hand_count() -> None:
    groups, values = np.array([0, 0, 0, 1, 1, 1]), np.array([1.0, 2, 4, 3, 5, 6])
    # Ranks are the values, total 17.5; within: 4 2/3 in each group; 1 - (28/3 / 17.5) * 5/4 = 1/3.
    assert correlation.correlation_ratio(groups, values) == pytest.approx(math.sqrt(1 / 3))
    assert correlation.correlation_ratio(np.array([0, 0, 1, 1]), np.array([1.0, 4, 2, 3])) == 0
    assert math.isnan(correlation.correlation_ratio(np.array([0, 1, 2]), np.arange(3.0)))


def test_cramers_v_against_a_hand_count() -> None:
    a, b = np.array([0] * 10 + [1] * 10), np.array([0] * 8 + [1] * 2 + [0] * 2 + [1] * 8)
    # chi2 = 4 * 9 / 5 = 7.2, phi2 = 0.36 - 1/19; k = 2 - 1/19, less 1.
    assert correlation.cramers_v(a, b) == pytest.approx(math.sqrt((0.36 - 1 / 19) / (1 - 1 / 19)))
    assert correlation.cramers_v(a, a) == pytest.approx(1.0)
    assert math.isnan(correlation.cramers_v(a, np.zeros(20, dtype=int)))


def test_the_heatmap_counts_pairs_and_picks_the_measure_by_kind() -> None:
    other = Parameter("act", "model.act", "choice", False, choices=("relu", "gelu"))
    rows = tuple(
        (f"{i}", "finished", (i / 10,), 10.0 ** -(9 - i), i % 3, "adam" if i < 4 else "sgd", None if i < 4 else i / 9)
        for i in range(8)
    )
    results = make(rows)
    results.trials["model.act"] = ["relu", "gelu"] * 4
    results = Results(**{**vars(results), "parameters": (*ALL, other)})
    it = correlation.compute(results)
    cells = {(c.row, c.column): c for c in it.cells}
    assert it.names == ("learning rate", "depth", "optimizer", "momentum", "act", "validation accuracy (rank)")
    assert len(cells) == 15
    with_lr = cells["validation accuracy (rank)", "learning rate"]
    assert (with_lr.kind, with_lr.n) == ("spearman", 8)
    assert with_lr.value == pytest.approx(1.0)
    assert cells["validation accuracy (rank)", "optimizer"].kind == "ratio"
    assert cells["act", "optimizer"].kind == "cramer"
    assert cells["momentum", "optimizer"] == ("momentum", "optimizer", "ratio", None, 4, "too few trials")


def test_a_sign_is_printed_only_where_there_can_be_one() -> None:
    texts = [correlation.Cell("a", "b", "spearman", v, 9).text for v in (0.251, -0.5, 0.001, None)]
    assert texts == ["+0.25", "−0.50", "0.00", ""]
    assert correlation.Cell("a", "b", "cramer", 0.25, 9).text == "0.25"


# ---------------------------------------------------------------- words


def test_several_parameters_of_one_column_share_an_axis() -> None:
    low = Parameter("opt[adam].lr", "train.lr", "float", True, log=True, low=1e-4, high=1e-2)
    high = Parameter("opt[sgd].lr", "train.lr", "float", True, log=True, low=1e-2, high=1)
    assert [d.title for d in dimensions(make(parameters=(low, high)))] == ["learning rate (log)"]


# ---------------------------------------------------------------- odd runs

ODD = {
    "one trial": make(TRIALS[:1]),
    "no trial": make(()),
    "all failed": make((("001", "failed", (), 1e-3, 1, "adam", None), ("002", "failed", (), 1e-2, 2, "sgd", 0.9))),
    "all diverged": make((TRIALS[3], ("005", "diverged", (math.nan,), 1e-2, 1, "adam", None))),
    "none finished": make((TRIALS[1], ("005", "running", (0.2, 0.3), 1e-3, 1, "adam", None))),
    "no parameters": make(parameters=()),
    "one categorical only": make(parameters=(OPT,)),
    "the same value throughout": make(tuple((f"{i}", "finished", (0.5,), 1e-3, i, "adam", 0.1) for i in range(6))),
    "no metric": Results(**{**vars(make()), "metric": None}),
    "hostile names": make(
        (("<b>1", "finished", (0.1,), 1e-3, 1, "$\\frac{x$<script>", None),
         ("2", "stopped", (0.3,), 1e-2, 2, "日本", 0.2)),
        (Parameter("opt", "train.optimizer.name", "choice", False, choices=("$\\frac{x$<script>", "日本")), LR),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.parametrize("results", ODD.values(), ids=ODD.keys())
def test_every_figure_draws_or_says_why_not(name: str, results: Results) -> None:
    compute: Callable[..., Any] = FIGURES[name].compute
    it = compute(results)
    figure = FIGURES[name].draw(it)
    assert bool(it.note) == (not figure.data)
    assert "<script>" not in figure.to_json()
    assert FIGURES[name].draw_static(it).get_size_inches()[0] == 10
