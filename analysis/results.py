"""Folder -> Results: what the trials of a run left, as two DataFrames, and what could not be read."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import NoneType
from typing import Any, Literal

import numpy as np
import pandas as pd

from analysis.folder import Folder, Problems, Unreadable
from analysis.goal import NO_GOAL, Goal, Mode
from analysis.parameters import Parameter, is_number
from analysis.raw import NO_METRIC, TEXTS, TRIAL_COLUMNS, RawRun, RawTrial, best_row, number
from analysis.read import read

__all__ = ["Parameter", "Results", "Unreadable", "load"]


@dataclass(frozen=True)
class Results:
    """A run, read. `kind` is "hypertune" or "ray".

    trials: one row a trial, index `trial` (its id, a string), in order of start. Columns: number (1, 2, ...), label,
    state (finished | stopped | diverged | failed | out_of_memory | interrupted | running), reason, epochs (done),
    best_epoch, full_epochs (what it would have trained in full), seconds (of its epochs), started and ended (seconds
    since the run began), repeat_of (the trial that it repeats with another seed), breaks (the constraints that its
    best epoch breaks, as text), every metric of the best epoch under its own name, then one column a parameter column
    (missing where the parameter was not active). Label, reason, repeat_of and breaks are None where there is none;
    number and epochs are int64, all other numbers float64 with NaN where unknown; a parameter's column is float64 when
    all its values are numbers, else object.
    epochs: one row an epoch: trial, epoch, every metric under its own name as float64; where known seq, elapsed
    (seconds since the run began) and, as text, decision and reason. Other texts are kept, lists are not.
    run: what run.json says, its status made true: dead where it says running and no process does. Of a foreign run
    status, created and the number of trials. goal: its objectives and constraints.
    `metric` and `mode` come from the run itself, never from YAML; the best epoch is by them. None when a foreign
    folder names no metric and has none that can be guessed.
    A foreign metric named like a column above is called metric/NAME, a setting named like a column or a metric
    config/NAME. `problems` are sentences: what could not be read or had to be guessed, where, how often.
    """

    path: Path
    name: str
    kind: Literal["hypertune", "ray"]
    trials: pd.DataFrame
    epochs: pd.DataFrame
    parameters: tuple[Parameter, ...]
    metric: str | None
    mode: Mode
    run: Mapping[str, Any]
    problems: tuple[str, ...]
    goal: Goal = NO_GOAL

    def eligible(self) -> pd.Series[bool]:
        """Which trials may be best: those of the search itself, no repeats, that break no constraint."""
        return self.trials["repeat_of"].isna() & self.trials["breaks"].isna()

    def best(self) -> str | None:
        """The trial with the best value of the metric at any epoch, whatever became of it; None if none has one.

        Repeats and trials that break a constraint are never best.
        """
        if self.metric is None or self.metric not in self.trials:
            return None
        values = self.trials.loc[self.eligible(), self.metric].dropna()
        if values.empty:
            return None
        return str(values.idxmax() if self.mode == "max" else values.idxmin())


def load(path: str | Path, *, metric: str | None = None, mode: Mode | None = None) -> Results:
    """Reads a run folder of hypertune, or any results folder of Ray Tune: finished, running, killed or damaged.

    Args:
        path: the folder. Links in it are not followed, pickles not opened, nothing is written.
        metric: what to judge trials by; default: what the run recorded, else a guess, noted in `problems`.
        mode: max or min; default: as recorded, else by the metric's name.

    Raises:
        Unreadable: the path is no such folder, no trial reports the metric asked for, or the run recorded the other
            direction.
    """
    folder = Folder(Path(path))
    raw = read(folder, metric, mode)
    epochs = _make_epochs(raw.trials, folder.problems)
    metrics = [
        name for name in epochs.columns if epochs[name].dtype == np.float64 and name not in (*NO_METRIC, *TRIAL_COLUMNS)
    ]
    if metric is not None and len(epochs) and metric not in metrics:
        raise Unreadable(f"{path}: no trial reports {metric}; there are {', '.join(metrics)}")
    parameters = tuple(_own_column(parameter, {*metrics, *TRIAL_COLUMNS}) for parameter in raw.parameters)
    return Results(
        path=folder.path,
        name=raw.name,
        kind=raw.kind,
        trials=_make_trials(raw, metrics, parameters),
        epochs=epochs,
        parameters=parameters,
        metric=raw.metric,
        mode=raw.mode,
        run=raw.run,
        problems=folder.problems.sentences(),
        goal=raw.goal,
    )


def _own_column(parameter: Parameter, taken: Collection[str]) -> Parameter:
    return replace(parameter, column=f"config/{parameter.column}") if parameter.column in taken else parameter


def _make_epochs(trials: Sequence[RawTrial], problems: Problems) -> pd.DataFrame:
    """All rows, column by column: one pass a name, no DataFrame a trial."""
    rows = [row for trial in trials for row in trial.rows]
    names = dict.fromkeys(name for row in rows for name in row)
    columns: dict[str, Any] = {
        "trial": pd.Series([trial.id for trial in trials for _ in trial.rows], dtype="str"),
        "epoch": np.array([row["epoch"] for row in rows], dtype=np.int64),
    }
    for name in names:
        if name not in columns:
            column = _make_column([row.get(name) for row in rows], name, problems)
            if column is not None:
                columns[name] = column
    return pd.DataFrame(columns)


def _make_column(values: list[Any], name: str, problems: Problems) -> Any:
    """Numbers as float64; a column without any number is text, or None if it holds neither."""
    types = set(map(type, values))
    if name in TEXTS and types <= {str, NoneType}:
        return pd.Series(values, dtype=object)
    if types <= {float, int, NoneType}:
        with suppress(OverflowError):  # a whole number beyond 1e308: the slow way below takes it as missing
            return np.array(values, dtype=np.float64)
    if any(map(is_number, values)) or bool in types:
        numbers = [float(value) if isinstance(value, bool) else number(value) for value in values]
        odd = sum(value is not None and not isinstance(value, int | float) for value in values)
        problems.count("values that are no numbers, taken as missing", name, odd)
        return np.array(numbers, dtype=np.float64)
    return pd.Series(values, dtype=object) if types <= {str, NoneType} else None


def _make_trials(raw: RawRun, metrics: Sequence[str], parameters: Sequence[Parameter]) -> pd.DataFrame:
    trials = raw.trials
    best = [best_row(trial.rows, raw.metric, raw.mode, raw.goal) or {} for trial in trials]
    columns: dict[str, Any] = {
        "number": np.arange(1, len(trials) + 1, dtype=np.int64),
        "label": pd.Series([trial.label for trial in trials], dtype=object),
        "state": pd.Series([trial.state for trial in trials], dtype="str"),
        "reason": pd.Series([trial.reason for trial in trials], dtype=object),
        "epochs": np.array([len(trial.rows) for trial in trials], dtype=np.int64),
        "best_epoch": np.array([number(row.get("epoch")) for row in best], dtype=np.float64),
    }
    for name in ("full_epochs", "seconds", "started", "ended"):
        columns[name] = np.array([getattr(trial, name) for trial in trials], dtype=np.float64)
    columns["repeat_of"] = pd.Series([trial.repeat_of for trial in trials], dtype=object)
    columns["breaks"] = pd.Series([", ".join(raw.goal.broken(row)) or None for row in best], dtype=object)
    for name in metrics:
        columns[name] = np.array([number(row.get(name)) for row in best], dtype=np.float64)
    for parameter, original in zip(parameters, raw.parameters, strict=True):
        values = [trial.settings.get(original.column) for trial in trials]
        if all(value is None or is_number(value) for value in values):
            columns[parameter.column] = np.array([number(value) for value in values], dtype=np.float64)
        else:
            columns[parameter.column] = pd.Series(values, dtype=object)
    frame = pd.DataFrame(columns)
    frame.index = pd.Index([trial.id for trial in trials], dtype="str", name="trial")
    return frame
