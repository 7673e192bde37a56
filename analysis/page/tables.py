"""The tables of a report: trials in order of rank, what was searched, and both as CSV files safe for spreadsheets."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from analysis import fidelity, pareto, style
from analysis.folders.parameters import Parameter
from analysis.page import compact
from analysis.plots.dimensions import Dimension, dimensions, texts
from analysis.repeats import repeats
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


SIZES = ("params", "flops", "model_mb", "peak_memory_mb")  # what a trial's details say beside its time


def page_json(results: Results, order: Sequence[str]) -> dict[str, Any]:
    """All trials for trials.js: columns as lists, best first, those that tell nothing last; plain finite JSON.

    Under 3 MB for 10,000 trials x 20 epochs: 4 or 5 significant digits (the CSV files have them all), see `compact`.

    Args:
        order: the ranking, `fidelity.order(results)`.

    Returns:
        ranked: how many have a rank. goals: the metric, then further objectives, in the unit shown. settings: in the
        order of the space, a category by its number in `texts`. sizes, curves, classes: for the details of a trial.
        noise: see `_noise`.
    """
    ranked = set(order)
    trials = pd.Index([*order, *(t for t in results.trials.index if t not in ranked)], dtype="str")
    table = results.trials.reindex(trials)
    metric = style.metric(results)
    goals = [metric, *(m for m in _objectives(results) if m.name != metric.name)]
    shown = [m for m in goals if m.name in table]
    sizes = [n for n in SIZES if n in table and n not in [m.name for m in goals] and table[n].notna().any()]
    return {
        "ranked": len(order),
        "ids": trials.tolist(),
        "start": compact.short(table["number"]),
        **{name: compact.coded(table[name].tolist()) for name in ("label", "state", "reason", "repeat_of", "breaks")},
        **{name: compact.short(table[name]) for name in ("epochs", "best_epoch", "full_epochs")},
        "seconds": compact.short(table["seconds"].round(1), 8),
        "goals": [_goal_json(m, table) for m in shown],
        "standing": compact.short(100 * fidelity.standing(results).reindex(table.index)),
        "settings": [_setting_json(dim, table[dim.column]) for dim in dimensions(results, constant=True)],
        "sizes": [{"label": style.words(n), "values": compact.short(table[n], 5)} for n in sizes],
        "curves": compact.curves(results, trials),
        "classes": compact.classes(results.classes, trials),
        "noise": _noise(results),
    }


def _goal_json(metric: style.Metric, table: pd.DataFrame) -> dict[str, Any]:
    values = compact.short(table[metric.name].astype(float) * metric.factor, 5)
    highest = metric.best == "highest"
    return {"label": metric.label, "percent": metric.factor == 100, "highest": highest, "values": values}


def _setting_json(dim: Dimension, values: pd.Series[Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"name": compact.clip(dim.column), "label": compact.clip(dim.label), "texts": None}
    if dim.ordered:
        found["values"] = compact.short(pd.to_numeric(values, errors="coerce").astype(float), 5)
    else:
        texts_at = compact.coded(texts(values), dim.categories)
        found |= {"texts": texts_at["texts"], "values": texts_at["at"]}
    missing = -1 if not dim.ordered else None
    return found | {"varies": len(set(found["values"]) - {missing}) > 1}


def _noise(results: Results) -> float | None:
    """By how much, in the unit shown, two runs of one configuration differ at most in 19 of 20 cases; None where
    nothing was repeated.

    The repeatability limit of ISO 5725: sqrt(2) times the deviation between seeds, times Student's t for their number.
    """
    found = repeats(results)
    if found is None:
        return None
    from scipy.stats import t

    limit = math.sqrt(2) * found.deviation * float(t.ppf(0.975, len(found.values) - 1)) * style.metric(results).factor
    return limit if math.isfinite(limit) else None


def ranked(results: Results, top: int = 10) -> Ranked:
    """The best `top` trials with outcome, metric, further objectives, settings and time: for paper, and for readers
    without JavaScript."""
    metric = style.metric(results)
    dims = dimensions(results, constant=True)
    order = fidelity.order(results)
    ranks = {trial: str(place) for place, trial in enumerate(order, 1)}
    shown = [*order, *(str(t) for t in results.trials.index if t not in ranks)][:top]
    table = results.trials.loc[shown]
    values = style.metric_values(results, table)
    columns = {dim.column: texts(table[dim.column]) for dim in dims}
    further = [m for m in _objectives(results) if m.name != metric.name]
    rows = []
    for n, (trial, (_, row)) in enumerate(zip(shown, table.iterrows(), strict=True)):
        cells = (
            Cell(ranks.get(trial, "–"), n + 1),
            Cell(style.called(row).removeprefix("trial "), trial),
            Cell(style.outcome(row), f"{row['state']} {_number(row['epochs']):09.0f}"),
            Cell(metric.text(values.iloc[n]), _number(values.iloc[n])),
            *(Cell(m.text(row[m.name]), _number(row[m.name])) for m in further),
            Cell(style.number(row["best_epoch"]), _number(row["best_epoch"])),
            *(_setting(dim, row[dim.column], columns[dim.column][n]) for dim in dims),
            Cell(style.duration(row["seconds"]), _number(row["seconds"])),
        )
        rows.append(Row(trial, str(row["state"]), cells))
    names = (metric.label, *(m.label for m in further), "best epoch", *(d.label for d in dims))
    return Ranked(("", "trial", "outcome", *names, "time"), tuple(rows))


def front(results: Results) -> Ranked:
    """The trials on the Pareto front with all objectives and their settings, best first by the first objective."""
    goals = pareto.goals(results)
    metrics = [style.metric(results, goal) for goal in goals]
    dims = dimensions(results)
    rows = []
    for trial in pareto.front(results, goals):
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
    """One CSV file, UTF-8, texts in quotes; by Arrow, six times as fast as pandas."""
    import pyarrow as pa
    from pyarrow import csv

    csv.write_csv(pa.Table.from_pandas(of_one_kind(for_spreadsheets(frame)), preserve_index=False), path)


def of_one_kind(frame: pd.DataFrame) -> pd.DataFrame:
    """The same table, columns of mixed kinds as text, as Arrow wants it."""
    mixed = [name for name in frame.columns if frame[name].dtype == object and not _is_even(frame[name])]
    texts = {
        name: pd.Series([None if pd.isna(v) else str(v) for v in frame[name]], frame.index, object) for name in mixed
    }
    return frame.assign(**texts)


def _is_even(column: pd.Series[Any]) -> bool:
    kinds = set(map(type, column[column.notna()]))
    return kinds <= {str} or kinds == {bool}
