"""The next space: what is cut was beaten, what is not told stays, and what cannot be legal is not proposed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis.findings import Evidence, Finding, findings
from analysis.folders.goal import Goal, Objective
from analysis.folders.parameters import Parameter
from analysis.refinement.refine import Change, Refinement, Rules, fitting, proposal, refine, words
from analysis.refinement.widening import next_in_row, tidy, widen_range
from analysis.results import Results

LR = Parameter("lr", "lr", "float", True, log=True, low=1e-4, high=0.1)
DROPOUT = Parameter("dropout", "dropout", "float", True, low=0, high=0.5)
DEPTH = Parameter("depth", "depth", "int", True, low=1, high=4)
WIDTH = Parameter("width", "width", "choice", True, choices=(16, 32, 64))
KIND = Parameter("kind", "kind", "choice", False, choices=("adam", "sgd", "null"))
RATE = Parameter(
    "kind[sgd].rate", "rate", "float", True, low=0, high=1, active_when=({"name": "kind", "values": ["sgd"]},)
)
ALL = (LR, DROPOUT, DEPTH, WIDTH, KIND, RATE)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests by formula instead of by shuffles, and no looking for pairs: a second less a search."""
    monkeypatch.setattr("analysis.findings.interactions", lambda results: ())
    monkeypatch.setattr("analysis.effects.MOST", 1)


def search(
    truth: Callable[[Mapping[str, Any]], float], count: int = 90, seed: int = 0,
    parameters: tuple[Parameter, ...] = ALL, draw: Callable[[dict[str, Any]], Mapping[str, Any]] = dict,
    **columns: Any,
) -> Results:  # fmt: skip
    """A search of random configurations of three epochs with noise of one point, none stopped."""
    rng = np.random.default_rng(seed)
    rows, epochs = [], []
    for number in range(1, count + 1):
        config: dict[str, Any] = {}
        for p in parameters:
            if p.kind == "choice":
                config[p.column] = p.choices[rng.integers(len(p.choices))]
            elif p.kind == "int":
                config[p.column] = int(rng.integers(int(p.low or 0), int(p.high or 0) + 1))
            else:
                low, high = (
                    (p.low or 0, p.high or 0) if not p.log else (math.log10(p.low or 1), math.log10(p.high or 1))
                )
                drawn = rng.uniform(low, high)
                config[p.column] = 10**drawn if p.log else drawn
        if "rate" in config and config["kind"] != "sgd":
            config["rate"] = math.nan
        config |= draw(config)
        values = truth(config) + rng.normal(0, 0.01) + np.array([-0.2, -0.1, 0])
        made = {
            "trial": f"{number:03}", "number": number, "label": None, "state": "finished", "reason": None, "epochs": 3,
            "best_epoch": 3.0, "full_epochs": 3.0, "seconds": 3.0, "started": float(number), "ended": number + 1.0,
            "repeat_of": None, "breaks": None, "val_accuracy": values.max(), **config,
        }  # fmt: skip
        rows.append(made | {name: make(config) for name, make in columns.items()})
        epochs += [{"trial": made["trial"], "epoch": e, "val_accuracy": v} for e, v in enumerate(values, 1)]
    return Results(
        Path("run"), "run", "hypertune", pd.DataFrame(rows).set_index("trial"), pd.DataFrame(epochs), parameters,
        "val_accuracy", "max", {}, (),
    )  # fmt: skip


def propose(results: Results, rules: Rules | None = None, top: int = 3) -> dict[str, Change]:
    return {change.name: change for change in told(results, rules, top).changes}


def told(results: Results, rules: Rules | None = None, top: int = 3) -> Refinement:
    return refine(results, findings(results), rules, top)


def peak(c: Mapping[str, Any]) -> float:
    """Best at a learning rate of 0.003."""
    return 0.8 - 0.1 * float(math.log10(c["lr"] / 0.003)) ** 2


# ---------------------------------------------------------------- narrower


def test_a_range_closes_around_what_was_best() -> None:
    change = propose(search(peak))["lr"]
    low, high = change.new["loguniform"]
    assert change.kind == "narrow" and change.old == "0.0001 .. 0.1 (log)"
    assert 1e-4 < low < 0.003 < high < 0.1
    assert high / low >= 3
    assert "trials outside were behind in" in change.reason


@pytest.mark.parametrize("seed", range(3))
def test_what_nobody_tried_stays(seed: int) -> None:
    above = propose(search(peak, seed=seed, draw=lambda c: {"lr": min(c["lr"], 0.004)}))["lr"]
    assert above.new["loguniform"][1] == 0.1


def test_the_best_trials_are_never_cut_out() -> None:
    results = search(peak)
    results.trials.loc["007", "lr"], results.trials.loc["007", "val_accuracy"] = 0.09, 0.99
    results.epochs.loc[results.epochs["trial"] == "007", "val_accuracy"] = 0.99
    found = told(results)
    assert found.trials[0] == "007" and found.starts[0]["lr"] == 0.09
    assert all(c.new["loguniform"][1] >= 0.09 for c in found.changes if c.name == "lr")


def test_few_trials_change_nothing() -> None:
    found = told(search(lambda c: 0.5, count=18))
    assert found.changes == () and found.kept == tuple(p.name for p in ALL) and len(found.starts) == 3
    assert found.notes == ("18 trials do not tell: the space stays as it is, with the best 3 as starting points.",)


@pytest.mark.parametrize("count", [0, 1, 9])
def test_hardly_a_trial(count: int) -> None:
    results = search(peak, count=12)
    results = replace(results, trials=results.trials.head(count), epochs=results.epochs.head(3 * count))
    assert told(results).changes == ()


def test_a_beaten_option_goes_and_what_hangs_on_it_is_not_spoken_of() -> None:
    found = told(search(lambda c: 0.5 + 0.1 * (c["kind"] != "sgd") + (0.03 * c["rate"] if c["kind"] == "sgd" else 0)))
    changes = {c.name: c for c in found.changes}
    assert changes["kind"].new == {"choice": ["adam", "null"]} and changes["kind"].kind == "drop"
    assert "sgd was behind" in changes["kind"].reason and RATE.name not in changes


def test_an_option_that_was_not_given_its_best_stays() -> None:
    def steep(c: Mapping[str, Any]) -> float:
        return 0.5 + (0.1 if c["kind"] != "sgd" else 0.09 * float(c["rate"]) ** 6)

    def flat(c: Mapping[str, Any]) -> float:
        return 0.6 if c["kind"] != "sgd" else 0.5

    assert "kind" not in propose(search(steep, count=200))
    assert propose(search(flat, count=200))["kind"].new == {"choice": ["adam", "null"]}


def test_the_last_two_options_stay_unless_it_is_clear() -> None:
    two = (LR, replace(KIND, choices=("adam", "sgd")))
    clear = propose(search(lambda c: 0.5 + 0.1 * (c["kind"] == "adam"), parameters=two))["kind"]
    assert clear.new == "adam" and clear.kind == "fix"
    report = findings(search(lambda c: 0.5 + 0.1 * (c["kind"] == "adam"), parameters=two))
    unclear = report._replace(effects=tuple(e._replace(adjusted=0.005) for e in report.effects))
    results = search(lambda c: 0.5 + 0.1 * (c["kind"] == "adam"), parameters=two)
    assert "kind" not in {c.name for c in refine(results, unclear).changes}


def crossed(c: Mapping[str, Any]) -> float:
    """Two blocks want a high rate, one block a low one; two blocks want it more, and are better."""
    return 0.5 + float(math.log10(c["lr"] / 0.003)) * (0.15 if c["depth"] == 2 else -0.02) + 0.1 * int(c["depth"])


def test_interacting_settings_keep_what_is_good_with_either() -> None:
    results = search(crossed, count=150, seed=2, parameters=(LR, replace(DEPTH, high=2), DROPOUT))
    alone = findings(results)
    together = Finding("interaction", "", "clear", ("lr", "depth"), Evidence("", 150, 0.5, "", 0.005, 0.005))
    narrowed = next(c for c in refine(results, alone).changes if c.name == "lr")
    assert narrowed.new["loguniform"][0] > 1e-4
    found = refine(results, alone._replace(findings=(*alone.findings, together)))
    assert all(c.new["loguniform"][0] == 1e-4 for c in found.changes if c.name == "lr")
    assert any("learning rate and depth" in note for note in found.notes)


def test_several_objectives_narrow_nothing() -> None:
    results = search(peak, params=lambda c: float(c["width"]))
    several = replace(results, goal=Goal((Objective("val_accuracy", "max"), Objective("params", "min"))))
    found = told(several)
    assert found.changes == () and "weighed against each other" in found.notes[0]
    assert found.starts[0]["width"] == 16 or len(found.starts) > 1


# ---------------------------------------------------------------- wider


def up(c: Mapping[str, Any]) -> float:
    return 0.5 + 0.1 * float(math.log10(c["lr"]))


def test_a_range_goes_on_where_the_best_lie_at_its_end() -> None:
    change = propose(search(up, count=150))["lr"]
    assert change.kind in ("widen", "move") and change.new["loguniform"][1] == 1.0
    assert "at the upper end" in change.reason


def test_a_natural_limit_is_none_to_pass() -> None:
    found = propose(search(lambda c: 0.6 - 0.4 * c["dropout"], count=150))
    assert found["dropout"].new["uniform"][0] == 0 and found["dropout"].kind == "narrow"


def test_nobody_goes_where_trials_diverged() -> None:
    results = search(up, count=150)
    results.trials.loc[results.trials["lr"] > 0.07, "state"] = "out_of_memory"
    found = told(results)
    assert all(c.new["loguniform"][1] <= 0.1 for c in found.changes if c.name == "lr")
    assert any("is not widened" in note for note in found.notes)


def test_a_choice_among_numbers_gets_the_next_of_its_row() -> None:
    change = propose(search(lambda c: 0.5 + 0.1 * math.log2(c["width"] / 16), count=120))["width"]
    assert change.new["choice"][-1] == 128 and 16 not in change.new["choice"]


def test_what_the_field_does_not_take_is_not_proposed() -> None:
    rules = Rules(legal=lambda name, new: name != "lr")
    assert all(c.new["loguniform"][1] <= 0.1 for c in propose(search(up, count=150), rules).values() if c.name == "lr")


@pytest.mark.parametrize(
    ("values", "end", "expected"),
    [
        ((16, 32, 64), "high", 128), ((16, 32, 64), "low", 8), ((2, 3), "high", 4), ((1, 2), "high", 3),
        ((8, 14, 20), "high", 26), ((1, 2, 3), "low", None), ((0, 1e-4, 5e-4), "high", 0.0025),
        ((0, 0.1), "low", None), ((0.01, 0.1), "high", 1.0), ((5,), "high", None), ((3, 7), "high", 11),
        ((5, 16), "low", None),
    ],
)  # fmt: skip
def test_the_next_of_a_row(values: tuple[float, ...], end: str, expected: float | None) -> None:
    assert next_in_row(values, end) == expected


def test_a_step_too_far_is_halved() -> None:
    assert 0.98 < widen_range(0.8, 0.98, "high", False, False, lambda v: v < 1) < 1
    assert widen_range(0.0, 0.5, "low", False, False, lambda v: True) == 0
    assert widen_range(1, 3, "high", False, True, lambda v: True) == 4
    assert widen_range(8, 64, "high", True, True, lambda v: True) == 128
    assert widen_range(0.1, 1, "high", False, False, lambda v: v <= 1) == 1


def test_numbers_are_short() -> None:
    assert [tidy(0.0123456, 0.0005), tidy(0.98765, 1e-9), tidy(5.0, 0)] == [0.012, 0.98765, 5.0]


def test_steps_are_kept() -> None:
    results = search(
        lambda c: 0.6 - 2 * (c["dropout"] - 0.2) ** 2,
        count=150,
        draw=lambda c: {"dropout": round(c["dropout"] * 10) / 10},
    )
    new = propose(results, Rules(steps={"dropout": 0.1}))["dropout"].new["uniform"]
    assert new[2] == 0.1 and new[:2] == [round(v, 1) for v in new[:2]]


# ---------------------------------------------------------------- fixed


def test_what_made_no_difference_is_fixed_at_the_best_trials_value() -> None:
    found = told(search(peak, count=150))
    change = next(c for c in found.changes if c.name == "width")
    assert change.kind == "fix" and change.new == found.starts[0]["width"]
    assert "the best trial's" in change.reason


def test_or_at_the_cheapest() -> None:
    change = propose(search(peak, count=150, seconds=lambda c: 0.1 * c["width"]))["width"]
    assert change.new == 16 and "the cheapest" in change.reason


def test_what_others_hang_on_is_not_fixed() -> None:
    assert "kind" not in propose(search(peak, count=200))


# ---------------------------------------------------------------- starting points, words


def test_starting_points_are_the_best_that_differ() -> None:
    results = search(peak)
    found = told(results, top=5)
    values = results.trials.loc[list(found.trials), "val_accuracy"].tolist()
    assert values == sorted(results.trials["val_accuracy"], reverse=True)[:5]
    assert (RATE.name in found.starts[0]) == (found.starts[0]["kind"] == "sgd")
    assert all(isinstance(start["depth"], int) for start in found.starts)


def test_those_that_broke_a_constraint_or_were_lost_are_none() -> None:
    results = search(peak)
    best = told(results).trials
    results.trials.loc[best[0], "breaks"], results.trials.loc[best[1], "state"] = "params <= 1", "diverged"
    assert not {best[0], best[1]} & set(told(results).trials)


def test_a_page_gets_texts() -> None:
    made = proposal(told(search(peak)), "results/run")
    assert made["changes"][0].keys() == {"name", "kind", "old", "new", "reason"}
    assert all(isinstance(v, str) and "\n" not in v for change in made["changes"] for v in change.values())
    assert made["command"] == "hypertune refine results/run"


def test_words() -> None:
    told = [words(v) for v in ({"int": [1, 4]}, {"uniform": [0, 1, 0.5]}, {"choice": [True, "a"]}, 1e-5)]
    assert told == ["1 .. 4", "0 .. 1 by 0.5", "true a", "1e-05"]


def test_how_many_trials_lie_in_the_new_space() -> None:
    results = search(peak)
    narrow = Change("lr", "lr", "narrow", "", {"loguniform": [0.001, 0.01]}, "")
    options = Change("kind", "kind", "drop", "", {"choice": ["adam"]}, "")
    lr, kind = results.trials["lr"], results.trials["kind"]
    assert fitting(results, [narrow, options]) == int((lr.between(0.001, 0.01) & (kind == "adam")).sum())
    assert fitting(results, [Change(RATE.name, "rate", "fix", "", 5.0, "")]) == int((kind != "sgd").sum())
