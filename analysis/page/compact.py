"""Columns and curves as small JSON: few digits, texts by number, curves thinned where there are too many."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from analysis import style
from analysis.folders.goal import Objective
from analysis.results import Results

METRIC_POINTS = 200_000  # of the metric's curves in all: 10,000 trials x 20 epochs stay whole, about 1.2 MB
ALL_POINTS = 250_000  # with training accuracy and losses, which only the best trials keep where there are more
CLASS_VALUES = 40_000  # accuracies of single classes: 10 classes of 4,000 trials, 160 kB
LOSSES = ("val_loss", "train_loss")
TEXT = 200  # characters of a reason or a category


def short(values: ArrayLike, digits: int = 4) -> list[Any]:
    """Numbers with at most `digits` significant digits; whole ones exactly, as int; not finite ones as None."""
    given = np.asarray(values, dtype=np.float64)
    with np.errstate(all="ignore"):
        exponent = np.floor(np.log10(np.abs(given)))
        shift = np.clip(np.nan_to_num(digits - 1 - exponent, posinf=0, neginf=0), -300, 300)
        scale = 10.0 ** np.abs(shift)
        rounded = np.where(shift > 0, np.round(given * scale) / scale, np.round(given / scale) * scale)
    rounded = np.where((given == np.trunc(given)) | ~np.isfinite(rounded), given, rounded)
    whole = (rounded == np.trunc(rounded)) & (np.abs(rounded) < 2**53)
    kinds = np.isfinite(given).astype(int) + whole
    return [int(v) if kind == 2 else v if kind else None for v, kind in zip(rounded.tolist(), kinds, strict=True)]


def coded(values: Sequence[Any], known: Sequence[str] = ()) -> dict[str, list[Any]]:
    """Texts as {"texts": each once, "at": the index of each value, -1 where missing}; `known` ones come first.

    Where all are missing, "at" is empty.
    """
    texts = {text: n for n, text in enumerate(dict.fromkeys(known))}
    at = [-1 if pd.isna(v) or v == "" else texts.setdefault(str(v), len(texts)) for v in values]
    return {"texts": [clip(text) for text in texts], "at": at if texts else []}


def clip(text: str) -> str:
    """Cut where it is longer than a cell should be."""
    return text if len(text) <= TEXT else text[: TEXT - 1] + "…"


def curves(results: Results, trials: pd.Index[str]) -> dict[str, Any]:
    """Learning curves of `trials`, in their order, at most about `ALL_POINTS` values.

    series: the metric, its twin on the training images, then both losses; each with `chart` (0 the metric's, 1 that of
    losses) and a list of values a trial, or None where it has none; in the unit shown. All but the metric end with
    trial number `full`. epochs: the epoch of each value, None where they are 1, 2, 3 and so on. stride: where it is
    above 1, each trial keeps only its first epoch, every stride-th after it, the best and the last.
    """
    rows, trial, epoch = _rows(results, trials)
    count = np.bincount(trial, minlength=len(trials))
    keep, stride = _thin(trial, epoch, count, results.trials["best_epoch"].reindex(trials).to_numpy(dtype=float))
    rows, trial, epoch = rows[keep], trial[keep], epoch[keep]
    ends = np.cumsum(np.bincount(trial, minlength=len(trials)))
    names = _series(results)
    spare = max(0, ALL_POINTS - len(rows)) // max(1, len(names) - 1)
    full = int(np.searchsorted(ends, spare, side="right"))
    series = []
    for n, name in enumerate(names):
        metric = style.metric(results, Objective(name, "max"))
        some = len(trials) if n == 0 else full
        last = int(ends[some - 1]) if some else 0
        values = short(results.epochs[name].to_numpy(dtype=float)[rows[:last]] * metric.factor)
        lists = [part if any(v is not None for v in part) else None for part in _split(values, ends[:some])]
        chart = int(n > 0 and name in LOSSES and results.metric not in LOSSES)
        series.append({"label": metric.label, "percent": metric.factor == 100, "chart": chart, "values": lists})
    listed = [None if part == list(range(1, len(part) + 1)) else part for part in _split(epoch.tolist(), ends)]
    return {"stride": stride, "full": full, "epochs": listed, "series": series}


def _series(results: Results) -> list[str]:
    """The metric, the same on training images, then both losses; those that the rows have."""
    metric = results.metric or ""
    twin = re.sub(r"\bval(idation)?_", "train_", metric)
    return [name for name in dict.fromkeys((metric, twin, *LOSSES)) if _is_number(results.epochs, name)]


def _is_number(frame: pd.DataFrame, name: str) -> bool:
    return name in frame and frame[name].dtype.kind in "fiu"


def _rows(results: Results, trials: pd.Index[str]) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.int64]]:
    """Row numbers of `results.epochs` by trial and epoch, the trial's place in `trials`, and the epoch, each once."""
    place = trials.get_indexer(pd.Index(results.epochs["trial"]))
    epoch = results.epochs["epoch"].to_numpy(dtype=np.int64)
    rows = np.lexsort((epoch, place))
    rows = rows[place[rows] >= 0]
    same = (np.diff(place[rows], append=-1) == 0) & (np.diff(epoch[rows], append=-1) == 0)
    rows = rows[~same]  # of an epoch that was written twice, the last
    return rows, place[rows], epoch[rows]


def _thin(
    trial: NDArray[np.intp], epoch: NDArray[np.int64], count: NDArray[np.intp], best: NDArray[np.float64]
) -> tuple[NDArray[np.bool_], int]:
    """Which epochs to keep, and the smallest stride that leaves at most `METRIC_POINTS`."""
    within = np.arange(len(trial)) - (np.cumsum(count) - count)[trial]
    always = (within == count[trial] - 1) | (epoch == best[trial])
    longest = int(count.max(initial=1))
    stride = max(1, -(-len(trial) // METRIC_POINTS))
    while (keep := always | (within % stride == 0)).sum() > METRIC_POINTS and stride < longest:
        stride += 1
    return keep, stride


def _split(values: list[Any], ends: NDArray[np.intp]) -> list[list[Any]]:
    stops = [0, *ends.tolist()]
    return [values[start:stop] for start, stop in itertools.pairwise(stops)]


def classes(table: pd.DataFrame | None, trials: pd.Index[str]) -> dict[str, Any] | None:
    """Accuracies of single classes in thousandths, one list a trial, None where unknown; only the first trials' where
    there are more than about `CLASS_VALUES` of them.
    """
    if table is None or not len(table.columns):
        return None
    some = trials[: max(50, CLASS_VALUES // len(table.columns))]
    values = table.reindex(some).to_numpy(dtype=float) * 1000
    lists = [
        None if np.isnan(row).all() else [None if v != v else round(v) for v in row.tolist()]
        for row in np.where(np.isfinite(values), values, np.nan)
    ]
    return {"names": [clip(str(name)) for name in table.columns], "values": lists}
