"""Trials compared at matched epochs: hand-made races, and the properties of the order on any of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis import fidelity
from analysis.results import Results

pytestmark = pytest.mark.slow

Curve = tuple[str, Sequence[float]]


def race(curves: Mapping[str, Curve], mode: Literal["max", "min"] = "max") -> Results:
    """Results of trials given as state and values by epoch."""
    pick = max if mode == "max" else min
    rows, epochs = [], []
    for number, (trial, (state, values)) in enumerate(curves.items(), 1):
        known = [v for v in values if not math.isnan(v)]
        row = {"trial": trial, "number": number, "state": state, "acc": pick(known, default=math.nan)}
        rows.append({**row, "repeat_of": "a" if trial.startswith("repeat") else None, "breaks": None})
        epochs += [{"trial": trial, "epoch": e, "acc": v} for e, v in enumerate(values, 1)]
    trials = pd.DataFrame(rows, columns=["trial", "number", "state", "acc", "repeat_of", "breaks"]).set_index("trial")
    frame = pd.DataFrame(epochs, columns=["trial", "epoch", "acc"])
    return Results(Path("run"), "run", "hypertune", trials, frame, (), "acc", mode, {}, ())


def test_the_order_is_by_what_each_trial_reached_whatever_it_might_have_become() -> None:
    run = race(
        {"a": ("finished", [0.2, 0.3, 0.8]), "b": ("stopped", [0.6, 0.55]), "c": ("finished", [0.1, 0.2, 0.5]),
         "d": ("stopped", [0.3])}
    )  # fmt: skip
    assert fidelity.order(run) == ["a", "b", "c", "d"]


def test_what_breaks_a_constraint_comes_after_all_that_may_be_best() -> None:
    run = race({"a": ("finished", [0.9]), "b": ("finished", [0.2]), "c": ("diverged", [0.1])})
    run.trials.loc["a", "breaks"] = "params <= 100"
    assert fidelity.order(run) == ["b", "a", "c"]


def test_low_is_good_where_the_mode_says_so() -> None:
    run = race({"a": ("finished", [2.0, 1.0]), "b": ("finished", [1.5, 0.5]), "c": ("stopped", [3.0])}, mode="min")
    assert fidelity.order(run) == ["b", "a", "c"]


def test_diverged_and_failed_come_last_and_share_a_score_and_a_trial_without_anything_has_none() -> None:
    run = race(
        {"a": ("failed", [0.3]), "b": ("diverged", [math.nan]), "c": ("stopped", [0.2]),
         "d": ("finished", [0.4, 0.5]), "e": ("failed", []), "f": ("running", [])}
    )  # fmt: skip
    assert fidelity.order(run) == ["d", "c", "a", "b"]


def test_standing_counts_the_comparisons_won_at_matched_epochs() -> None:
    run = race(
        {"a": ("finished", [0.1, 0.4, 0.9]), "b": ("stopped", [0.3]), "c": ("stopped", [0.2, 0.5]),
         "d": ("finished", [0.3, 0.6, 0.8]), "e": ("diverged", [0.9]), "f": ("failed", [0.3]), "g": ("failed", []),
         "repeat": ("finished", [0.9, 0.9, 0.9])}
    )  # fmt: skip
    # a beats d (0.9 at 3) and e; b beats a, c, e and ties with d and f; c beats a, e; d beats a not, b, f half, c, e.
    won = {"a": 2.0, "b": 4.0, "c": 2.0, "d": 3.0, "e": 0.0, "f": 4.0}
    shares = fidelity.standing(run)
    assert {t: round(5 * float(shares[t]), 6) for t in won} == won
    assert shares[["g", "repeat"]].isna().all()


def test_trials_alike_stand_alike_however_long_they_were_trained() -> None:
    bad, good = [0.1, 0.2, 0.3], [0.4, 0.5, 0.6]
    long, short = [("finished", bad), ("finished", good)], [("stopped", bad[:1]), ("stopped", good[:1])]
    run = race({f"{i}": curve for i, curve in enumerate([*long, *short] * 3)})
    shares = fidelity.standing(run).to_numpy()
    assert shares[0] == shares[2] < shares[1] == shares[3]


def test_a_repeat_has_no_place_and_is_never_best() -> None:
    run = race({"a": ("finished", [0.5]), "repeat": ("finished", [0.9])})
    assert fidelity.order(run) == ["a"] and run.best() == "a"


def test_one_trial_stands_at_the_top_and_none_gives_an_empty_order() -> None:
    assert fidelity.standing(race({"a": ("finished", [0.1])}))["a"] == 1.0
    assert fidelity.standing(race({"a": ("diverged", []), "b": ("failed", [])})).tolist()[0] == 1.0
    assert fidelity.order(race({})) == []
    assert fidelity.order(race({"a": ("failed", [])})) == []


def test_curves_bridge_gaps_and_end_where_the_trial_did() -> None:
    table = fidelity.curves(race({"a": ("finished", [0.2, math.nan, 0.1, 0.3]), "b": ("stopped", [0.5, 0.4])}))
    a, b = table.to_numpy().tolist()
    assert a == [0.2, 0.2, 0.1, 0.3]
    assert b[:2] == [0.5, 0.4] and math.isnan(b[2]) and math.isnan(b[3])


def test_a_spread_keeps_the_first_and_the_last() -> None:
    ranked = [str(i) for i in range(100)]
    assert fidelity.spread(ranked, 5) == ["0", "25", "50", "74", "99"]
    assert fidelity.spread(ranked[:3], 5) == ["0", "1", "2"]


values = st.floats(0, 1).map(lambda v: round(v, 2))
races = st.lists(
    st.one_of(
        st.tuples(st.just("finished"), st.lists(values, min_size=5, max_size=5)),
        st.tuples(st.sampled_from(["stopped", "interrupted"]), st.lists(values, min_size=1, max_size=4)),
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=40, deadline=None)
@given(races)
def test_the_first_has_the_best_value_and_all_comparisons_are_shared_out(curves: list[Curve]) -> None:
    run = race({f"{i:03d}": curve for i, curve in enumerate(curves)})
    share = fidelity.standing(run)
    shown = run.trials.loc[fidelity.order(run), "acc"].tolist()
    assert shown == sorted(run.trials["acc"], reverse=True)
    assert share.between(0, 1).all()
    assert len(run.trials) == 1 or math.isclose(share.mean(), 0.5)
