"""Trials compared honestly: at matched epochs. One that was stopped early is never judged as if it had finished."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.results import Results
from analysis.style import metric_values

LOST = frozenset({"diverged", "failed"})


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
    without a single value is left out. Equal trials stay in order of start.
    """
    table = curves(results)
    sign = 1.0 if results.mode == "max" else -1.0
    value = (sign * table).ffill(axis=1).fillna(-np.inf).to_numpy(dtype=float)
    state = results.trials["state"].to_numpy()
    count, epochs = value.shape
    best = value.max(axis=1) if epochs else np.full(count, -np.inf)
    lost, finished = np.isin(state, list(LOST)), state == "finished"
    # A first epoch without a value shifts nothing: a trial's last epoch is where its row ends.
    ends = epochs - 1 - np.argmax(table.notna().to_numpy()[:, ::-1], axis=1) if epochs else np.zeros(count, dtype=int)
    last = np.where(finished, epochs - 1, ends)
    judged = np.where(finished, best, value[np.arange(count), last] if epochs else best)
    candidates = [i for i in range(count) if best[i] > -np.inf and not lost[i]]
    candidates.sort(key=lambda i: (-last[i], -judged[i]))
    placed = np.empty(len(candidates), dtype=int)
    for n, i in enumerate(candidates):
        before = placed[:n]
        theirs = best[before] if finished[i] else value[before, last[i]]
        ahead = theirs >= judged[i]
        at = int(np.flatnonzero(ahead)[-1]) + 1 if ahead.any() else 0
        placed[at + 1 : n + 1] = placed[at:n]
        placed[at] = i
    behind = [i for i in range(count) if lost[i] and (best[i] > -np.inf or state[i] == "diverged")]
    ranked = [str(results.trials.index[i]) for i in [*placed, *behind]]
    first = results.best()
    return ranked if first not in ranked else [first, *(t for t in ranked if t != first)]


def rank(results: Results) -> pd.Series[float]:
    """`order` as a score a trial, 1 for the best, 0 for the worst; NaN for those left out.

    Diverged and failed trials share the mean score of their places: among them nothing is known.
    """
    ranked = order(results)
    scores = pd.Series(np.nan, index=results.trials.index, dtype=float)
    if not ranked:
        return scores
    place = pd.Series(np.arange(len(ranked), 0, -1, dtype=float), index=ranked)
    lost = results.trials.loc[ranked, "state"].isin(LOST) & (place < len(ranked))
    place[lost] = place[lost].mean()
    scores[ranked] = (place - 1) / (len(ranked) - 1) if len(ranked) > 1 else 1.0
    return scores


def spread(ranked: list[str], most: int) -> list[str]:
    """At most `most` trials, evenly over the ranks with the first and the last: what a browser can draw at once."""
    if len(ranked) <= most:
        return ranked
    return [ranked[round(i)] for i in np.linspace(0, len(ranked) - 1, most)]
