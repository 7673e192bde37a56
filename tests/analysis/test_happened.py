"""The figures of what happened: timeline, survival, failures, gap, best so far and curves, against counts by hand."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pytest

from analysis.folders.parameters import Parameter
from analysis.plots import best_so_far, curves, failures, gap, survival, timeline
from analysis.plots.outcomes import OUTCOMES
from analysis.random_order import expected_best
from analysis.results import Results

LR = Parameter("lr", "train.lr", "float", True, log=True, low=1e-4, high=1e-1)
OPT = Parameter("opt", "train.optimizer.name", "choice", False, choices=("adam", "sgd"))
FULL = 9
ASHA = {"name": "asha", "grace": 1, "factor": 3}


def make(
    rows: list[dict[str, Any]],
    stretches: Sequence[tuple[str, int, float, float]] = (),
    mode: Literal["max", "min"] = "max",
    **run: Any,
) -> Results:
    """Each row: trial, state, values (by epoch); lr, opt, repeat_of, reason; every other key a list by epoch."""
    trials, epochs = [], []
    usual = {"state": "finished", "values": (), "lr": 1e-3, "opt": "adam", "repeat_of": None, "reason": None}
    for number, given in enumerate(rows, 1):
        row: dict[str, Any] = usual | given
        values = row.pop("values")
        best = (max if mode == "max" else min)((v for v in values if not math.isnan(v)), default=math.nan)
        trials.append(
            {
                "trial": row.get("trial", f"{number:03}"), "number": number, "label": None, "state": row["state"],
                "reason": row["reason"], "epochs": len(values),
                "best_epoch": values.index(best) + 1.0 if best in values else math.nan, "full_epochs": float(FULL),
                "seconds": 1.0, "started": 0.0, "ended": 1.0, "repeat_of": row["repeat_of"], "breaks": None,
                "val_accuracy": best, "train.lr": row["lr"], "train.optimizer.name": row["opt"],
            }
        )  # fmt: skip
        more = {k: v for k, v in row.items() if isinstance(v, list)}
        for epoch, value in enumerate(values, 1):
            extra = {name: column[epoch - 1] for name, column in more.items()}
            epochs.append({"trial": trials[-1]["trial"], "epoch": epoch, "val_accuracy": value, **extra})
    frame = pd.DataFrame(epochs) if epochs else pd.DataFrame({"trial": [], "epoch": [], "val_accuracy": []})
    table = pd.DataFrame(list(stretches), columns=["trial", "worker", "began", "ended"])
    return Results(
        Path("run"), "run", "hypertune", pd.DataFrame(trials).set_index("trial"), frame, (LR, OPT), "val_accuracy",
        mode, run, (), stretches=table,
    )  # fmt: skip


@cache
def crowd(count: int, epochs: int) -> Results:
    """Many trials, stopped by thirds, every tenth diverged; four workers."""
    done = [(1, 3, epochs)[n % 3] for n in range(count)]
    rows: list[dict[str, Any]] = [
        {
            "trial": f"{n:05}", "values": [(n * 7 % count + e) / (2 * count + epochs) for e in range(done[n])],
            "state": "diverged" if n % 10 == 0 else "finished" if done[n] == epochs else "stopped",
            "lr": 10.0 ** -(1 + n % 7 / 2), "opt": ("adam", "sgd")[n % 2], "reason": "not a number",
            "accuracy_gap": [0.01 * e for e in range(done[n])],
        }
        for n in range(count)
    ]  # fmt: skip
    stretches = [(f"{n:05}", n % 4 + 1, n / 4 * 10.0, n / 4 * 10.0 + 9.0) for n in range(count)]
    return make(rows, stretches, scheduler=ASHA)


# ---------------------------------------------------------------- timeline


def test_the_timeline_counts_the_time_in_which_workers_were_busy() -> None:
    rows: list[dict[str, Any]] = [{"values": [0.1]}, {"values": [0.1], "state": "stopped"}, {"state": "running"}]
    stretches = [("001", 1, 0.0, 60.0), ("002", 2, 10.0, 40.0), ("003", 2, 60.0, math.nan)]
    results = make(rows, stretches)
    results.epochs["elapsed"] = [100.0, 30.0]
    it = timeline.compute(results)
    assert (it.lanes, it.end, it.unit) == (2, 100.0, "seconds")
    assert it.busy == pytest.approx((60 + 30 + 40) / 200) and "busy 65% of the time" in it.said
    assert {b.outcome: (b.lane, b.began, b.lasted) for b in it.bars} == {
        "finished": ((1,), (0.0,), (60.0,)),
        "stopped": ((2,), (10.0,), (30.0,)),
        "running": ((2,), (60.0,), (40.0,)),
    }


def test_workers_that_followed_one_another_share_a_lane() -> None:
    stretches = [("001", 1, 0.0, 10.0), ("002", 2, 0.0, 4.0), ("003", 3, 5.0, 9.0), ("001", 4, 11.0, 20.0)]
    it = timeline.compute(make([{"values": [0.1]}] * 3, stretches))
    lanes = {
        (trial, began): lane for b in it.bars for trial, lane, began in zip(b.trials, b.lane, b.began, strict=True)
    }
    assert it.lanes == 2 and lanes["003", 5.0] == lanes["002", 0.0] and lanes["001", 11.0] == 1
    assert [(b.outcome, b.trials) for b in it.bars if "001" in b.trials and b.outcome == "later"] == [
        ("later", ("001",))
    ]


def test_times_that_nobody_knows_are_no_timeline() -> None:
    assert timeline.compute(make([{"values": [0.1]}])).note
    assert timeline.compute(make([{"values": [0.1]}], [("001", 1, math.nan, math.nan)])).note
    nothing = timeline.compute(make([{"values": [0.1]}], [("001", 1, 0.0, 0.0)]))
    assert (nothing.busy, nothing.said) == (0.0, "")


# ---------------------------------------------------------------- survival


def test_survival_says_who_went_on_and_what_stopping_saved() -> None:
    rows: list[dict[str, Any]] = [
        *[{"values": [0.1] * 9}] * 2,
        *[{"values": [0.1] * 3, "state": "stopped"}] * 2,
        *[{"values": [0.1], "state": "stopped"}] * 4,
        {"values": [0.1] * 2, "state": "diverged"},
        {"state": "failed"},
    ]
    it = survival.compute(make([*rows, {"values": [0.1] * 9, "repeat_of": "001"}], scheduler=ASHA))
    assert it.epochs == tuple(range(1, 10)) and (it.rungs, it.reached) == ((1, 3), (9, 4))
    assert it.layers["on"] == (5, 4, 2, 2, 2, 2, 2, 2, 0)
    assert it.layers["stopped"] == (4, 0, 2, 0, 0, 0, 0, 0, 0)
    assert it.layers["lost"][:3] == (0, 1, 0) and it.layers["finished"][-1] == 2
    assert "saved 44 of 74 epochs (59%)" in it.said and "9 → 4 → 2" in it.said and "1 ended before" in it.said


def test_every_bar_of_the_survival_is_as_high_as_trials_that_got_there() -> None:
    results = crowd(90, 700)
    it = survival.compute(results)
    assert len(it.epochs) <= survival.MOST_BARS + 10
    done = results.trials["epochs"].to_numpy()
    heights = np.sum(list(it.layers.values()), axis=0)
    assert heights.tolist() == [(done > before).sum() for before in (0, *it.epochs[:-1])]


@pytest.mark.parametrize(
    ("scheduler", "rungs"),
    [
        ({"name": "asha", "grace": 2, "factor": 2, "brackets": 2}, (2, 4, 8)),
        ({"name": "hyperband", "grace": 1, "factor": 3}, (1, 3)),  # 9 is the last step: the end
        (None, (3, 5)),  # where trials were stopped
        ({"name": "median", "grace": 1, "least": 3}, (3, 5)),
    ],
)
def test_rungs_are_the_scheduler_s_or_where_trials_were_stopped(scheduler: Any, rungs: tuple[int, ...]) -> None:
    rows = [{"values": [0.1] * n, "state": "stopped"} for n in (3, 5)] + [{"values": [0.1] * 9}]
    assert survival.compute(make(rows, scheduler=scheduler)).rungs == rungs


def test_a_rule_that_stops_anywhere_has_no_rungs() -> None:
    rows = [{"values": [0.1] * n, "state": "stopped"} for n in range(1, 10)]
    assert survival.compute(make(rows)).rungs == ()


# ---------------------------------------------------------------- failures


def test_failures_lie_below_all_results_where_their_settings_were() -> None:
    rows: list[dict[str, Any]] = [{"values": [0.2 + n / 100], "lr": 10 ** (-4 + n / 10)} for n in range(20)]
    rows += [{"state": "diverged", "lr": 0.1 + n / 100, "reason": "loss is not a number"} for n in range(5)]
    rows += [{"state": "out_of_memory", "opt": "sgd", "lr": 1e-3}, {"state": "failed", "values": [0.9], "lr": 2e-3}]
    it = failures.compute(make(rows))
    first = it.panels[0]
    assert first.title == "learning rate (log)"
    found = {dots.kind: dots for dots in first.dots}
    assert found["diverged"].x == pytest.approx([math.log10(0.1 + n / 100) for n in range(5)])
    assert len({found[kind].y[0] for kind in failures.FAILED}) == 3
    assert max(y for kind in failures.FAILED for y in found[kind].y) < it.edge < min(found["with a result"].y)
    assert "loss is not a number" in found["diverged"].hover[0] and "So few" not in it.said
    assert it.said.startswith("Of 27 trials 5 diverged, 1 ran out of memory, 1 crashed.")


def test_the_setting_that_goes_with_failing_comes_first() -> None:
    rows = [
        {"values": [0.1], "lr": 10.0 ** -(n % 4)} | ({"opt": "sgd", "state": "failed"} if n < 6 else {})
        for n in range(24)
    ]  # fmt: skip
    it = failures.compute(make(rows))
    assert "So few" in failures.compute(make(rows[4:])).said
    assert it.panels[0].title == "optimizer" and it.panels[0].ticks == ((0.0, 1.0), ("adam", "sgd"))


def test_a_search_without_failures_says_so() -> None:
    assert failures.compute(make([{"values": [0.1]}])).note == "No trial diverged or failed."


def test_failures_alone_have_no_axes_to_stand_in() -> None:
    it = failures.compute(make([{"state": "failed"}, {"state": "failed", "lr": 1e-2}]))
    assert it.note.startswith("No trial has a result") and not it.panels


# ---------------------------------------------------------------- gap


def test_gaps_are_those_of_the_epochs() -> None:
    rows = [{"values": [0.5, 0.6, 0.6], "accuracy_gap": [0.1, 0.4, 0.2]}, {"values": [0.3], "accuracy_gap": [math.nan]}]
    table = gap.gaps(make(rows))
    assert table.loc["001"].to_dict() == pytest.approx({"final": 0.2, "largest": 0.4, "mean": 0.7 / 3})
    assert table.loc["002"].isna().all()


@pytest.mark.parametrize(
    ("columns", "name", "gaps"),
    [
        ({"train_accuracy": [0.9]}, "accuracy", 0.4),
        ({"accuracy": [0.8]}, "accuracy", 0.3),
        ({"clean_train_accuracy": [0.7], "train_accuracy": [0.9]}, "accuracy", 0.2),
        ({"train_loss": [0.2], "val_loss": [0.5]}, "loss", 0.3),  # a loss: low is good
        ({"train/f1": [0.7], "val/f1": [0.6]}, "f1", 0.1),
    ],
)
def test_a_pair_of_training_and_validation_is_found_by_name(columns: dict[str, Any], name: str, gaps: float) -> None:
    found = gap.pair(make([{"values": [0.5], **columns}]))
    assert found is not None and found.name == name
    assert found.gap.tolist() == pytest.approx([gaps])


def test_without_training_values_there_is_no_gap() -> None:
    results = make([{"values": [0.5]}])
    assert gap.gaps(results)["final"].isna().all() and gap.compute(results).note


def test_the_gap_shows_the_three_best_epoch_by_epoch() -> None:
    rows = [{"values": [0.1 * n, 0.1 * n + 0.05], "accuracy_gap": [0.1, 0.2]} for n in range(1, 6)]
    it = gap.compute(make(rows))
    assert [fan.name for fan in it.fans] == ["trial 005", "trial 004", "trial 003"]
    assert it.fans[0].training == pytest.approx((60, 75)) and it.fans[0].validation == pytest.approx((50, 55))
    assert it.dots[0].x == pytest.approx([20] * 5) and it.x_title.endswith("(percentage points)")


# ---------------------------------------------------------------- best so far


@pytest.mark.parametrize("maximise", [True, False])
@pytest.mark.parametrize("values", [[0.3, 0.9, 0.1, 0.5, 0.7, 0.2], [0.5, 0.5, 0.1, 0.5, 0.1, 0.9]])
def test_the_expected_best_is_that_of_all_orders(values: list[float], maximise: bool) -> None:
    orders = np.array(list(itertools.permutations(values)))
    best = (np.maximum if maximise else np.minimum).accumulate(orders, axis=1)
    mean, low, high = expected_best(np.array(values), maximise)
    assert mean == pytest.approx(best.mean(axis=0))
    # Where the best is the lowest, quantiles are taken from the other side.
    ends = [np.quantile(best if maximise else -best, q, axis=0, method="inverted_cdf") for q in (0.1, 0.9)]
    assert [low.tolist(), high.tolist()] == [e.tolist() for e in (ends if maximise else [-ends[1], -ends[0]])]


def test_the_expected_best_of_some_draws_is_that_of_all_of_them() -> None:
    values = np.random.default_rng(0).normal(size=500)
    draws = np.array([1, 7, 500])
    some, whole = expected_best(values, True, draws), expected_best(values, True)
    assert all(one == pytest.approx(of_all[draws - 1]) for one, of_all in zip(some, whole, strict=True))
    assert whole[0][0] == pytest.approx(values.mean()) and whole[0][-1] == pytest.approx(values.max())


def test_best_so_far_counts_trials_epochs_and_time() -> None:
    rows: list[dict[str, Any]] = [{"values": [0.2, 0.5], "elapsed": [60.0, 300.0]}]
    rows += [{"values": [0.4], "elapsed": [120.0]}, {"values": [0.1], "elapsed": [600.0]}]
    it = best_so_far.compute(make(rows))
    by = {course.by: course for course in it.courses}
    assert (by["trials"].x, by["trials"].best) == ((1, 3), (50, 50))
    assert (by["epochs"].x, by["epochs"].best, by["epochs"].dot_x) == ((1, 2, 3, 4), (20, 40, 50, 50), (3, 2, 4))
    assert by["seconds"].title == "minutes since the run began"
    assert (by["seconds"].x, by["seconds"].best) == ((1, 2, 5, 10), (20, 40, 50, 50))
    assert by["epochs"].random_x == pytest.approx((4 / 3, 8 / 3, 4)) and it.mean[-1] == 50
    assert it.mean[0] == pytest.approx((50 + 40 + 10) / 3)


def test_best_so_far_by_time_needs_times() -> None:
    it = best_so_far.compute(make([{"values": [0.2]}, {"values": [0.3]}]))
    assert [course.by for course in it.courses] == ["trials", "epochs"] and it.mean == ()


def test_a_search_that_gets_better_is_told_from_chance() -> None:
    rising = [{"values": [0.3 + n / 50]} for n in range(20)]
    assert "the later trials were the better ones" in best_so_far.compute(make(rising)).said
    assert "the order of the trials alone" in best_so_far.compute(make(rising[::-1])).said
    assert "the later trials were the better ones" in best_so_far.compute(make(rising[::-1], mode="min")).said


# ---------------------------------------------------------------- curves


def test_the_band_holds_the_trials_that_got_there() -> None:
    rows = [{"values": [0.1 * n, 0.1 * n + 0.05][: 2 if n > 2 else 1]} for n in range(1, 8)]
    band = curves.compute(make(rows)).band
    assert band is not None and band.epochs == (1, 2)
    assert (band.low[0], band.median[0], band.high[0]) == pytest.approx((25, 40, 55))
    assert band.median[1] == pytest.approx(55)  # of 3 to 7
    assert curves.compute(make(rows[:4])).band is None


def test_a_crowd_of_curves_is_thinned_and_says_so() -> None:
    it = curves.compute(crowd(900, 9))
    assert len(it.curves) == curves.MOST_LINES and it.said == "300 of 900 trials are drawn, evenly over the ranks."
    long = curves.compute(crowd(300, 1000))
    assert sum(len(c.epochs) for c in long.curves) < 1.5 * curves.MOST_POINTS


# ---------------------------------------------------------------- all


@pytest.mark.parametrize("kind", [timeline, survival, failures, gap, best_so_far, curves], ids=lambda m: m.__name__)
def test_a_large_search_stays_small_in_the_page(kind: Any) -> None:
    it = kind.compute(crowd(4000, 9))
    assert not it.note and len(kind.draw(it).to_json()) < 1_000_000
    assert kind.draw_static(it).get_size_inches()[0] == 10


def test_outcomes_look_different() -> None:
    assert len({outcome.colour for outcome in OUTCOMES.values()}) == len(OUTCOMES)


def test_hostile_names_stay_text() -> None:
    rows: list[dict[str, Any]] = [
        {"trial": "<script>", "values": [0.5, 0.6], "accuracy_gap": [0.1, 0.2], "state": "stopped"}
    ]
    rows += [{"trial": "<b>2", "state": "failed", "reason": "<script>x", "lr": 0.1}]
    results = make(rows, [("<script>", 1, 0.0, 5.0), ("<b>2", 1, 5.0, 6.0)], scheduler=ASHA)
    for kind in (timeline, survival, failures, gap, best_so_far, curves):
        assert "<script>" not in kind.draw(kind.compute(results)).to_json()
