"""What mattered: how much each searched setting decided whether a trial stood among the best.

A trial that was stopped early has a low value because it was stopped. Taken at their last values, or left out, such
trials make settings important that only went along with being stopped. So every trial is scored by `fidelity.standing`,
its comparisons at matched epochs, and the study that Optuna is given holds those scores.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis import fidelity
from analysis.parameters import Parameter, holds
from analysis.results import Results

if TYPE_CHECKING:
    import optuna

TOP = 0.25  # the best quarter: of 20 trials the five that Optuna asks for at least
FEWEST = 10  # trials with a score; below that a quarter is two
SHUFFLES = 19  # of the scores; to be above them all is one chance in twenty


class Importance(NamedTuple):
    """One setting, by its name. share: of all settings together 1. trials: in which it was in use.

    chance: the highest share that it gets from shuffled scores, of 19; one that is not above it tells nothing.
    """

    name: str
    share: float
    chance: float
    trials: int


def importances(results: Results) -> tuple[Importance, ...]:
    """Every setting that varied, the most important first; empty where fewer than ten trials can be compared.

    PED-ANOVA (Watanabe et al., 2023): how far the distribution of a setting's values among the best quarter of the
    trials is from that among all. Optuna's version knows settings that exist in some trials only ("Conditional
    PED-ANOVA", arXiv 2601.20800). It gives main effects: a setting that matters only together with another shows
    little.
    """
    return by_score(results, fidelity.standing(results))


def by_score(results: Results, score: pd.Series[float]) -> tuple[Importance, ...]:
    """The same by any score a trial, larger is better; trials without one are left out."""
    score = score.dropna()
    used = {name: mask[score.index] for name, mask in in_use(results).items()}
    table = results.trials.loc[score.index]
    varied = [p for p in results.parameters if len(set(table[p.column][used[p.name]])) > 1]
    if len(score) < FEWEST or not varied:
        return ()
    values = score.to_numpy(dtype=float)
    rng = np.random.default_rng(0)
    with _quietly():
        study = _study(table, varied, used)
        found = _divergences(study, values)
        shuffled = [_divergences(study, rng.permutation(values)) for _ in range(SHUFFLES)]
    total = sum(found.values())
    if not total:
        return ()
    made = [
        Importance(
            p.name,
            found[p.name] / total,
            max(one[p.name] for one in shuffled) / total,
            int(used[p.name].sum()),
        )
        for p in varied
    ]
    return tuple(sorted(made, key=lambda one: -one.share))


def in_use(results: Results) -> dict[str, pd.Series[bool]]:
    """Parameter name -> in which trials it was in use: several may share a column, one a branch."""
    masks: dict[str, pd.Series[bool]] = {}
    columns = {p.name: p.column for p in results.parameters}
    for parameter in results.parameters:
        mask = results.trials[parameter.column].notna()
        for condition in parameter.active_when:
            parent = str(condition.get("name"))
            if parent in masks:
                met = [holds(condition, {parent: value}) for value in results.trials[columns[parent]]]
                mask = mask & masks[parent] & np.array(met, dtype=bool)
        masks[parameter.name] = mask
    return masks


def _divergences(study: optuna.Study, score: NDArray[np.floating[Any]]) -> Mapping[str, float]:
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    evaluator = PedAnovaImportanceEvaluator(target_quantile=TOP)
    # The evaluator wants a target to be low.
    return get_param_importances(
        study, evaluator=evaluator, target=lambda trial: -float(score[trial.number]), normalize=False
    )


def _study(table: pd.DataFrame, parameters: list[Parameter], used: Mapping[str, pd.Series[bool]]) -> optuna.Study:
    """A study of the trials in `table`, in their order, each with the settings that it used, all of one value."""
    import optuna

    study = optuna.create_study()
    distributions = {p.name: _distribution(p, table[p.column][used[p.name]]) for p in parameters}
    trials = []
    for n, trial in enumerate(table.index):
        active = [p for p in parameters if used[p.name].iloc[n]]
        values = {p.name: _value(p, table.loc[trial, p.column]) for p in active}
        trials.append(
            optuna.trial.create_trial(
                value=0.0, params=values, distributions={name: distributions[name] for name in values}
            )
        )
    study.add_trials(trials)
    return study


def _distribution(parameter: Parameter, values: pd.Series[Any]) -> optuna.distributions.BaseDistribution:
    """The parameter's, made wide enough for every value that a trial had: a run may have changed its space."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if parameter.kind == "choice":
        known = {str(choice): choice for choice in parameter.choices}
        known |= {str(v): v for v in values.unique() if v not in parameter.choices}
        return CategoricalDistribution(list(known.values()))
    low = min(float(values.min()), values.min() if parameter.low is None else parameter.low)
    high = max(float(values.max()), values.max() if parameter.high is None else parameter.high)
    if parameter.kind == "int":
        return IntDistribution(int(low), int(high), log=parameter.log and low >= 1)
    return FloatDistribution(float(low), float(high), log=parameter.log and low > 0)


def _value(parameter: Parameter, value: Any) -> Any:
    return int(value) if parameter.kind == "int" else float(value) if parameter.kind == "float" else value


@contextmanager
def _quietly() -> Iterator[None]:
    """Without Optuna's log and its warnings: of experimental arguments, and that a target is to be low."""
    import optuna

    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(level)
