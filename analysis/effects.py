"""Effects: what a searched setting did to how its trials stood, and whether chance would do as much.

The score of a trial is `fidelity.standing`. Were settings without effect, scores could be dealt out anew among the
trials, with all their stops and failures: permutation tests ask how often that gives as much as was seen. They hold at
any number of trials, whatever the sampler and the scheduler did.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from analysis import fidelity
from analysis.importance import FEWEST, TOP
from analysis.results import Results
from analysis.settings import Floats, Mask, Setting, settings
from analysis.style import metric_values

ALARM = 0.01  # chance that a family of tests finds anything where nothing is
SHUFFLES = 19_999
MOST = 3e6  # scores dealt out in all: 9,999 shuffles of 300 trials; beyond that formulas are as good
RESAMPLES = 200
EDGE = 0.1  # of a setting's range: what lies within it is at the bound


class Group(NamedTuple):
    """Trials of one value of a setting, or of neighbouring values.

    low, high: the ends of their values as searched (equal for one value, NaN for a category); value: the one value of a
    group that has one, as it was searched, else None; trials: how many there are; finished: of them, trained to the
    end; standing: their median; best: the best value of the metric that one of them ever had; matched: their median at
    the epoch that nearly all trials got to. None where no trial has such a value.
    """

    label: str
    low: float
    high: float
    value: Any
    trials: int
    finished: int
    standing: float
    best: float | None
    matched: float | None


class Effect(NamedTuple):
    """One setting in the trials that used it.

    p: how often shuffled scores are as far from even as these; adjusted: for all tests of settings of the run (Holm,
    1979). share: of the differences in standing what lies between the groups, without what chance puts there
    (bias-corrected eta squared, Kelley, 1935); low, high: 90% interval. gap: the chance that a trial of the best group
    is ahead of one of the worst; early: the epoch at which the median of these pairs is compared, where that is before
    half of the full training. good: for ordered settings the middle of the values of the best quarter of the trials,
    from their 10% to their 90% quantile. bound: the end of the range at which the best quarter piles up; bound_p: its
    test, adjusted for those of all settings that matter, which alone are tested. lost_p: whether trials diverged or ran
    out of memory more at some values than at others, adjusted. NaN: not tested, for lack of trials that could tell.
    """

    name: str
    column: str
    label: str
    ordered: bool
    log: bool
    trials: int
    test: str
    p: float
    adjusted: float
    share: float
    low: float
    high: float
    gap: float
    early: int | None
    groups: tuple[Group, ...]
    good: tuple[float, float] | None
    bound: str | None
    bound_p: float
    lost_p: float

    @property
    def best(self) -> Group:
        """The group whose trials stood best."""
        return max(self.groups, key=lambda g: g.standing)

    @property
    def worst(self) -> Group:
        """The group whose trials stood worst."""
        return min(self.groups, key=lambda g: g.standing)


class _Tested(NamedTuple):
    setting: Setting
    cut: tuple[Mask, ...]
    test: str
    p: float
    bound: str | None
    bound_p: float
    lost_p: float


def effects(results: Results) -> tuple[Effect, ...]:
    """One a setting that varied, the surest first and of those the largest; empty below ten trials with a score."""
    score = fidelity.standing(results).to_numpy(dtype=float)
    told = np.isfinite(score)
    if told.sum() < FEWEST:
        return ()
    lost = results.trials["state"].isin(("diverged", "out_of_memory")).to_numpy() & told
    quarter = np.sort(score[told])[::-1][math.ceil(TOP * told.sum()) - 1]
    top = told & (score >= quarter)
    tested = []
    for setting in settings(results, told):
        inside = setting.used() & told
        if inside.sum() < FEWEST:
            continue
        cut = groups(setting, inside)
        p, test = independence(score, setting, cut, inside)
        bound, bound_p = _bound(setting, inside, top)
        lost_p = independence(lost.astype(float), setting, cut, inside)[0] if 2 < lost.sum() < told.sum() else math.nan
        tested.append(_Tested(setting, cut, test, p, bound, bound_p, lost_p))
    adjusted = _adjust({(one.setting.name, what): getattr(one, what) for one in tested for what in ("p", "lost_p")})
    # Where the best values of a setting lie is asked only where it matters: fewer looks, so that more can be found.
    clear = [one for one in tested if adjusted[one.setting.name, "p"] <= ALARM]
    bounds = _adjust({(one.setting.name, "bound_p"): one.bound_p for one in clear})
    adjusted |= {(one.setting.name, "bound_p"): math.nan for one in tested} | bounds
    matched = fidelity.matched(results)
    values = {
        "best": metric_values(results, results.trials).to_numpy(dtype=float),
        "matched": np.full(len(score), np.nan) if matched is None else matched.values.to_numpy(dtype=float),
    }
    made = [_effect(results, one, score, values, top, adjusted) for one in tested]
    return tuple(sorted(made, key=lambda one: (one.adjusted > 0.01, -one.share, one.p)))


def groups(setting: Setting, inside: Mask) -> tuple[Mask, ...]:
    """The trials of a setting in groups: one a value where there are few, else two to six of about equal size."""
    at = setting.x
    if setting.distinct:
        return tuple(mask for mask in (inside & (at == value) for value in setting.distinct) if mask.any())
    count = int(inside.sum())
    parts = 2 if count < 12 else 3 if count < 24 else 4 if count < 60 else 6
    edges = np.unique(np.quantile(at[inside], np.linspace(0, 1, parts + 1)))
    bins = np.clip(np.searchsorted(edges, at, side="right") - 1, 0, len(edges) - 2)
    return tuple(mask for mask in (inside & (bins == n) for n in range(len(edges) - 1)) if mask.any())


def independence(score: Floats, setting: Setting, cut: Sequence[Mask], inside: Mask) -> tuple[float, str]:
    """p that scores and a setting's values have nothing to do with each other, and the name of the test.

    Of ordered settings both the trend (Spearman) and the groups (Kruskal and Wallis) are looked at, and the better of
    the two is compared with the better of the two in each shuffle; of others the groups alone. Above 300 trials by
    formula, the better of two counting twice.
    """
    from scipy.special import chdtrc
    from scipy.stats import rankdata

    count = int(inside.sum())
    ranks = rankdata(score[inside])
    ranks = (ranks - ranks.mean()) / (ranks.std() or 1.0)
    member = np.stack([mask[inside] for mask in cut], axis=1).astype(np.float32)
    scaled = member / np.sqrt(member.sum(axis=0))
    place = rankdata(setting.x[inside])
    trend = (place - place.mean()) / (place.std() or 1.0) if setting.ordered else None
    name = "Spearman and Kruskal-Wallis" if setting.ordered else "Kruskal-Wallis"

    def surest(drawn: Floats) -> Floats:
        """The smaller p of the two, by formula: one number a shuffle."""
        between = ((drawn @ scaled) ** 2).sum(axis=1) * (count - 1) / count
        p: Floats = chdtrc(max(member.shape[1] - 1, 1), between)
        if trend is not None:
            p = np.minimum(p, chdtrc(1, (drawn @ trend.astype(np.float32)) ** 2 * (count - 1) / count**2))
        return p

    seen = float(surest(ranks[None].astype(np.float32))[0])
    shuffles = min(SHUFFLES, int(MOST / count))
    if member.shape[1] == count and trend is None:
        return 1.0, f"{name}: no value was met twice"
    if shuffles < 9_999:
        return min(1.0, seen * (1 if trend is None else 2)), f"{name}, by formula"
    rng, as_far = np.random.default_rng(count), 0
    left = shuffles
    while left:
        rows = min(left, 2_000)
        drawn = rng.permuted(np.tile(ranks.astype(np.float32), (rows, 1)), axis=1)
        as_far += int((surest(drawn) <= seen * (1 + 1e-5)).sum())
        left -= rows
    return (1 + as_far) / (1 + shuffles), f"{name}, {shuffles:,} permutations"


def _adjust(ps: Mapping[tuple[str, str], float]) -> dict[tuple[str, str], float]:
    """Holm's correction over those that were tested; NaN stays."""
    done = {key: p for key, p in ps.items() if not math.isnan(p)}
    return dict.fromkeys(ps, math.nan) | dict(zip(done, holm(list(done.values())), strict=True))


def holm(ps: Sequence[float]) -> list[float]:
    """Each p as if it were the only one, the chance of a single false alarm among all staying what it was (1979)."""
    order = np.argsort(ps, kind="stable")
    made, running = [1.0] * len(ps), 0.0
    for place, n in enumerate(order):
        running = max(running, min(1.0, (len(ps) - place) * ps[n]))
        made[n] = running
    return made


def _bound(setting: Setting, inside: Mask, top: Mask) -> tuple[str | None, float]:
    """The end of the range where the best quarter lies more often than the rest, with p (hypergeometric, both ends)."""
    from scipy.stats import hypergeom

    if not setting.ordered or setting.high <= setting.low:
        return None, math.nan
    reach = 0.0 if setting.distinct else EDGE * (setting.high - setting.low)
    found: list[tuple[float, str]] = []
    for name, near in (("low", setting.x <= setting.low + reach), ("high", setting.x >= setting.high - reach)):
        there = int((near & inside).sum())
        mine = int((near & inside & top).sum())
        if mine >= 3:
            p = float(hypergeom.sf(mine - 1, int(inside.sum()), there, int((inside & top).sum())))
            found.append((min(1.0, 2 * p), name))
    if not found:
        return None, math.nan
    p, name = min(found)
    return name, p


def _effect(
    results: Results, one: _Tested, score: Floats, values: Mapping[str, Floats], top: Mask,
    adjusted: Mapping[tuple[str, str], float],
) -> Effect:  # fmt: skip
    setting, name = one.setting, one.setting.name
    inside = setting.used() & np.isfinite(score)
    cut = tuple(sorted(one.cut, key=lambda mask: np.median(setting.x[mask])))
    made = tuple(_group(results, setting, mask, score, values) for mask in cut)
    share, low, high = _share(score[inside], np.stack([mask[inside] for mask in cut]))
    standings = [group.standing for group in made]
    sides = cut[int(np.argmax(standings))], cut[int(np.argmin(standings))]
    ahead, at = fidelity.superiority(results, *sides), fidelity.compared_at(results, *sides)
    full = results.trials["full_epochs"].max()
    early = at if at is not None and at < full / 2 else None
    good = None
    if setting.ordered and (chosen := inside & top).any():
        ends = np.quantile(setting.x[chosen], [0.1, 0.9], method="nearest")
        good = (_value(setting, ends[0]), _value(setting, ends[1]))
    return Effect(
        name, setting.parameter.column, setting.label, setting.ordered, setting.log, int(inside.sum()), one.test, one.p,
        adjusted[name, "p"], share, low, high, ahead, early, made, good, one.bound, adjusted[name, "bound_p"],
        adjusted[name, "lost_p"],
    )  # fmt: skip


def _group(results: Results, setting: Setting, mask: Mask, score: Floats, values: Mapping[str, Floats]) -> Group:
    at = setting.x[mask]
    low, high = (_value(setting, at.min()), _value(setting, at.max())) if setting.ordered else (math.nan, math.nan)
    text = (
        setting.text(at.min())
        if not setting.ordered or low == high
        else f"{setting.text(at.min())} to {setting.text(at.max())}"
    )
    value = None
    if not setting.ordered or low == high:
        value = results.trials[setting.parameter.column].tolist()[int(np.flatnonzero(mask)[0])]
    best = values["best"][mask & results.eligible().to_numpy()]
    best, matched = best[np.isfinite(best)], values["matched"][mask]
    matched = matched[np.isfinite(matched)]
    pick = np.max if results.mode == "max" else np.min
    whole = (results.trials["state"] == "finished").to_numpy()
    return Group(
        text, low, high, value, int(mask.sum()), int((mask & whole).sum()), float(np.median(score[mask])),
        float(pick(best)) if len(best) else None, float(np.median(matched)) if len(matched) else None,
    )  # fmt: skip


def _value(setting: Setting, at: float) -> float:
    return float(10**at) if setting.log else float(at)


def _share(score: Floats, member: Any) -> tuple[float, float, float]:
    """Bias-corrected eta squared of the groups, with a 90% bootstrap interval moved by its own bias."""
    count, parts = len(score), len(member)

    def share(weights: Floats) -> Floats:
        """Of each resample, rows x trials of counts."""
        sizes = weights @ member.T
        sums = weights @ (member * score).T
        mean = (weights @ score / count)[:, None]
        between = np.where(sizes > 0, (sums / np.maximum(sizes, 1) - mean) ** 2 * sizes, 0).sum(axis=1)
        total = np.maximum(weights @ score**2 - count * mean[:, 0] ** 2, 1e-12)
        present = (sizes > 0).sum(axis=1)
        inner: Floats = 1 - (1 - between / total) * (count - 1) / np.maximum(count - present, 1)
        return inner

    if parts >= count:
        return 0.0, 0.0, 1.0
    seen = float(share(np.ones((1, count)))[0])
    rng = np.random.default_rng(0)
    drawn = share(rng.multinomial(count, np.full(count, 1 / count), RESAMPLES).astype(float))
    low, high = np.quantile(drawn, [0.05, 0.95]) - (drawn.mean() - seen)
    return max(0.0, seen), float(np.clip(low, 0, 1)), float(np.clip(high, 0, 1))
