"""Which settings interact: where the best value of one depends on another, and whether noise would show as much.

The strength of a pair is its term in the functional ANOVA of a forest (Hutter et al., 2014). Forests see interactions
in noise too, so the same forest is grown again and again on scores in which there is none: what the settings explain
one by one, plus what is left, dealt out anew among the trials (Freedman and Lane, 1983). A pair counts by how often
the strongest pair of all was as strong there: one false alarm among all pairs is as rare as p says.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from analysis import fidelity
from analysis.forest import Axis, Forest, Terms, axes, matrix
from analysis.results import Results
from analysis.settings import Floats, Setting, regimes, settings

FEWEST = 20  # trials with a score; below that a forest sees no pair
TREES, MOST = 24, 400  # trees of a forest, trials that it sees
SHUFFLES = 199
ENOUGH = 10  # shuffles as strong as what was seen: then more of them change nothing (Besag and Clifford, 1991)
MOST_SETTINGS = 16  # whose pairs are looked at, by their main effects; 120 pairs


class Interaction(NamedTuple):
    """Two settings, by name. share: of the differences in standing what the forest explains by the two together, beyond
    each alone. p: for all pairs looked at. trials: that used both. surface: the standing that the forest expects at
    each place of the first (rows) and the second (columns), over everything else; first_at, second_at: these places.
    """

    first: str
    second: str
    labels: tuple[str, str]
    share: float
    p: float
    trials: int
    surface: Floats
    first_at: Floats
    second_at: Floats


class _Grown(NamedTuple):
    """A forest taken apart. scale: turns a variance of its function into a share of the scores' variance."""

    terms: Terms
    strength: dict[tuple[int, int], float]
    scale: float


def interactions(results: Results) -> tuple[Interaction, ...]:
    """Every pair of settings that were in use together, the strongest first; empty below twenty trials with a score."""
    y = fidelity.standing(results).to_numpy(dtype=float)
    told = np.isfinite(y)
    groups = [
        (np.flatnonzero(mask), group, own)
        for mask, group, own in regimes(settings(results, told), told)
        if mask.sum() >= FEWEST and len(group) > 1 and own
    ]
    total = ((y[told] - y[told].mean()) ** 2).sum() if told.any() else 0.0
    found: list[Interaction] = []
    for inside, group, own in groups:
        part = ((y[inside] - y[inside].mean()) ** 2).sum() / total if total else 0.0
        if part:
            found += _pairs(y, inside, group, own, part, len(groups))
    return tuple(sorted(found, key=lambda one: (one.p, -one.share)))


def _pairs(
    y: Floats, inside: np.ndarray, group: tuple[Setting, ...], own: tuple[Setting, ...], part: float, families: int
) -> list[Interaction]:
    rng = np.random.default_rng(0)
    seen = inside if len(inside) <= MOST else np.sort(rng.choice(inside, MOST, replace=False))
    if len(group) > MOST_SETTINGS:
        x, values, grid = matrix(group)[seen], y[seen], axes(group)
        mains = _grow(x, values, grid, 0).terms.mains
        chosen = sorted(np.argsort([-float((main**2).mean()) for main in mains])[:MOST_SETTINGS])
        group = tuple(group[n] for n in chosen)
    x, values, grid = matrix(group)[seen], y[seen], axes(group)
    if values.std() == 0:
        return []
    real = _grow(x, values, grid, 0)
    pairs = [pair for pair in real.strength if any(group[n] is one for n in pair for one in own)]
    if not pairs:
        return []
    alone = _alone(x, values, grid, real.terms)
    left, strongest = values - alone, max(real.strength[pair] for pair in pairs)
    drawn: list[float] = []
    while len(drawn) < SHUFFLES and sum(one >= strongest for one in drawn) < ENOUGH:
        null = _grow(x, alone + rng.permutation(left), grid, len(drawn) + 1).strength
        drawn.append(max(null[pair] for pair in pairs))
    made = []
    for i, j in pairs:
        p = (1 + sum(one >= real.strength[i, j] for one in drawn)) / (1 + len(drawn))
        terms = real.terms
        surface = terms.mean + terms.mains[i][:, None] + terms.mains[j][None, :] + terms.pairs[i, j]
        share = min(1.0, part * real.scale * real.strength[i, j])
        one, two = group[i], group[j]
        made.append(
            Interaction(
                one.name, two.name, (one.label, two.label), share, min(1.0, p * families), len(inside), surface,
                _places(one, grid[i]), _places(two, grid[j]),
            )
        )  # fmt: skip
    return made


def _grow(x: Floats, y: Floats, grid: tuple[Axis, ...], seed: int) -> _Grown:
    forest = Forest(x, y, grid, trees=TREES, seed=seed)
    terms = forest.terms()
    strength = {pair: float((term**2).mean()) for pair, term in terms.pairs.items()}
    scale = max(0.0, forest.explained(x, y)) / max(forest.variance(), 1e-12) if seed == 0 else 0.0
    return _Grown(terms, strength, scale)


def _alone(x: Floats, y: Floats, grid: tuple[Axis, ...], terms: Terms) -> Floats:
    """What the settings explain one by one: the forest's main effects, scaled to fit, for a forest evens them out."""
    columns = [np.ones(len(y))]
    for n, axis in enumerate(grid):
        nearest = np.abs(x[:, n, None] - axis.points[None, :]).argmin(axis=1)
        columns.append(terms.mains[n][nearest])
    design = np.column_stack(columns)
    fitted: Floats = design @ np.linalg.lstsq(design, y, rcond=None)[0]
    return fitted


def _places(setting: Setting, axis: Axis) -> Floats:
    """Where the points of the axis lie in the setting's own measure."""
    if not setting.distinct:
        return axis.points
    return np.array(setting.distinct)
