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


def at_epoch(results: Results, epoch: int) -> pd.Series[float]:
    """Each trial's value at `epoch`; NaN for a trial that did not get there: it cannot be compared."""
    table = curves(results)
    return table[epoch] if epoch in table.columns else pd.Series(np.nan, index=table.index, dtype=float)


def order(results: Results) -> list[str]:
    """Trials from best to worst as successive halving (Li et al., 2020) sees them; those that tell nothing left out.

    A trial that ended early at epoch e is compared at e, by the value there: that is what it was stopped for. A
    finished one is compared with the finished ones by its best epoch, whatever their lengths. "The better one at the
    last epoch that both reached" is not transitive (A stopped at 1 above B; B beat C at 3; C was above A at 1), so the
    order is built: trials enter from the longest trained to the shortest, at equal length from the best to the worst,
    and each takes its place directly behind the last of those before it that was at or above it at its own last epoch:
    that one went on at least as far, and is ahead for certain. Thus a stopped trial is behind every trial that went on
    past its end at or above it, and none is punished for comparisons that were never made.

    Two exceptions. First stands the best value seen (`Results.best`), whatever became of its trial: nobody leads by
    promise, and its weights are there. Last stand diverged and failed trials, whatever they had reached; a failed one
    without a single value is left out. Equal trials stay in order of start. Repeats have no place.
    """
    race = _race(results)
    value, best, finished, last = race.value, race.best, race.finished, race.last
    state = results.trials["state"].to_numpy()
    count = len(value)
    lost = np.isin(state, list(LOST))
    judged = np.where(finished, best, value[np.arange(count), last])
    candidates = [i for i in range(count) if best[i] > -np.inf and not lost[i] and race.searched[i]]
    candidates.sort(key=lambda i: (-last[i], -judged[i]))
    placed = np.empty(len(candidates), dtype=int)
    for n, i in enumerate(candidates):
        before = placed[:n]
        theirs = best[before] if finished[i] else value[before, last[i]]
        ahead = theirs >= judged[i]
        at = int(np.flatnonzero(ahead)[-1]) + 1 if ahead.any() else 0
        placed[at + 1 : n + 1] = placed[at:n]
        placed[at] = i
    told = (best > -np.inf) | (state == "diverged")
    behind = [i for i in range(count) if lost[i] and told[i] and race.searched[i]]
    ranked = [str(results.trials.index[i]) for i in [*placed, *behind]]
    first = results.best()
    return ranked if first not in ranked else [first, *(t for t in ranked if t != first)]


def standing(results: Results) -> pd.Series[float]:
    """How good each trial looked beside all others, 0..1: the share of its comparisons at matched epochs that it won.

    Each pair is compared by the best value so far at the last epoch that both reached, two finished trials by their
    best epochs; equal values are half a win. A diverged trial loses to all that did not; one that failed or ran out of
    memory counts with what it had, for that tells of the machine. NaN for trials without a value, and for repeats.

    Unlike places in `order`, where one noisy crossing puts a stopped trial behind everything that went on past it, this
    favours nobody for having been trained longer: where trials of one kind are stopped later for no merit of their
    own, in another bracket say, the kind does not stand higher. Statistics of settings go by this.
    """
    race = _race(results)
    value = np.maximum.accumulate(race.value, axis=1)
    diverged = (results.trials["state"] == "diverged").to_numpy()
    value[diverged] = -np.inf
    known = np.flatnonzero(race.searched & (diverged | (race.best > -np.inf)))
    share = pd.Series(np.nan, index=results.trials.index, dtype=float)
    if len(known) == 1:
        share.iloc[known] = 1.0
    for i in map(int, known if len(known) > 1 else ()):
        at = np.minimum(race.last[i], race.last[known])
        mine, theirs = value[i, at], value[known, at]
        wins = (mine > theirs).sum() + ((mine == theirs).sum() - 1) / 2
        share.iloc[i] = wins / (len(known) - 1)
    return share


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
