"""Forests taken apart: exact means over everything else, the shares of functions that are known, and PED-ANOVA."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import pytest
from numpy.typing import NDArray

from analysis.folders.parameters import Parameter
from analysis.forest import Axis, Forest, axes, matrix
from analysis.ped_anova import Grid
from analysis.results import Results
from analysis.settings import settings

pytestmark = pytest.mark.slow

UNIT = Axis(0, 1, (np.arange(24) + 0.5) / 24)


def grown(function: Callable[[NDArray[np.float64]], Any], count: int = 600) -> tuple[Forest, NDArray[np.float64], Any]:
    x = np.random.default_rng(0).random((count, 3))
    y = function(x)
    return Forest(x, y, [UNIT] * 3, trees=16, seed=0), x, y


def test_a_main_effect_is_the_mean_of_the_forests_own_predictions() -> None:
    forest, _, _ = grown(lambda x: x[:, 0] + x[:, 1] * x[:, 2])
    terms, places = forest.terms(), UNIT.points
    rest = np.stack(np.meshgrid(places, places), axis=-1).reshape(-1, 2)
    for n in (0, 11, 23):
        seen = forest.model.predict(np.column_stack([np.full(len(rest), places[n]), rest]).astype(np.float32)).mean()
        assert terms.mean + terms.mains[0][n] == pytest.approx(seen, abs=1e-6)


def test_a_pair_is_what_is_left_of_the_predictions_of_both() -> None:
    forest, _, _ = grown(lambda x: x[:, 0] * x[:, 1])
    terms, at = forest.terms(), UNIT.points
    seen = forest.model.predict(
        np.column_stack([np.full(24, at[3]), np.full(24, at[20]), at]).astype(np.float32)
    ).mean()  # over the third
    whole = terms.mean + terms.mains[0][3] + terms.mains[1][20] + terms.pairs[0, 1][3, 20]
    assert whole == pytest.approx(seen, abs=1e-6)


def test_shares_come_near_those_of_a_function_whose_shares_are_known() -> None:
    # y = a + b + 4 (a - 1/2)(b - 1/2), a and b uniform: variances 1/12, 1/12 and 16/144.
    forest, _, _ = grown(lambda x: x[:, 0] + x[:, 1] + 4 * (x[:, 0] - 0.5) * (x[:, 1] - 0.5), 3000)
    terms, total = forest.terms(), 2 / 12 + 1 / 9
    shares = [float((main**2).mean()) / total for main in terms.mains]
    assert shares == pytest.approx([0.3, 0.3, 0.0], abs=0.04)
    assert float((terms.pairs[0, 1] ** 2).mean()) / total == pytest.approx(0.4, abs=0.08)


def test_a_forest_explains_nothing_of_noise_and_nearly_all_of_a_smooth_function() -> None:
    noise, x, y = grown(lambda x: np.random.default_rng(1).random(len(x)))
    assert noise.explained(x, y) < 0.05
    smooth, x, y = grown(lambda x: x[:, 0])
    assert smooth.explained(x, y) > 0.95


# ---------------------------------------------------------------- PED-ANOVA

PARAMETERS = (
    Parameter("lr", "lr", "float", True, log=True, low=1e-4, high=1e-1),
    Parameter("dropout", "dropout", "float", True, low=0.0, high=0.5),
    Parameter("depth", "depth", "int", True, low=1, high=4),
    Parameter("wide", "wide", "int", True, log=True, low=8, high=500),
    Parameter("opt", "opt", "choice", False, choices=("adam", "sgd")),
    Parameter("opt[sgd].m", "m", "float", True, low=0, high=1, active_when=({"name": "opt", "values": ["sgd"]},)),
)


def run(count: int, seed: int) -> tuple[Results, optuna.Study]:
    """The same random trials as Results and as a study of Optuna's."""
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    study = optuna.create_study()
    D = optuna.distributions
    kinds: dict[str, Any] = {
        "lr": D.FloatDistribution(1e-4, 1e-1, log=True), "dropout": D.FloatDistribution(0, 0.5),
        "depth": D.IntDistribution(1, 4), "wide": D.IntDistribution(8, 500, log=True),
        "opt": D.CategoricalDistribution(("adam", "sgd")), "opt[sgd].m": D.FloatDistribution(0, 1),
    }  # fmt: skip
    for n in range(count):
        row: dict[str, Any] = {
            "lr": 10 ** rng.uniform(-4, -1), "dropout": rng.uniform(0, 0.5), "depth": int(rng.integers(1, 5)),
            "wide": int(rng.integers(8, 501)), "opt": ("adam", "sgd")[n % 2],
        }  # fmt: skip
        if row["opt"] == "sgd":
            row["m"] = rng.random()
        score = float(row["dropout"] + row.get("m", 0.3) + 0.1 * rng.random())
        named = {("opt[sgd].m" if k == "m" else k): v for k, v in row.items()}
        study.add_trial(
            optuna.trial.create_trial(value=-score, params=named, distributions={k: kinds[k] for k in named})
        )
        rows.append({"trial": f"{n:03}", "state": "finished", "repeat_of": None, "breaks": None, "acc": score, **row})
    table = pd.DataFrame(rows).set_index("trial")
    epochs = table.reset_index()[["trial", "acc"]].assign(epoch=1)
    return Results(Path(), "run", "hypertune", table, epochs, PARAMETERS, "acc", "max", {}, ()), study


@pytest.mark.parametrize("seed", range(3))
def test_divergences_are_those_of_optuna(seed: int) -> None:
    results, study = run(60, seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=0.25)
        theirs = optuna.importance.get_param_importances(study, evaluator=evaluator, normalize=False)
    score = results.trials["acc"].to_numpy(dtype=float)
    top = score >= np.sort(score)[::-1][14]
    ours = {s.name: Grid(s).divergence(top) for s in settings(results)}
    assert ours == pytest.approx(theirs, rel=1e-9, abs=1e-15)


def test_settings_of_few_values_stand_in_a_row_for_the_forest() -> None:
    results, _ = run(40, 0)
    found = {s.name: s for s in settings(results)}
    assert found["depth"].distinct == (1.0, 2.0, 3.0, 4.0) and found["opt"].texts == ("adam", "sgd")
    assert set(matrix([found["opt"]])[:, 0]) == {0.0, 1.0}
    (axis,) = axes([found["depth"]])
    assert (axis.low, axis.high, list(axis.points)) == (-0.5, 3.5, [0, 1, 2, 3])
    assert np.isnan(found["opt[sgd].m"].x).sum() == 20 and found["lr"].low == -4
