"""Each trial as plain Python values, in order of start: what other tools are handed."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analysis.folders.goal import Constraint
from analysis.folders.parameters import Parameter
from analysis.folders.raw import TRIAL_COLUMNS
from analysis.results import Results
from analysis.settings import in_use


class Epoch(NamedTuple):
    """One epoch: when it ended, in seconds since 1970, and its metrics, finite ones alone."""

    epoch: int
    time: float
    metrics: Mapping[str, float]


class Trial(NamedTuple):
    """One trial. settings: by the name of the parameter, those that it used. best: the metrics of its best epoch.

    began, ended: seconds since 1970; ended is None where it is not known. excess: by how much its best epoch passes
    each constraint, 0 where it keeps it or where that is not known.
    """

    id: str
    state: str
    label: str | None
    reason: str | None
    repeat_of: str | None
    settings: Mapping[str, Any]
    epochs: tuple[Epoch, ...]
    best_epoch: int | None
    best: Mapping[str, float]
    excess: Mapping[str, float]
    began: float
    ended: float | None


def metrics(results: Results) -> tuple[str, ...]:
    """The columns of both tables that hold metrics."""
    taken = {*TRIAL_COLUMNS, *(p.column for p in results.parameters)}
    return tuple(c for c in results.epochs.columns if c in results.trials and c not in taken)


def settings(results: Results, trial: str) -> dict[str, Any]:
    """What one trial used, by the name of the parameter."""
    at = [str(known) for known in results.trials.index].index(trial)
    used = in_use(results)
    return {
        p.name: _as_searched(p, results.trials[p.column].iloc[[at]])[0]
        for p in results.parameters
        if used[p.name].iloc[at]
    }


def trials(results: Results) -> Iterator[Trial]:
    """All of them, repeats too. An epoch that was written twice counts as it was written last."""
    names, created = metrics(results), _created(results)
    table = results.trials
    frame = results.epochs.drop_duplicates(["trial", "epoch"], keep="last")
    frame = frame.assign(number=frame["trial"].map(table["number"])).sort_values(["number", "epoch"], kind="stable")
    bounds = np.searchsorted(frame["number"].to_numpy(), table["number"].to_numpy(), side="left")
    bounds = np.append(bounds, len(frame))
    steps = frame["epoch"].tolist()
    elapsed = frame["elapsed"].to_numpy(dtype=float) if "elapsed" in frame else np.full(len(frame), np.nan)
    columns = {name: frame[name].to_numpy(dtype=float).tolist() for name in names}
    used = {name: mask.to_numpy(dtype=bool) for name, mask in in_use(results).items()}
    given = {p.name: _as_searched(p, table[p.column]) for p in results.parameters}
    best = {name: table[name].tolist() for name in names}
    excess = {c.text: _excess(c, best.get(c.metric)) for c in results.goal.constraints}
    texts = {name: [_text(v) for v in table[name]] for name in ("label", "reason", "repeat_of")}
    began, ended, at = (table[name].to_numpy(dtype=float) for name in ("started", "ended", "best_epoch"))
    for n, (trial, state) in enumerate(zip(table.index, table["state"], strict=True)):
        first, last = int(bounds[n]), int(bounds[n + 1])
        start = began[n] if np.isfinite(began[n]) else 0.0
        end = ended[n] if np.isfinite(ended[n]) else np.nanmax([start, *elapsed[first:last]])
        times = np.where(
            np.isfinite(elapsed[first:last]), elapsed[first:last], np.linspace(start, end, last - first + 1)[1:]
        )
        yield Trial(
            id=str(trial),
            state=str(state),
            label=texts["label"][n],
            reason=texts["reason"][n],
            repeat_of=texts["repeat_of"][n],
            settings={name: values[n] for name, values in given.items() if used[name][n]},
            epochs=tuple(
                Epoch(int(steps[i]), created + float(t), _finite({name: columns[name][i] for name in names}))
                for i, t in zip(range(first, last), times, strict=True)
            ),
            best_epoch=int(at[n]) if np.isfinite(at[n]) else None,
            best=_finite({name: best[name][n] for name in names}),
            excess={text: values[n] for text, values in excess.items() if values},
            began=created + float(min([start, *times])),  # a clock of another host may be ahead
            ended=created + float(ended[n]) if np.isfinite(ended[n]) else None,
        )


def _as_searched(parameter: Parameter, column: pd.Series[Any]) -> list[Any]:
    """Whole numbers and choices among them as such: 64, where the column holds 64.0."""
    if parameter.kind == "int":
        return [int(v) if isinstance(v, float) and v.is_integer() else v for v in column]
    choices = {choice: choice for choice in parameter.choices}
    return [choices.get(v, v) for v in column.tolist()]


def _created(results: Results) -> float:
    try:
        return datetime.fromisoformat(str(results.run.get("created"))).timestamp()
    except ValueError:
        return time.time()


def _finite(values: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in values.items() if abs(value) < np.inf}


def _excess(constraint: Constraint, values: list[float] | None) -> list[float]:
    sign = 1 if constraint.sense == "<=" else -1
    return [max(0.0, sign * (v - constraint.bound)) if abs(v) < np.inf else 0.0 for v in values or ()]


def _text(value: Any) -> str | None:
    return None if pd.isna(value) else str(value)
