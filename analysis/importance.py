"""What mattered: how much each searched setting decided how a trial stood, and whether it came into the best quarter.

A trial that was stopped early has a low value because it was stopped. Taken at their last values, or left out, such
trials make settings important that only went along with being stopped. So every trial is scored by `fidelity.standing`,
its comparisons at matched epochs.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from analysis import fidelity
from analysis.forest import Forest, axes, matrix
from analysis.ped_anova import Grid
from analysis.results import Results
from analysis.settings import Floats, Mask, Setting, regimes, settings

TOP = 0.25  # the best quarter: of 20 trials five
FEWEST = 10  # trials with a score; below that a quarter is two
SHUFFLES = 199  # of the scores
RESAMPLES = 60
REPLICATES, TREES, MOST = 12, 24, 500  # forests, trees in each, trials that each sees
KEPT = 0.8  # of the trials in a replicate


NINETY = 1.645  # standard deviations: a 90% interval of a normal distribution

Share = tuple[float, float, float]  # with the ends of its interval
UNKNOWN: Share = (float("nan"), float("nan"), float("nan"))


class Importance(NamedTuple):
    """One setting, by its name.

    share: functional ANOVA, the part of all differences in standing between the trials that this setting explains
    alone, 0..1, as a forest sees it on trials that it was not fitted to; low, high: 90% interval.
    top: PED-ANOVA, its part in deciding who is among the best quarter, of all settings together 1; top_low, top_high:
    90% interval. chance: the part that it gets in 95% of all shuffles; p: how often shuffles gave as much.
    trials: in which it was in use: a setting of a branch is judged there alone.
    """

    name: str
    label: str
    share: float
    low: float
    high: float
    top: float
    top_low: float
    top_high: float
    chance: float
    p: float
    trials: int


class MainEffect(NamedTuple):
    """What a forest expects of a setting's values, over all others: the standing (0..1) at each of its points.

    at: the points in the setting's own measure (logarithms of a logarithmic one, places of categories); mean, low,
    high: with a 90% band.
    """

    setting: Setting
    at: Floats
    mean: Floats
    low: Floats
    high: Floats


class Weighed(NamedTuple):
    """All settings that varied: how much each mattered, the most important first, and its course, in the same order."""

    importances: tuple[Importance, ...] = ()
    effects: tuple[MainEffect, ...] = ()


def importances(results: Results) -> tuple[Importance, ...]:
    """How much each setting mattered, without its course."""
    return weigh(results).importances


def weigh(results: Results) -> Weighed:
    """Every setting that varied; empty where fewer than ten trials can be compared.

    Functional ANOVA (Hutter et al., 2014) judges over the whole searched space; PED-ANOVA (Watanabe et al., 2023) by
    how far a setting's values among the best quarter are from those among all. Both give main effects: a setting that
    matters only together with another shows little (see `interactions`).
    """
    return by_score(results, fidelity.standing(results))


def by_score(results: Results, score: pd.Series[float]) -> Weighed:
    """The same by any score a trial, larger is better; trials without one are left out."""
    y = score.to_numpy(dtype=float)
    told = np.isfinite(y)
    found = settings(results, told)
    if told.sum() < FEWEST or not found:
        return Weighed()
    grown = _grow(found, y, told)
    top = _top(found, y, told)
    made = []
    for setting, part in zip(found, top, strict=True):
        share, course = grown.get(setting.name, (UNKNOWN, None))
        one = Importance(setting.name, setting.label, *share, *part, int((setting.used() & told).sum()))
        made.append((one, course))
    made.sort(key=lambda pair: -(np.nan_to_num(pair[0].share) + pair[0].top))
    return Weighed(tuple(one for one, _ in made), tuple(course for _, course in made if course is not None))


def _grow(found: tuple[Setting, ...], y: Floats, told: Mask) -> dict[str, tuple[Share, MainEffect]]:
    """By name the share and the course of each setting, in the trials that used it.

    Each replicate leaves out a fifth of the trials (the delete-d jackknife of Shao and Wu, 1989). What its forest does
    not explain of trials that it has not seen is nobody's share.
    """
    total = ((y[told] - y[told].mean()) ** 2).sum()
    known: dict[str, tuple[Share, MainEffect]] = {}
    for mask, group, own in regimes(found, told):
        inside = np.flatnonzero(mask)
        if len(inside) < FEWEST or not total:
            continue
        x, values, grid = matrix(group)[inside], y[inside], axes(group)
        part = ((values - values.mean()) ** 2).sum() / total
        rng, rows, courses = np.random.default_rng(0), [], []
        size = min(round(KEPT * len(inside)), MOST)
        for replicate in range(REPLICATES):
            kept = rng.choice(len(inside), size, replace=False)
            forest = Forest(x[kept], values[kept], grid, trees=TREES, seed=replicate)
            terms = forest.terms(pairs=False)
            scale = max(0.0, forest.explained(x[kept], values[kept])) / max(forest.variance(), 1e-12)
            rows.append(np.minimum(1.0, [scale * (main**2).mean() for main in terms.mains]))
            courses.append([terms.mean + main for main in terms.mains])
        shares, wider = part * np.array(rows), np.sqrt(size / max(len(inside) - size, 1))
        for n, setting in enumerate(group):
            if not any(setting is one for one in own):
                continue
            mean, reach = float(shares[:, n].mean()), NINETY * wider * float(shares[:, n].std(ddof=1))
            course = np.array([one[n] for one in courses])
            middle, band = course.mean(axis=0), NINETY * wider * course.std(axis=0, ddof=1)
            at = np.array(setting.distinct) if setting.distinct else grid[n].points
            drawn = MainEffect(setting, at, middle, np.clip(middle - band, 0, 1), np.clip(middle + band, 0, 1))
            known[setting.name] = ((mean, max(0.0, mean - reach), min(1.0, mean + reach)), drawn)
    return known


def _top(found: tuple[Setting, ...], y: Floats, told: Mask) -> list[tuple[float, float, float, float, float]]:
    """PED-ANOVA's share of each setting with low, high, chance and p."""
    grids, score = [Grid(s) for s in found], np.where(told, y, -np.inf)
    rng, inside, weights = np.random.default_rng(0), np.flatnonzero(told), told.astype(float)
    real = np.array([grid.divergence(_best(score, weights), weights) for grid in grids])
    total = real.sum()
    if not total:
        return [(0.0, 0.0, 0.0, 0.0, 1.0)] * len(found)
    shuffled = []
    for _ in range(SHUFFLES):
        mixed = score.copy()
        mixed[inside] = rng.permutation(score[inside])
        shuffled.append([grid.divergence(_best(mixed, weights), weights) for grid in grids])
    drawn = []
    for _ in range(RESAMPLES):
        counts = np.bincount(rng.choice(inside, len(inside)), minlength=len(y)).astype(float)
        again = np.array([grid.divergence(_best(score, counts), counts) for grid in grids])
        drawn.append(again / max(again.sum(), 1e-12))
    low, high = np.quantile(drawn, [0.05, 0.95], axis=0)
    share, chance = real / total, np.quantile(shuffled, 0.95, axis=0) / total
    p = (1 + (np.array(shuffled) >= real).sum(axis=0)) / (1 + SHUFFLES)
    low, high = np.minimum(low, share), np.maximum(high, share)
    return [tuple(map(float, row)) for row in zip(share, low, high, chance, p, strict=True)]  # type: ignore[misc]


def _best(score: Floats, weights: Floats) -> Mask:
    """The trials of the best quarter, counted by weight; those that equal the last of them too."""
    order = np.argsort(-score, kind="stable")
    running = np.cumsum(weights[order])
    last = order[np.searchsorted(running, np.ceil(TOP * running[-1]) - 1e-9)]
    best: Mask = (score >= score[last]) & (weights > 0)
    return best
