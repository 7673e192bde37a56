"""Samplers: the Optuna sampler behind each name, and our own quasi-random points; a fresh one for each question.

Each question has a seed of its own, so that a study rebuilt from the run folder asks the same.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from tuner.search.preflight import at
from tuner.search.tpe import QuickTpe
from tuner.spec.distributions import Choice, Int, LogInt, LogUniform, Plain
from tuner.spec.search import CmaEs, Gp, Nsga2, Qmc, RandomSampler, Tpe
from tuner.spec.space import Parameter, Space

HANDOVER = 200
"""Finished trials after which tpe asks on for gp, whose questions cost the cube of them: a second each by then."""


@dataclass(frozen=True)
class Question:
    """What a sampler is made for.

    seed: of this question alone. refused: proposals so far that could not be trained. always: the parameters that
    exist in every trial and have more than one value. names: all parameters. rows: see `QuickTpe`.
    """

    seed: int
    refused: int
    always: Mapping[str, BaseDistribution]
    names: Sequence[str] = ()
    rows: dict[int, tuple[float, ...]] = field(default_factory=dict)


def random(config: RandomSampler, question: Question) -> BaseSampler:
    """Independent draws."""
    return optuna.samplers.RandomSampler(seed=question.seed)


def tpe(config: Tpe, question: Question) -> BaseSampler:
    """Multivariate, and grouped: conditional parameters are modelled with those that exist at the same time.

    What was refused is known to it as a place to keep away from, and is no first trial.
    """
    return QuickTpe(
        question.names,
        question.rows,
        seed=question.seed,
        n_startup_trials=config.startup_trials + question.refused,
        n_ei_candidates=config.candidates,
    )


class _Informed(BaseSampler):
    """Is told which parameters always exist. Optuna finds out from all trials at each question: 25 ms at 10,000."""

    always: Mapping[str, BaseDistribution]

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The parameters that are modelled together."""
        return dict(self.always)


class _Gp(_Informed, optuna.samplers.GPSampler):
    pass


class _CmaEs(_Informed, optuna.samplers.CmaEsSampler):
    pass


class _Nsga2(_Informed, optuna.samplers.NSGAIISampler):
    pass


def gp(config: Gp, question: Question) -> BaseSampler:
    """Gaussian process over the parameters that always exist; the others are drawn at random. See `HANDOVER`."""
    sampler = _Gp(
        seed=question.seed,
        n_startup_trials=config.startup_trials,
        independent_sampler=optuna.samplers.RandomSampler(seed=question.seed),
        warn_independent_sampling=False,
    )
    sampler.always = question.always
    return sampler


def cmaes(config: CmaEs, question: Question) -> BaseSampler:
    """Covariance matrix adaptation over the numbers that always exist; the others are drawn at random."""
    sampler = _CmaEs(
        seed=question.seed,
        n_startup_trials=config.startup_trials,
        popsize=config.population,
        independent_sampler=optuna.samplers.RandomSampler(seed=question.seed),
        warn_independent_sampling=False,
    )
    numbers = {n: d for n, d in question.always.items() if not isinstance(d, CategoricalDistribution)}
    sampler.always = numbers
    return sampler


def nsga2(config: Nsga2, question: Question) -> BaseSampler:
    """Genetic search over the parameters that always exist; the others are drawn at random."""
    sampler = _Nsga2(seed=question.seed, population_size=config.population, crossover_prob=config.crossover)
    sampler.always = question.always
    return sampler


SAMPLERS: dict[str, Callable[[Any, Question], BaseSampler]] = {
    "random": random,
    "tpe": tpe,
    "gp": gp,
    "cmaes": cmaes,
    "nsga2": nsga2,
}
"""Name -> function of the section and the question. `grid` and `qmc` need no study: see `grid.points` and `Quasi`."""

STATEFUL = ("cmaes", "nsga2")
"""They keep what they know in the study's own attributes: rebuilt by asking again, not by adding trials."""


def recent(study: optuna.Study, most: int) -> list[FrozenTrial]:
    """The trials that a sampler of `STATEFUL` still looks at: open ones, the last `most` that finished, the parents."""
    trials = study.get_trials(deepcopy=False)
    finished = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    wanted = {trial.number for trial in finished[-most:]} | {number for _, _, number in _parents(study)}
    return [trial for trial in trials if trial.number in wanted or trial.state == TrialState.RUNNING]


def hand_on(old: optuna.Study, new: optuna.Study, numbers: Mapping[int, int]) -> None:
    """Tell a study made of some trials of an older one which of them were parents; `numbers`: old -> new."""
    ids = {trial.number: trial._trial_id for trial in new.get_trials(deepcopy=False)}
    parents: dict[str, list[int]] = {}
    for key, _, number in _parents(old):
        parents.setdefault(key, []).append(ids[numbers[number]])
    for key, found in parents.items():
        new._storage.set_study_system_attr(new._study_id, key, found)


def _parents(study: optuna.Study) -> list[tuple[str, int, int]]:
    """The parents of the last two generations of a genetic search: attribute of the study, generation, number."""
    prefix = _Nsga2._get_parent_cache_key_prefix()
    attributes = study._storage.get_study_system_attrs(study._study_id)
    generations = sorted(int(key.removeprefix(prefix)) for key in attributes if key.startswith(prefix))
    by_id = {trial._trial_id: trial.number for trial in study.get_trials(deepcopy=False)}
    return [(f"{prefix}{g}", g, by_id[i]) for g in generations[-2:] for i in attributes[f"{prefix}{g}"]]


class Quasi:
    """Quasi-random points of a whole space, one coordinate a parameter; of one that does not exist it is unused.

    Source: Bergstra and Bengio, 2012, section 4; scrambled sequences of scipy.stats.qmc.
    """

    def __init__(self, space: Space, config: Qmc) -> None:
        from scipy.stats import qmc  # 0.7 s, for those who use it

        engine = qmc.Sobol if config.sequence == "sobol" else qmc.Halton
        self._engine = engine(max(1, len(space.parameters)), scramble=True, rng=space.fixed.seed)
        self._axis = {parameter.name: place for place, parameter in enumerate(space.parameters)}

    def next(self) -> Callable[[Parameter], Plain]:
        """Chooses as the next point has it."""
        with warnings.catch_warnings(action="ignore", category=UserWarning):  # balance at powers of two: not needed
            point = self._engine.random(1)[0]
        return lambda parameter: at(parameter.distribution, float(point[self._axis[parameter.name]]))


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """Optuna's distributions of the parameters by name."""
    optunas = optuna.distributions.json_to_distribution
    return {p.name: optunas(json.dumps(p.distribution.to_optuna_json())) for p in space.parameters}


def always(space: Space) -> dict[str, BaseDistribution]:
    """Optuna's distributions of the parameters that exist in every trial and have more than one value."""
    ranges = {p.name: p.distribution.values() for p in space.parameters}  # a range by its ends, which decide
    found: set[str] = set()
    for p in space.parameters:  # what decides comes first
        if all(c.name in found and all(map(c.holds, ranges[c.name])) for c in p.active_when):
            found.add(p.name)
    return {name: kind for name, kind in sorted(distributions(space).items()) if name in found and not kind.single()}


def suggest(trial: optuna.Trial, parameter: Parameter) -> Plain:
    """Ask an Optuna trial for a parameter's value."""
    d = parameter.distribution
    if isinstance(d, Choice):
        value: Plain = trial.suggest_categorical(parameter.name, d.labels)
        return value
    if isinstance(d, Int | LogInt):
        return trial.suggest_int(parameter.name, d.low, d.high, step=d.step or 1, log=isinstance(d, LogInt))
    return trial.suggest_float(parameter.name, d.low, d.high, step=d.step, log=isinstance(d, LogUniform))
