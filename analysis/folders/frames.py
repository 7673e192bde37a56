"""RawRun -> the DataFrames of Results."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import replace
from types import NoneType
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.folders.columns import number
from analysis.folders.parameters import Parameter, is_number
from analysis.folders.raw import NO_METRIC, TRIAL_COLUMNS, RawRun, RawTrial, best_rows, broken_by


class Frames(NamedTuple):
    """The tables as Results describes them, and what their columns are named after."""

    trials: pd.DataFrame
    epochs: pd.DataFrame
    stretches: pd.DataFrame
    classes: pd.DataFrame | None
    metrics: tuple[str, ...]
    parameters: tuple[Parameter, ...]


def make_frames(raw: RawRun) -> Frames:
    """All tables of a run. A parameter that is named like a metric or a column of ours becomes config/NAME."""
    names = pd.Index([trial.id for trial in raw.trials], dtype="str", name="trial")
    rows = best_rows(raw.columns, raw.metric, raw.mode, raw.goal)
    metrics = tuple(name for name in raw.columns.numbers if name not in (*NO_METRIC, *TRIAL_COLUMNS))
    parameters = tuple(_own_column(parameter, {*metrics, *TRIAL_COLUMNS}) for parameter in raw.parameters)
    return Frames(
        trials=_make_trials(raw, metrics, parameters, rows, names),
        epochs=_make_epochs(raw, names),
        stretches=make_stretches(raw.trials),
        classes=_make_classes(raw, rows, names),
        metrics=metrics,
        parameters=parameters,
    )


def _own_column(parameter: Parameter, taken: Collection[str]) -> Parameter:
    return replace(parameter, column=f"config/{parameter.column}") if parameter.column in taken else parameter


def _make_epochs(raw: RawRun, names: pd.Index[str]) -> pd.DataFrame:
    columns: dict[str, Any] = {
        "trial": names.repeat(raw.columns.counts),
        "epoch": raw.columns.numbers.get("epoch", np.zeros(0)).astype(np.int64),
    }
    for name in raw.columns.names:
        if name not in columns:
            numbers, texts = raw.columns.numbers.get(name), raw.columns.texts.get(name)
            columns[name] = numbers if numbers is not None else pd.Series(texts, dtype=object)
    return pd.DataFrame(columns, copy=False)


def _make_trials(
    raw: RawRun, metrics: Sequence[str], parameters: Sequence[Parameter], rows: NDArray[np.int64], names: pd.Index[str]
) -> pd.DataFrame:
    trials, numbers = raw.trials, raw.columns.numbers

    def at_best(name: str) -> NDArray[np.float64]:
        values = np.full(len(trials), np.nan)
        values[rows >= 0] = numbers[name][rows[rows >= 0]] if name in numbers else np.nan
        return values

    breaks: list[str | None] = [None] * len(trials)
    if raw.goal.constraints:
        breaks = [", ".join(broken_by(raw.columns, row, raw.goal)) or None if row >= 0 else None for row in rows]
    columns: dict[str, Any] = {
        "number": np.arange(1, len(trials) + 1, dtype=np.int64),
        "label": pd.Series([trial.label for trial in trials], dtype=object),
        "state": pd.Series([trial.state for trial in trials], dtype="str"),
        "reason": pd.Series([trial.reason for trial in trials], dtype=object),
        "epochs": raw.columns.counts,
        "best_epoch": at_best("epoch"),
    }
    for name in ("full_epochs", "seconds", "started", "ended"):
        columns[name] = np.array([getattr(trial, name) for trial in trials], dtype=np.float64)
    columns["repeat_of"] = pd.Series([trial.repeat_of for trial in trials], dtype=object)
    columns["breaks"] = pd.Series(breaks, dtype=object)
    for name in metrics:
        columns[name] = at_best(name)
    for parameter, original in zip(parameters, raw.parameters, strict=True):
        columns[parameter.column] = _make_setting([trial.settings.get(original.column) for trial in trials])
    frame = pd.DataFrame(columns)
    frame.index = names
    return frame


def _make_setting(values: Sequence[Any]) -> Any:
    """A column of numbers where they all are, else of objects."""
    if set(map(type, values)) <= {float, NoneType} or all(value is None or is_number(value) for value in values):
        return np.array(values, dtype=np.float64)
    return pd.Series(values, dtype=object)


def make_stretches(trials: Sequence[RawTrial]) -> pd.DataFrame:
    """One row each time that a trial ran; workers are counted, not named."""
    found = sorted((stretch for trial in trials for stretch in trial.stretches), key=lambda stretch: stretch.began)
    workers = {worker: n for n, worker in enumerate(dict.fromkeys(stretch.worker for stretch in found), 1)}
    rows = [(trial.id, workers[one.worker], one.began, one.ended) for trial in trials for one in trial.stretches]
    frame = pd.DataFrame(rows, columns=["trial", "worker", "began", "ended"])
    return frame.astype({"trial": "str", "worker": "int64", "began": "float64", "ended": "float64"})


def _make_classes(raw: RawRun, rows: NDArray[np.int64], names: pd.Index[str]) -> pd.DataFrame | None:
    if raw.columns.lists is None:
        return None
    told = [raw.columns.lists[row] if row >= 0 else () for row in rows]
    width = max(map(len, told), default=0)
    if not width:
        return None
    data = raw.run.get("data")
    classes = data.get("classes") if isinstance(data, dict) else None
    if not isinstance(classes, list) or len(set(map(str, classes))) != width or len(classes) != width:
        classes = list(range(width))
    values = [[number(value) for value in row] + [math.nan] * (width - len(row)) for row in told]
    return pd.DataFrame(
        np.array(values, dtype=np.float64), columns=pd.Index(list(map(str, classes)), dtype="str"), index=names
    )
