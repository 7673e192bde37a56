"""Samplers: the Optuna sampler behind each name, and our own quasi-random points; a fresh one for each question.

Each question has a seed of its own, so that a study rebuilt from the run folder asks the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import optuna
from optuna.samplers import BaseSampler

from tuner.search.preflight import at
from tuner.spec.distributions import Plain
from tuner.spec.space import Parameter, Space
from tuner.spec.trial_config import CmaEs, Gp, Nsga2, Qmc, RandomSampler, Tpe

HANDOVER = 200
"""Finished trials after which tpe asks on for gp, whose questions cost the cube of them: a second each by then."""


def random(config: RandomSampler, seed: int, refused: int) -> BaseSampler:
    """Independent draws."""
    return optuna.samplers.RandomSampler(seed=seed)


def tpe(config: Tpe, seed: int, refused: int) -> BaseSampler:
    """Multivariate, and grouped: conditional parameters are modelled with those that exist at the same time.

    What was refused is known to it as a place to keep away from, and is no first trial.
    """
    return optuna.samplers.TPESampler(
        seed=seed,
        multivariate=True,
        group=True,
        n_startup_trials=config.startup_trials + refused,
        n_ei_candidates=config.candidates,
    )


def gp(config: Gp, seed: int, refused: int) -> BaseSampler:
    """Gaussian process; parameters that do not always exist are drawn at random."""
    return optuna.samplers.GPSampler(
        seed=seed,
        n_startup_trials=config.startup_trials,
        independent_sampler=optuna.samplers.RandomSampler(seed=seed),
        warn_independent_sampling=False,
    )


def cmaes(config: CmaEs, seed: int, refused: int) -> BaseSampler:
    """Covariance matrix adaptation over the numbers that always exist; the others are drawn at random."""
    return optuna.samplers.CmaEsSampler(
        seed=seed,
        n_startup_trials=config.startup_trials,
        popsize=config.population,
        independent_sampler=optuna.samplers.RandomSampler(seed=seed),
        warn_independent_sampling=False,
    )


def nsga2(config: Nsga2, seed: int, refused: int) -> BaseSampler:
    """Genetic search."""
    return optuna.samplers.NSGAIISampler(seed=seed, population_size=config.population, crossover_prob=config.crossover)


SAMPLERS: dict[str, Callable[[Any, int, int], BaseSampler]] = {
    "random": random,
    "tpe": tpe,
    "gp": gp,
    "cmaes": cmaes,
    "nsga2": nsga2,
}
"""Name -> function of the section, the seed of the question, and how many proposals were refused so far."""

STATEFUL = ("cmaes", "nsga2")
"""They keep what they know in the study's own attributes: rebuilt by asking again, not by adding trials."""


class Quasi:
    """Quasi-random points of a whole space, one coordinate a parameter; of one that does not exist it is unused.

    Source: Bergstra and Bengio, 2012, section 4; scrambled sequences of scipy.stats.qmc.
    """

    def __init__(self, space: Space, config: Qmc) -> None:
        from scipy.stats import qmc

        engine = qmc.Sobol if config.sequence == "sobol" else qmc.Halton
        self._engine = engine(max(1, len(space.parameters)), scramble=True, rng=space.fixed.seed)
        self._axis = {parameter.name: place for place, parameter in enumerate(space.parameters)}

    def next(self) -> Callable[[Parameter], Plain]:
        """Chooses as the next point has it."""
        import warnings

        with warnings.catch_warnings(action="ignore", category=UserWarning):  # balance at powers of two: not needed
            point = self._engine.random(1)[0]
        return lambda parameter: at(parameter.distribution, float(point[self._axis[parameter.name]]))


def distributions(space: Space, parameters: Mapping[str, Plain]) -> dict[str, Any]:
    """Optuna's distributions of these parameters."""
    import json

    by_name = {p.name: p.distribution.to_optuna_json() for p in space.parameters}
    return {name: optuna.distributions.json_to_distribution(json.dumps(by_name[name])) for name in parameters}
