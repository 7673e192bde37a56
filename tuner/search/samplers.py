"""Samplers: the Optuna sampler behind each name, and our own quasi-random points; a fresh one for each question.

Each question has a seed of its own, so that a study rebuilt from the run folder asks the same.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial

from tuner.search.preflight import at
from tuner.spec.distributions import Plain
from tuner.spec.space import Parameter, Space
from tuner.spec.trial_config import CmaEs, Gp, Nsga2, Qmc, RandomSampler, Tpe

HANDOVER = 200
"""Finished trials after which tpe asks on for gp, whose questions cost the cube of them: a second each by then."""


@dataclass(frozen=True)
class Question:
    """What a sampler is made for.

    seed: of this question alone. refused: proposals so far that could not be trained. always: the parameters that
    exist in every trial and have more than one value.
    """

    seed: int
    refused: int
    always: Mapping[str, BaseDistribution]


def random(config: RandomSampler, question: Question) -> BaseSampler:
    """Independent draws."""
    return optuna.samplers.RandomSampler(seed=question.seed)


def tpe(config: Tpe, question: Question) -> BaseSampler:
    """Multivariate, and grouped: conditional parameters are modelled with those that exist at the same time.

    What was refused is known to it as a place to keep away from, and is no first trial.
    """
    return optuna.samplers.TPESampler(
        seed=question.seed,
        multivariate=True,
        group=True,
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
