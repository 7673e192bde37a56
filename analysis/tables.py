"""The tables of a report: trials in order of rank, what was searched, and both as CSV files safe for spreadsheets."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from analysis import fidelity, pareto, style
from analysis.parameters import Parameter
from analysis.plots.dimensions import Dimension, dimensions, texts
from analysis.results import Results


class Cell(NamedTuple):
    """A cell as shown, and the value that it is sorted by."""

    text: str
    sort: float | str


class Row(NamedTuple):
    """One trial."""

    trial: str
    state: str
    cells: tuple[Cell, ...]


class Ranked(NamedTuple):
    """Trials by rank; those that tell nothing come last, without one."""

    headers: tuple[str, ...]
    rows: tuple[Row, ...]


def ranked(results: Results) -> Ranked:
    """Every trial with its outcome, metric, further objectives, settings and time; the best first."""
    metric = style.metric(results)
    dims = dimensions(results, constant=True)
    order = fidelity.order(results)
    rest = [str(t) for t in results.trials.index if t not in set(order)]
    values = style.metric_values(results, results.trials)
    columns = {dim.column: texts(results.trials[dim.column]) for dim in dims}
    where = {str(trial): n for n, trial in enumerate(results.trials.index)}
    further = [m for m in _objectives(results) if m.name != metric.name]
    rows = []
    for place, trial in enumerate([*order, *rest], 1):
        n = where[trial]
        row = results.trials.iloc[n]
        known = place <= len(order)
        cells = [
            Cell(str(place) if known else "–", place),
            Cell(style.called(row).removeprefix("trial "), trial),
            Cell(style.outcome(row), f"{row['state']} {_number(row['epochs']):09.0f}"),
            Cell(metric.text(values.iloc[n]), _number(values.iloc[n])),
            *(Cell(m.text(row[m.name]), _number(row[m.name])) for m in further),
            Cell(style.number(row["best_epoch"]), _number(row["best_epoch"])),
            *(_setting(dim, row[dim.column], columns[dim.column][n]) for dim in dims),
        ]
        cells.append(Cell(style.duration(row["seconds"]), _number(row["seconds"])))
        rows.append(Row(trial, str(row["state"]), tuple(cells)))
    names = (metric.label, *(m.label for m in further), "best epoch", *(d.label for d in dims))
    return Ranked(("", "trial", "outcome", *names, "time"), tuple(rows))


def front(results: Results) -> Ranked:
    """The trials on the Pareto front with all objectives and their settings, best first by the first objective."""
    metrics = _objectives(results)
    dims = dimensions(results)
    rows = []
    for trial in pareto.front(results):
        row = results.trials.loc[trial]
        cells = (
            Cell(style.called(row).removeprefix("trial "), trial),
            *(Cell(m.text(row[m.name]), _number(row[m.name])) for m in metrics),
            *(_setting(dim, row[dim.column], texts(results.trials.loc[[trial], dim.column])[0]) for dim in dims),
        )
        rows.append(Row(trial, str(row["state"]), cells))
    return Ranked(("trial", *(m.label for m in metrics), *(d.label for d in dims)), tuple(rows))


def _objectives(results: Results) -> list[style.Metric]:
    return [style.metric(results, goal) for goal in pareto.objectives(results)]


def _setting(dim: Dimension, value: Any, text: str | None) -> Cell:
    if dim.ordered:
        return Cell("" if text is None else style.number(_number(value)), _number(value))
    return Cell(text or "", text or "")


def _number(value: Any) -> float:
    """As a float; missing, and whatever is no number, sorts below everything."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return -math.inf
    return -math.inf if math.isnan(number) else number


def asked(parameters: tuple[Parameter, ...]) -> list[tuple[str, str, str]]:
    """Name, range and condition of each searched parameter, in words."""
    return [(p.name, _range(p), " and ".join(_condition(c) for c in p.active_when)) for p in parameters]


def _range(parameter: Parameter) -> str:
    if parameter.kind == "choice":
        return ", ".join(str(t) for t in texts(pd.Series(parameter.choices, dtype=object)))
    if parameter.low is None or parameter.high is None:
        return "–"
    words = f"{style.number(parameter.low)} to {style.number(parameter.high)}"
    return words + (", logarithmic" if parameter.log else ", whole numbers" if parameter.kind == "int" else "")


def _condition(condition: Mapping[str, Any]) -> str:
    name = str(condition.get("name", "?"))
    if "above" in condition:
        return f"{name} above {condition['above']}"
    return f"{name} is {' or '.join(str(v) for v in condition.get('values', ('?',)))}"


def for_spreadsheets(frame: pd.DataFrame) -> pd.DataFrame:
    """The same table without formulas: text that starts with = + - @ (or a tab or line break) gets an apostrophe.

    A spreadsheet would run such a cell. Numbers stay numbers, also those written as text.
    """
    safe = frame.reset_index() if frame.index.name else frame.copy()
    for column in safe.columns:
        if safe[column].dtype.kind not in "biuf":
            safe[column] = pd.Series([_escape(v) for v in safe[column]], index=safe.index, dtype=object)
    safe.columns = pd.Index([_escape(c) for c in safe.columns])
    return safe


def _escape(value: Any) -> Any:
    if not isinstance(value, str) or not value.startswith(("=", "+", "-", "@", "\t", "\r", "\n")):
        return value
    try:
        float(value)
    except ValueError:
        return "'" + value
    return value


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    """One CSV file, UTF-8."""
    for_spreadsheets(frame).to_csv(path, index=False, lineterminator="\n")
