"""Parallel coordinates: what is drawn, against hand counts; and what the page's widget is told."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pytest

from analysis import style
from analysis.folders.parameters import Parameter
from analysis.page import pages
from analysis.plots import parallel
from analysis.results import Results

LR = Parameter("lr", "train.lr", "float", True, log=True, low=1e-4, high=1e-1)
DEPTH = Parameter("depth", "model.depth", "choice", True, choices=(1, 2, 3))
OPT = Parameter("opt", "train.optimizer.name", "choice", False, choices=("adam", "sgd"))
MOMENTUM = Parameter("momentum", "train.momentum", "float", True, low=0, high=1)
ALL = (LR, DEPTH, OPT, MOMENTUM)
# trial, label, state, accuracy by epoch, lr, depth, optimizer, momentum
TRIALS = (
    ("001", "start", "finished", (0.2, 0.5, 0.4), 1e-3, 1, "adam", None),
    ("002", None, "stopped", (0.1,), 1e-2, 2, "sgd", 0.9),
    ("003", None, "finished", (0.3, 0.6, 0.8), 1e-2, 3, "adam", None),
    ("004", None, "diverged", (math.nan,), 1e-1, 3, "sgd", 0.5),
)


def make(
    rows: Sequence[Any] = TRIALS, parameters: tuple[Parameter, ...] = ALL, mode: Literal["max", "min"] = "max"
) -> Results:
    trials, epochs = [], []
    for trial, label, state, values, *settings in rows:
        known = [v for v in values if not math.isnan(v)]
        best = (max if mode == "max" else min)(known, default=math.nan)
        fixed = {"trial": trial, "label": label, "state": state, "epochs": len(values), "repeat_of": None,
                 "breaks": None, "val_accuracy": best}  # fmt: skip
        trials.append(fixed | dict(zip((p.column for p in ALL), settings, strict=True)))
        epochs += [{"trial": trial, "epoch": e, "val_accuracy": v} for e, v in enumerate(values, 1)]
    table, frame = pd.DataFrame(trials).set_index("trial"), pd.DataFrame(epochs)
    return Results(Path("run"), "run", "ray", table, frame, parameters, "val_accuracy", mode, {}, ())


def crowd(count: int) -> Results:
    """Finished trials from the worst, 0000, to the best, all alike but for their depth of 1 to 3."""
    return make([(f"{i:04d}", None, "finished", (i / count,), 1e-3, i % 3 + 1, "adam", 0.5) for i in range(count)])


def lanes_of(results: Results) -> dict[str, parallel.Lane]:
    return {lane.title: lane for lane in parallel.compute(results).lanes}


def test_trials_go_from_worst_to_best_in_words() -> None:
    it = parallel.compute(make())
    assert it.trials == ("004", "002", "001", "003")
    assert it.names == ("trial 004", "trial 002", "trial 001 (start)", "trial 003")
    assert it.reached == ("–", "10.0%", "50.0%", "80.0%")
    assert it.outcomes == ("diverged at epoch 1", "stopped at epoch 1", "finished", "finished")
    assert (it.colour, it.colour_range) == ((10.0, 10.0, 50.0, 80.0), (10.0, 80.0))
    assert (it.bold, it.total) == (1, 4)


def test_a_lane_a_setting_then_the_epochs_then_the_metric() -> None:
    lanes = lanes_of(make())
    assert [(lane.title, lane.kind, lane.exact) for lane in lanes.values()] == [
        ("learning rate (log)", "log", False), ("depth", "number", True), ("optimizer", "category", True),
        ("momentum", "number", True), ("epochs trained", "number", True), ("validation accuracy (%)", "number", False),
    ]  # fmt: skip
    assert lanes["learning rate (log)"].positions == pytest.approx((-1, -2, -3, -2))
    assert lanes["learning rate (log)"].texts == ("0.001", "0.003", "0.01", "0.03", "0.1")
    assert lanes["optimizer"].positions == (1, 1, 0, 0)
    assert lanes["validation accuracy (%)"].positions[1:] == (10, 50, 80)
    assert lanes["validation accuracy (%)"].ticks[0] == 0 and lanes["validation accuracy (%)"].ticks[-1] == 80


def test_a_missing_value_has_a_lane_of_its_own_below() -> None:
    momentum, lr, metric = (lanes_of(make())[n] for n in ("momentum", "learning rate (log)", "validation accuracy (%)"))
    assert momentum.positions[:2] == (0.5, 0.9) and np.isnan(momentum.positions[2:]).all()
    assert momentum.floor is not None and momentum.bottom < momentum.floor < momentum.low < 0.5
    assert momentum.crossings[2] == pytest.approx(momentum.floor, abs=0.01)
    assert momentum.labels == ((momentum.floor, "not used"), (0.5, "0.5"), (0.9, "0.9"))
    assert (lr.floor, lr.bottom, lr.crossings) == (None, lr.low, lr.positions)
    assert metric.labels[0][1] == "none"


def test_trials_with_the_same_value_cross_side_by_side_the_better_above() -> None:
    depth = lanes_of(crowd(60))["depth"]
    ones = [crossing for value, crossing in zip(depth.positions, depth.crossings, strict=True) if value == 1]
    assert ones == sorted(ones) and len(set(ones)) == 20
    assert (ones[0] + ones[-1]) / 2 == pytest.approx(1) and ones[-1] - ones[0] == pytest.approx(0.2)
    assert depth.low <= min(depth.crossings) and max(depth.crossings) <= depth.high


def test_the_best_tenth_is_drawn_whole_and_the_rest_evenly() -> None:
    assert parallel.thin(5, 10).tolist() == [0, 1, 2, 3, 4]
    assert parallel.thin(40, 10).tolist() == [0, 1, 2, 3, 4, 11, 18, 25, 32, 39]
    many = parallel.thin(10_000, 2000)
    assert many[:1000].tolist() == list(range(1000))
    assert (len(set(many)), many[-1], set(np.diff(many[1000:]))) == (2000, 9999, {9, 10})


def test_a_crowd_is_thinned_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "MOST_LINES", 10)
    monkeypatch.setattr(parallel, "MOST_PLOTLY", 4)
    it = parallel.compute(crowd(40))
    assert [lane.title for lane in it.lanes] == ["depth", "validation accuracy (%)"]
    assert it.trials == ("0000", "0007", "0014", "0021", "0028", "0035", "0036", "0037", "0038", "0039")
    assert (it.total, it.bold) == (40, 4)
    assert list(parallel.draw(it).data[0].line.color) == [0.0, 70.0, 95.0, 97.5]


def test_infinite_settings_count_as_missing() -> None:
    rows = [(f"{i}", None, "finished", (i / 9,), 1e-3, 1, "adam", math.inf if i == 3 else i / 10) for i in range(9)]
    momentum = lanes_of(make(rows))["momentum"]
    assert (momentum.high, sum(map(math.isnan, momentum.positions))) == (0.8, 1)


@pytest.mark.parametrize("mode", ["max", "min"])
def test_the_widget_is_told_in_strict_json_the_colours_from_worst_to_best(mode: Literal["max", "min"]) -> None:
    it = parallel.compute(make(mode=mode))
    told = json.loads(pages.script_json(parallel.page_json(it)))
    assert told["trials"] == list(it.trials) and told["maximise"] == (mode == "max")
    momentum = next(lane for lane in told["lanes"] if lane["title"] == "momentum")
    assert momentum["positions"].count(None) == 2 and None not in momentum["crossings"]
    assert "crossings" not in told["lanes"][0]
    for theme, scale in told["scales"].items():
        ends = [colour for _, colour in style.metric_scale(theme)]
        assert (len(scale), scale[0], scale[-1]) == (64, ends[0], ends[-1])


def test_on_paper_all_lines_are_one_collection_and_the_best_is_named_on_top() -> None:
    figure = parallel.draw_static(parallel.compute(crowd(50)))
    axes = figure.axes[0]
    (lines,) = axes.collections
    assert len(lines.get_paths()) == 49
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["best: trial 0049, 98.0%"]
