"""Choose: which sampler `auto` means, by the space and the budget, and why; and what a sampler cannot do."""

from __future__ import annotations

from tuner.search import grid
from tuner.spec.search import AnySampler, Auto, Grid, Nsga2, Pbt, Qmc, RandomSampler, Tpe
from tuner.spec.space import Space

FEW = 10
"""Trials below which a model has learned nothing yet: tpe draws its first ten at random."""

MANY = 300
"""Trials from which several objectives are left to a genetic search: a front needs many points."""


def choose_sampler(space: Space, trials: int) -> tuple[AnySampler, str]:
    """The sampler of a search of so many trials, and the reason where `auto` chose it."""
    search = space.fixed.search
    if not isinstance(search.sampler, Auto):
        return search.sampler, ""
    if isinstance(search.scheduler, Pbt):
        return RandomSampler(), "the population itself learns"
    combinations = grid.count(space)
    if combinations is not None and combinations <= min(trials, grid.LARGEST):
        return Grid(), f"every one of {combinations:,} combinations fits" if combinations > 1 else "there is one"
    if trials < FEW:
        return Qmc(), f"evenly spread: a model learns nothing from fewer than {FEW}"
    if len(search.objectives) > 1 and trials >= MANY:
        return Nsga2(), "several objectives and many trials"
    return Tpe(), "a model of what was good"
