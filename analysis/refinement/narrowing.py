"""Narrowing: which part of a setting's range or values to leave out next time, for having been tried and beaten.

A range is cut to where the best quarter of the trials lies and a margin, on a side only if at least three trials lie
in what is cut there and stood worse. A choice loses a value only if that was clearly beaten by the best one, pair by
pair. Who looks for the best place and tests it on the same trials is too sure: hence the margin, the floor of a third
of a decade or a fifth of the range, and that the best trials themselves are never cut out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from analysis import fidelity
from analysis.effects import ALARM, EDGE, holm
from analysis.results import Results
from analysis.settings import Floats, Mask, Setting

MARGIN = 0.25  # of the good region's width, on each side
LEAST_LOG = math.log10(3)  # decades: a rate is not known better than that from few trials
LEAST = 0.2  # of the range
QUARTER = 0.25
FEWEST_CUT = 3  # trials in what is cut off on a side
FEWEST_VALUE = 5  # trials of a value before it is left out
FEWEST_PART = 8  # trials with one value of an interacting setting: fewer have no best quarter of their own
BEHIND = 2 / 3  # of all pairs that what is left out lost


class Beaten(NamedTuple):
    """How a group of trials fared against another: its size, in how many of all pairs it was behind, and p."""

    trials: int
    behind: float
    p: float


class Cut(NamedTuple):
    """The new ends of a range, where most of the best lie, both in the setting's own measure; how the rest fared."""

    low: float
    high: float
    good: tuple[float, float]
    gone: Beaten


def beaten(results: Results, score: Floats, winners: Mask, losers: Mask) -> Beaten:
    """One-sided test of Mann and Whitney (1947) on standings; how often by pairs at their last common epoch."""
    from scipy.stats import mannwhitneyu

    if not winners.any() or not losers.any():
        return Beaten(int(losers.sum()), math.nan, 1.0)
    p = float(mannwhitneyu(score[winners], score[losers], alternative="greater").pvalue)
    return Beaten(int(losers.sum()), fidelity.superiority(results, winners, losers), p)


def good_region(setting: Setting, score: Floats, inside: Mask, parts: Sequence[Mask]) -> tuple[float, float] | None:
    """Between the 10% and 90% quantile of the best quarter's values, in the setting's own measure.

    With `parts`, the trials of each value of a setting that this one interacts with, it is what is good in any of them:
    what is left out is bad everywhere. None where a part has too few trials to tell.
    """
    ends = []
    for part in parts or (inside,):
        mask = part & inside
        if parts and mask.sum() < FEWEST_PART:
            return None
        quarter = np.sort(score[mask])[::-1][math.ceil(QUARTER * mask.sum()) - 1]
        ends.append(np.quantile(setting.x[mask & (score >= quarter)], [0.1, 0.9], method="nearest"))
    return float(min(low for low, _ in ends)), float(max(high for _, high in ends))


def cut_range(
    results: Results, setting: Setting, score: Floats, inside: Mask, ends: tuple[float, float], keep: Iterable[float],
    parts: Sequence[Mask] = (),
) -> Cut | None:  # fmt: skip
    """The new ends in the setting's own measure, within the old ones, and how what is left out fared.

    keep: values that must stay in. None where there is nothing to cut.
    """
    good = good_region(setting, score, inside, parts)
    if good is None:
        return None
    width = good[1] - good[0]
    low, high = good[0] - MARGIN * width, good[1] + MARGIN * width
    keep = [*keep, *good]
    low, high = min(low, *keep), max(high, *keep)
    whole = setting.parameter.kind == "int"
    lack = (LEAST_LOG if setting.log else LEAST * (ends[1] - ends[0])) - (high - low)
    if lack > 0 and not whole:
        low, high = low - lack / 2, high + lack / 2
    if whole:
        low, high = _whole(low, high, setting.log, ends)
    low, high = max(low, ends[0]), min(high, ends[1])
    slack = 1e-9 * max(abs(end) for end in ends)  # 10**log10(v) is not always v
    sides = (inside & (setting.x < low - slack), inside & (setting.x > high + slack))
    kept = inside & ~sides[0] & ~sides[1]
    cut = [side.sum() >= FEWEST_CUT and _worse(beaten(results, score, kept, side)) for side in sides]
    low, high = low if cut[0] else ends[0], high if cut[1] else ends[1]
    if not any(cut) or high - low > 0.9 * (ends[1] - ends[0]):
        return None
    gone = np.any([side for side, bad in zip(sides, cut, strict=True) if bad], axis=0)
    return Cut(low, high, good, beaten(results, score, inside & ~gone, gone))


def leans(setting: Setting, score: Floats, inside: Mask) -> bool:
    """Whether the best quarter of the setting's own trials lies more often at an end of its range than chance has it.

    What is asked of an option before it goes: how the whole run did says nothing of where within it the better lay.
    """
    from scipy.stats import hypergeom

    count = int(inside.sum())
    if not setting.ordered or setting.high <= setting.low or count < FEWEST_PART:
        return False
    best = inside & (score >= np.sort(score[inside])[::-1][math.ceil(QUARTER * count) - 1])
    reach = 0.0 if setting.distinct else EDGE * (setting.high - setting.low)
    for near in (setting.x <= setting.low + reach, setting.x >= setting.high - reach):
        mine = int((near & best).sum())
        if mine > 1 and hypergeom.sf(mine - 1, count, int((near & inside).sum()), int(best.sum())) <= 0.05:
            return True
    return False


def _worse(seen: Beaten) -> bool:
    return seen.p <= 0.05 and seen.behind >= BEHIND


def _whole(low: float, high: float, log: bool, ends: tuple[float, float]) -> tuple[float, float]:
    """Whole numbers within; two at least, for a range has two ends."""
    first, last = (10**low, 10**high) if log else (low, high)
    first, last = math.ceil(first - 1e-9), math.floor(last + 1e-9)
    if first >= last:
        first, last = first - 1, last + 1
    if log:
        return math.log10(max(first, 1)), math.log10(last)
    return max(first, ends[0]), min(last, ends[1])


def lost_values(results: Results, setting: Setting, score: Floats, keep: Iterable[float]) -> dict[float, Beaten]:
    """Place of a value (`Setting.distinct`) -> how it fared, for those that the best one clearly beat (Holm's p).

    keep: places that stay whatever is known. Of an ordered setting only the ends go: what lies between two good values
    stays.
    """
    inside = setting.used() & np.isfinite(score)
    masks = {at: inside & (setting.x == at) for at in setting.distinct}
    best = max((at for at in masks if masks[at].any()), key=lambda at: float(np.median(score[masks[at]])))
    others = [at for at in masks if at != best and at not in set(keep) and masks[at].sum() >= FEWEST_VALUE]
    seen = [beaten(results, score, masks[best], masks[at]) for at in others]
    sure = holm([one.p for one in seen])
    gone = {
        at: one._replace(p=p)
        for at, one, p in zip(others, seen, sure, strict=True)
        if p <= ALARM and one.behind >= BEHIND
    }
    if not setting.ordered:
        return gone
    stay = [at for at in masks if at not in gone]
    return {at: one for at, one in gone.items() if at < min(stay) or at > max(stay)}
