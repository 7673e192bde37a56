"""Trials compared honestly: at matched epochs. One that was stopped early is never judged as if it had finished."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.results import Results
from analysis.style import metric_values

LOST = frozenset({"diverged", "failed", "out_of_memory"})


def curves(results: Results) -> pd.DataFrame:
    """The metric by epoch: one row a trial (all of them), one column an epoch.

    An epoch without a value keeps the one before; after a trial's last epoch there is NaN.
    """
    frame = results.epochs.assign(value=metric_values(results, results.epochs)).drop_duplicates(
        ["trial", "epoch"], keep="last"
    )
    table = frame.set_index(["trial", "epoch"])["value"].unstack()  # noqa: PD010 (pivot_table drops empty epochs)
    table = table.reindex(results.trials.index).astype(float)
    last = frame.groupby("trial")["epoch"].max().reindex(results.trials.index).to_numpy(dtype=float)
    reached = table.columns.to_numpy(dtype=float)[None, :] <= last[:, None]
    return table.ffill(axis=1).where(reached)


def order(results: Results) -> list[str]:
    """Trials from best to worst by what they have to show: the best value that each reached, at whatever epoch.

    A trial that was stopped early has the place of what it had reached by then, a value of which its weights are proof;
    what it might have become moves nobody (for that see `standing`). Trials that break a constraint come after those
    that may be best, then diverged and failed ones, but for the best of all; a failed one without a single value is
    left out. Equal trials stay in order of start. Repeats have no place.
    """
    race = _race(results)
    state = results.trials["state"].to_numpy()
    lost = np.isin(state, list(LOST))
    told = race.searched & ((race.best > -np.inf) | (state == "diverged"))
    behind = np.where(lost, 2, np.where(results.trials["breaks"].notna(), 1, 0))
    names = results.trials.index.tolist()
    places = np.lexsort((np.arange(len(names)), -race.best, behind))
    ranked = [str(names[i]) for i in places if told[i]]
    first = results.best()
    return ranked if first not in ranked else [first, *(t for t in ranked if t != first)]


def standing(results: Results) -> pd.Series[float]:
    """How good each trial looked beside all others, 0..1: the share of its comparisons at matched epochs that it won.

    Each pair is compared by the best value so far at the last epoch that both reached, two finished trials by their
    best epochs; equal values are half a win. A diverged trial loses to all that did not; one that failed or ran out of
    memory counts with what it had, for that tells of the machine. NaN for trials without a value, and for repeats.

    Unlike places in `order`, this favours nobody for having been trained longer: where trials of one kind are stopped
    later for no merit of their own, in another bracket say, the kind does not stand higher. Statistics of settings go
    by this.
    """
    race, known = _judged(results)
    share = np.full(len(results.trials), np.nan)
    share[known] = 1.0
    last = race.last[known]
    wins = np.zeros(len(known))
    for epoch in np.unique(last):  # pairs whose last common epoch this is: those that ended here with all that got here
        here, beyond = np.flatnonzero(last == epoch), np.flatnonzero(last > epoch)
        mine, theirs = race.value[known[here], epoch], race.value[known[beyond], epoch]
        wins[here] += _wins(mine, np.concatenate([mine, theirs])) - 0.5
        wins[beyond] += _wins(theirs, mine)
    if len(known) > 1:
        share[known] = wins / (len(known) - 1)
    return pd.Series(share, index=results.trials.index)


def superiority(results: Results, one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """How often a trial of one group is ahead of one of the other, each pair at its last common epoch; ties are half.

    Masks over `results.trials`. This is the probability of superiority (Mann and Whitney, 1947), on pairs that can be
    compared (Gehan, 1965): 0.5 is no difference. NaN where a group has no trial with a value.
    """
    race, known = _judged(results)
    groups = [known[mask[known]] for mask in (one, other)]
    if not all(map(len, groups)):
        return float("nan")
    won = 0.0
    for trial in groups[0]:
        at = np.minimum(race.last[trial], race.last[groups[1]])
        mine, theirs = race.value[trial, at], race.value[groups[1], at]
        won += (mine > theirs).sum() + (mine == theirs).sum() / 2
    return float(won / (len(groups[0]) * len(groups[1])))


def compared_at(results: Results, one: NDArray[np.bool_], other: NDArray[np.bool_]) -> int | None:
    """The epoch at which half of the pairs of `superiority` are compared, or earlier; None without pairs."""
    race, known = _judged(results)
    lasts = [race.last[known[mask[known]]] for mask in (one, other)]
    if not all(map(len, lasts)):
        return None
    epochs = curves(results).columns
    return int(epochs[int(np.median(np.minimum.outer(*lasts)))]) if len(epochs) else None


class Matched(NamedTuple):
    """The last epoch that nearly all trials got to, and each trial's best value by then; NaN where it has none."""

    epoch: int
    values: pd.Series[float]


def matched(results: Results, share: float = 0.8) -> Matched | None:
    """The last epoch that at least this share of the trials reached; None where no trial has a value.

    A finished trial counts as having got to all epochs, a diverged one too, without a value from then on.
    """
    race, known = _judged(results)
    table = curves(results)
    if not len(known) or table.columns.empty:
        return None
    reached = np.where(results.trials["state"].to_numpy()[known] == "diverged", len(table.columns), race.last[known])
    column = int(np.sort(reached)[::-1][int(np.ceil(share * len(known))) - 1])
    column = min(column, len(table.columns) - 1)
    sign = 1.0 if results.mode == "max" else -1.0
    values = np.full(len(table), np.nan)
    there = known[reached >= column]
    values[there] = sign * race.value[there, column]
    values[np.isinf(values)] = np.nan
    return Matched(int(table.columns[column]), pd.Series(values, index=table.index))


def _wins(mine: NDArray[np.float64], theirs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of each of mine, how many of theirs it is above; equal ones are half."""
    ordered = np.sort(theirs)
    return (np.searchsorted(ordered, mine, "left") + np.searchsorted(ordered, mine, "right")) / 2


def _judged(results: Results) -> tuple[_Race, NDArray[np.intp]]:
    """The race by best values so far, and the places of the trials that can be compared."""
    race = _race(results)
    diverged = (results.trials["state"] == "diverged").to_numpy()
    value = np.maximum.accumulate(race.value, axis=1)
    value[diverged] = -np.inf
    return race._replace(value=value), np.flatnonzero(race.searched & (diverged | (race.best > -np.inf)))


class _Race(NamedTuple):
    """value: one row a trial, one column an epoch, larger is better, flat after a trial's end, -inf before its first.

    best: of each row. last: column of the epoch at which each trial is judged: a finished one at the last of all.
    """

    value: NDArray[np.float64]
    best: NDArray[np.float64]
    last: NDArray[np.intp]
    finished: NDArray[np.bool_]
    searched: NDArray[np.bool_]


def _race(results: Results) -> _Race:
    table = curves(results)
    sign = 1.0 if results.mode == "max" else -1.0
    value = (sign * table).ffill(axis=1).fillna(-np.inf).to_numpy(dtype=float)
    count, epochs = value.shape
    if not epochs:
        value = np.full((count, 1), -np.inf)
    finished = (results.trials["state"] == "finished").to_numpy()
    # A first epoch without a value shifts nothing: a trial's last epoch is where its row ends.
    ends = epochs - 1 - np.argmax(table.notna().to_numpy()[:, ::-1], axis=1) if epochs else np.zeros(count, dtype=int)
    return _Race(
        value=value,
        best=value.max(axis=1),
        last=np.where(finished, max(epochs, 1) - 1, ends),
        finished=finished,
        searched=results.trials["repeat_of"].isna().to_numpy(),
    )


def spread(ranked: list[str], most: int) -> list[str]:
    """At most `most` trials, evenly over the ranks with the first and the last: what a browser can draw at once."""
    if len(ranked) <= most:
        return ranked
    return [ranked[round(i)] for i in np.linspace(0, len(ranked) - 1, most)]
