"""The table of all trials as JSON: true to Results by hand, finite, small, whatever the values are."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t

from analysis import fidelity, style
from analysis.folders.goal import Goal, Objective
from analysis.folders.parameters import Parameter
from analysis.page import compact, pages, tables
from analysis.results import Results

EVIL = "</script><img src=x onerror=alert(1)>\u202e\u2028"
LR = Parameter("lr", "train.lr", "float", True, log=True, low=1e-4, high=1e-1)
KIND = Parameter("model.kind", "model.kind", "choice", False, choices=("plain", EVIL))
WIDTH = Parameter("model.width", "model.width", "int", True, low=8, high=8)
NAN = math.nan


def make(curves: list[list[float]], states: list[str] | None = None, **changes: Any) -> Results:
    """A run with one trial a curve of val_accuracy; its training accuracy is 0.1 higher."""
    count = len(curves)
    best = [int(np.nanargmax(c)) + 1 if np.isfinite(c).any() else NAN for c in map(np.array, curves)]
    ids = [f"{n:03d}" for n in range(1, count + 1)]
    trials = pd.DataFrame(
        {
            "number": np.arange(1, count + 1), "label": [None, EVIL, *[None] * count][:count],
            "state": pd.Series(states or ["finished"] * count, dtype="str"), "reason": "all epochs done",
            "epochs": [len(c) for c in curves], "best_epoch": np.array(best, dtype=float), "full_epochs": 3.0,
            "seconds": [61.26 * n for n in range(1, count + 1)], "started": 0.0, "ended": 9.0, "repeat_of": None,
            "breaks": None, "val_accuracy": [max((v for v in c if v == v), default=NAN) for c in curves],
            "params": [681_322.0 + n for n in range(count)], "flops": [1.5 * n for n in range(count)],
            "train.lr": [10.0**-n / 3 for n in range(count)],
            "model.kind": [EVIL if n % 2 else "plain" for n in range(count)], "model.width": 8.0,
        }
    ).set_index(pd.Index(ids, name="trial", dtype="str"))  # fmt: skip
    rows = [(ids[n], e, v, v + 0.1) for n, c in enumerate(curves) for e, v in enumerate(c, 1)]
    epochs = pd.DataFrame(rows, columns=["trial", "epoch", "val_accuracy", "train_accuracy"])
    epochs = epochs.astype({"trial": "str", "epoch": "int64", "val_accuracy": float, "train_accuracy": float})
    results = Results(Path("x"), "x", "hypertune", trials, epochs, (LR, KIND, WIDTH), "val_accuracy", "max", {}, ())
    return replace(results, **changes)


def told(results: Results) -> dict[str, Any]:
    """As the page reads it: through JSON that allows nothing but finite numbers."""
    found: dict[str, Any] = json.loads(pages.script_json(tables.page_json(results, fidelity.order(results))))
    return found


THREE = [[0.1, 0.2], [0.5, 0.456789, 0.4], [0.3]]


def test_rows_come_by_rank_in_the_unit_shown_and_whole_numbers_stay_whole() -> None:
    data = told(make(THREE, ["finished", "finished", "failed"]))
    assert data["ids"] == ["002", "001", "003"] and data["ranked"] == 3 and data["start"] == [2, 1, 3]
    metric = {"label": "validation accuracy", "percent": True, "highest": True, "values": [50, 20, 30]}
    assert data["goals"] == [metric]
    assert [data["state"]["texts"][n] for n in data["state"]["at"]] == ["finished", "finished", "failed"]
    assert data["label"]["texts"] == [EVIL] and data["label"]["at"] == [0, -1, -1]
    assert data["seconds"] == [122.5, 61.3, 183.8] and data["best_epoch"] == [1, 2, 1]
    assert data["sizes"][0] == {"label": "parameters", "values": [681323, 681322, 681324]}
    assert data["breaks"] == {"texts": [], "at": []}


def test_settings_have_their_label_their_path_and_whether_they_varied() -> None:
    lr, kind, width = told(make(THREE))["settings"]
    assert lr == {"name": "train.lr", "label": "learning rate", "texts": None, "varies": True,
                  "values": [0.033333, 0.0033333, 0.33333]}  # fmt: skip
    assert kind["texts"] == ["plain", EVIL] and kind["values"] == [1, 0, 0]
    assert (width["values"], width["varies"]) == ([8, 8, 8], False)


def test_curves_are_the_metric_and_its_twin_with_gaps_as_null() -> None:
    curves = told(make([[0.1, NAN, 0.31236], [0.2], [NAN]]))["curves"]
    assert [one["label"] for one in curves["series"]] == ["validation accuracy", "training accuracy"]
    assert curves["series"][0]["values"] == [[10, None, 31.24], [20], None]
    assert curves["series"][1]["values"] == [[20, None, 41.24], [30], None]
    assert curves["epochs"] == [None, None, None] and (curves["stride"], curves["full"]) == (1, 3)


def test_losses_have_a_chart_of_their_own_unless_they_are_the_metric() -> None:
    results = make(THREE)
    epochs = results.epochs.assign(val_loss=1.5, train_loss=1.0)
    series = told(replace(results, epochs=epochs))["curves"]["series"]
    assert [(one["label"], one["chart"]) for one in series[2:]] == [("validation loss", 1), ("training loss", 1)]
    trials = results.trials.assign(val_loss=1.5)
    series = told(replace(results, epochs=epochs, trials=trials, metric="val_loss", mode="min"))["curves"]["series"]
    assert [(one["label"], one["chart"]) for one in series] == [("validation loss", 0), ("training loss", 0)]


def test_too_many_points_are_thinned_but_never_the_first_the_best_and_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compact, "METRIC_POINTS", 12)
    monkeypatch.setattr(compact, "ALL_POINTS", 15)
    curve = [0.1, 0.2, 0.3, 0.9, 0.5, 0.6, 0.7, 0.8]
    curves = told(make([curve, curve[:1], curve]))["curves"]
    best, second, _ = curves["epochs"]
    assert best == [1, 4, 7, 8] and curves["stride"] == 3 and second == best
    assert curves["series"][0]["values"][0] == [10, 90, 70, 80]
    assert curves["full"] == len(curves["series"][1]["values"]) == 1  # 15 less 9: enough for one more curve of 4


def test_an_epoch_written_twice_counts_once_and_rows_may_come_in_any_order() -> None:
    results = make([[0.1, 0.2, 0.3]])
    twice = pd.concat([results.epochs, results.epochs.iloc[[1]].assign(val_accuracy=0.25)])
    curves = told(replace(results, epochs=twice.iloc[[2, 0, 1, 3]]))["curves"]
    assert curves["series"][0]["values"] == [[10, 25, 30]] and curves["epochs"] == [None]


def test_classes_are_in_thousandths_and_unknown_ones_null() -> None:
    classes = pd.DataFrame({EVIL: [0.8765, NAN], "dog": [1.0, NAN]}, index=pd.Index(["001", "003"], name="trial"))
    data = told(make(THREE, classes=classes))
    assert data["classes"]["names"] == [EVIL, "dog"]
    by_trial = dict(zip(data["ids"], data["classes"]["values"], strict=True))
    assert by_trial == {"001": [876, 1000], "002": None, "003": None}
    assert told(make(THREE))["classes"] is None


def test_noise_is_the_repeatability_limit_or_unknown() -> None:
    results = make([[0.5], [0.5], [0.53]])
    assert told(results)["noise"] is None
    results.trials.loc["003", "repeat_of"] = "001"
    deviation = 100 * 0.03 / math.sqrt(2)
    assert told(results)["noise"] == pytest.approx(math.sqrt(2) * deviation * t.ppf(0.975, 1))


def test_further_objectives_follow_the_metric() -> None:
    goal = Goal((Objective("val_accuracy", "max"), Objective("params", "min")))
    goals = told(make(THREE, goal=goal))["goals"]
    assert [(one["label"], one["highest"]) for one in goals] == [("validation accuracy", True), ("parameters", False)]


@pytest.mark.parametrize(
    "results",
    [
        make([]),
        make([[]], ["running"]),
        make([[0.5]]),
        make([[], []], ["failed", "out_of_memory"]),
        make([[math.inf, -math.inf]]),
        make(THREE, metric=None),
        make(THREE, parameters=()),
    ],
    ids=["none", "begun", "one", "failed", "infinite", "no metric", "no settings"],
)
def test_odd_runs_are_told(results: Results) -> None:
    data = told(results)
    assert len(data["ids"]) == len(results.trials) == len(data["curves"]["epochs"])
    assert all(len(one["values"]) == len(data["ids"]) for one in data["settings"])


@given(st.lists(st.floats(width=64), max_size=20), st.integers(2, 6))
def test_short_numbers_are_the_rounded_ones(values: list[float], digits: int) -> None:
    for value, found in zip(values, compact.short(values, digits), strict=True):
        if not math.isfinite(value):
            assert found is None
        else:
            assert math.isfinite(found) and found == pytest.approx(value, rel=0.51 * 10.0 ** (1 - digits), abs=1e-300)
            if abs(value) < 2**53 and value == int(value):
                assert type(found) is int and found == value


@given(st.lists(st.none() | st.text()))
def test_coded_texts_are_the_texts(values: list[str | None]) -> None:
    found = compact.coded(values)
    if found["at"]:
        assert [None if n < 0 else found["texts"][n] for n in found["at"]] == [
            compact.clip(v) if v else None for v in values
        ]
    else:
        assert not any(values)


def test_ten_thousand_trials_are_under_three_megabytes() -> None:
    count, epochs = 10_000, 20
    rng = np.random.default_rng(0)
    ids = pd.Series([f"{n:05d}" for n in range(count)], dtype="str")
    results = make([[0.5]])
    trials = results.trials.iloc[[0] * count].set_index(pd.Index(ids, name="trial"))
    trials["number"] = np.arange(1, count + 1)
    trials["train.lr"] = 10 ** rng.uniform(-4, -1, count)
    trials["reason"] = [f"rung at epoch 2: {n} of 90 were better" for n in rng.integers(0, 90, count)]
    values = rng.uniform(size=count * epochs)
    frame = {"trial": ids.repeat(epochs).to_numpy(), "epoch": np.tile(np.arange(1, epochs + 1), count)}
    table = pd.DataFrame(frame | dict.fromkeys(("val_accuracy", "train_accuracy", "val_loss"), values))
    data = tables.page_json(replace(results, trials=trials, epochs=table.astype({"trial": "str"})), ids.tolist())
    assert len(pages.script_json(data)) < 3e6
    assert sum(len(one) for series in data["curves"]["series"] for one in series["values"] if one) <= 250_000
    assert data["curves"]["stride"] == 1


def test_the_table_for_paper_holds_the_best_only() -> None:
    ranked = tables.ranked(make(THREE), top=2)
    assert [row.trial for row in ranked.rows] == ["002", "003"]
    assert [cell.text for cell in ranked.rows[1].cells][:4] == ["2", "003", "finished", "30.0%"]
    assert len(tables.ranked(make([[0.1]] * 12)).rows) == 10


def test_the_settings_of_a_block_are_called_by_its_number_counted_from_one() -> None:
    columns = ["model.blocks.1.width", "model.blocks.0.width", "model.blocks.0.down.kernel", "model.blocks.2.down.name"]
    assert list(style.labels(columns).values()) == [
        "block 2 width", "block 1 width", "block 1 kernel", "block 3 down",
    ]  # fmt: skip
