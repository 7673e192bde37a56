"""What mattered: right where most trials were stopped early, which simpler ways are not; conditions; odd runs."""

from __future__ import annotations

import math
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import optuna
import pandas as pd
import pytest

from analysis.folders.parameters import Parameter
from analysis.importance import Importance, by_score, importances
from analysis.results import Results

pytestmark = pytest.mark.slow

FULL, RUNGS, FACTOR = 27, ((1, 3, 9), (9,)), 3
LR = Parameter("lr", "lr", "float", True, log=True, low=1e-4, high=1e-1)
SHUFFLE = Parameter("shuffle", "shuffle", "float", True, low=0.0, high=1.0)


def searched(seed: int, trials: int = 300) -> Results:
    """A search of 27 epochs under asynchronous successive halving, one of three going on at each rung.

    The learning rate decides: within a band around 1e-3 networks learn well, a little more slowly the smaller it is;
    every schedule ends with the jump of a rate that falls to nothing. `shuffle` decides nothing. It is drawn from a
    van der Corput sequence, whose points alternate between the two halves of the range; trials are dealt out in turn to
    two brackets, an eager one with rungs at 1, 3 and 9 and a patient one with a rung at 9. So its lower half is trained
    longer, for no merit of its own.
    """
    rng = np.random.default_rng(seed)
    heard: dict[tuple[int, int], list[float]] = {}
    rows: list[dict[str, Any]] = []
    epochs: list[dict[str, Any]] = []
    epoch = np.arange(1, FULL + 1)
    for number in range(1, trials + 1):
        place = rng.random()
        plateau = 0.30 + 0.55 * math.exp(-(((place - 0.3) / 0.18) ** 4)) + rng.normal(0, 0.015)
        slowness = FULL * (0.3 + 0.3 * (1 - place))
        jump = 0.2 / (1 + np.exp(-(epoch - 0.8 * FULL) / (0.06 * FULL)))
        curve = 0.1 + (plateau - 0.1) * (1 - np.exp(-epoch / slowness)) + jump + rng.normal(0, 0.01, FULL)
        bracket, length = number % 2, FULL
        for rung in RUNGS[bracket]:
            seen = heard.setdefault((bracket, rung), [])
            seen.append(curve[rung - 1])
            if curve[rung - 1] < sorted(seen, reverse=True)[max(1, len(seen) // FACTOR) - 1]:
                length = rung
                break
        trial = f"{number:03d}"
        settings = {"lr": 10 ** (3 * place - 4), "shuffle": van_der_corput(number)}
        state = "finished" if length == FULL else "stopped"
        fixed = {"trial": trial, "state": state, "acc": curve[:length].max(), "repeat_of": None, "breaks": None}
        rows.append({**fixed, "last": curve[length - 1], **settings})
        epochs += [{"trial": trial, "epoch": e, "acc": v} for e, v in enumerate(curve[:length], 1)]
    table = pd.DataFrame(rows).set_index("trial")
    return Results(Path(), "run", "hypertune", table, pd.DataFrame(epochs), (LR, SHUFFLE), "acc", "max", {}, ())


def van_der_corput(number: int) -> float:
    """The binary digits of the number, mirrored at the point."""
    return sum(int(digit) * 0.5**place for place, digit in enumerate(f"{number:b}"[::-1], 1))


def share(found: tuple[Importance, ...], name: str) -> float:
    return {one.name: one.top for one in found}[name]


def test_noise_gets_no_importance_from_who_was_stopped_and_simpler_ways_give_it_some() -> None:
    runs = [searched(seed) for seed in range(3)]
    assert all(0.7 < (run.trials["state"] == "stopped").mean() < 0.9 for run in runs)
    for run in runs:
        found = importances(run)
        assert share(found, "lr") > 0.9 and share(found, "shuffle") < 0.05
    finished = [by_score(r, r.trials["acc"].where(r.trials["state"] == "finished")).importances for r in runs]
    last = [by_score(r, r.trials["last"]).importances for r in runs]
    for simple in (finished, last):
        assert median(share(found, "shuffle") for found in simple) > 0.1
        assert not any(share(found, "shuffle") < 0.05 and share(found, "lr") > 0.9 for found in simple)


# ---------------------------------------------------------------- any run

KIND = Parameter("opt", "opt", "choice", False, choices=("adam", "sgd", "null"))
MOMENTUM = Parameter("opt[sgd].m", "m", "float", True, low=0, high=1, active_when=({"name": "opt", "values": ["sgd"]},))
BETA = Parameter("opt[adam].m", "m", "float", True, low=0, high=1, active_when=({"name": "opt", "values": ["adam"]},))
DEPTH = Parameter("depth", "depth", "int", True, low=1, high=4)


def made(trials: list[dict[str, Any]], parameters: tuple[Parameter, ...]) -> Results:
    """Finished trials of one epoch each."""
    fixed = {"state": "finished", "repeat_of": None, "breaks": None}
    table = pd.DataFrame([{"trial": f"{n:03d}", **fixed, **t} for n, t in enumerate(trials)]).set_index("trial")
    epochs = table.reset_index()[["trial", "acc"]].assign(epoch=1)
    return Results(Path(), "run", "hypertune", table, epochs, parameters, "acc", "max", {}, ())


def branches(count: int) -> Results:
    """sgd is good where m is high; under adam m decides nothing, and is another parameter in the same column."""
    rng = np.random.default_rng(0)
    trials = []
    for n in range(count):
        kind, m = ("sgd", "adam")[n % 2], rng.random()
        trials.append({"opt": kind, "m": m, "depth": n // 2 % 4 + 1, "acc": m if kind == "sgd" else 0.5 * rng.random()})
    return made(trials, (KIND, MOMENTUM, BETA, DEPTH))


def test_parameters_of_one_column_are_told_apart_by_the_branch_they_exist_in() -> None:
    found = {one.name: one for one in importances(branches(80))}
    assert next(iter(found)) == "opt[sgd].m"
    assert (found["opt[sgd].m"].trials, found["opt[adam].m"].trials, found["depth"].trials) == (40, 40, 80)
    assert sum(one.top for one in found.values()) == pytest.approx(1)


def test_a_share_is_above_chance_only_where_a_setting_matters() -> None:
    found = {one.name: one for one in importances(branches(80))}
    assert found["opt[sgd].m"].top > found["opt[sgd].m"].chance
    assert found["opt[adam].m"].top < found["opt[adam].m"].chance
    assert found["depth"].top < found["depth"].chance


def test_the_same_run_gives_the_same_shares() -> None:
    assert importances(branches(40)) == importances(branches(40))


def test_too_few_trials_and_settings_that_did_not_vary_have_none() -> None:
    assert importances(branches(9)) == ()
    assert importances(made([{"depth": 2, "acc": n / 20} for n in range(20)], (DEPTH,))) == ()


def test_values_outside_the_space_widen_it() -> None:
    trials = [{"depth": n, "opt": f"new {n % 3}", "acc": n / 20} for n in range(20)]
    assert [one.name for one in importances(made(trials, (DEPTH, KIND)))] == ["depth", "opt"]


def test_repeats_and_trials_without_a_value_do_not_count() -> None:
    run = branches(40)
    again: list[Any] = [
        {"opt": "sgd", "m": 0.0, "depth": 1, "acc": 2.0, "repeat_of": "001"},
        {"depth": 2, "state": "failed"},
    ]
    rows: list[Any] = run.trials.to_dict("records")
    more = made([*rows, *again], run.parameters)
    assert importances(more) == importances(run)


def test_optuna_is_left_as_it_was() -> None:
    before = optuna.logging.get_verbosity()
    importances(branches(12))
    assert optuna.logging.get_verbosity() == before
