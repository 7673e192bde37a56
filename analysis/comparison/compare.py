"""Runs side by side: rows of a table, groups that may be compared in numbers, differences against noise, budgets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from statistics import mean
from typing import NamedTuple

from analysis import style
from analysis.comparison import recipe
from analysis.comparison.changes import Change, changes
from analysis.comparison.differences import Difference, Result, judge
from analysis.comparison.run_row import Row, notes, read_row, validation_images
from analysis.folders.folder import Folder
from analysis.folders.runs import comparable
from analysis.plots import course
from analysis.results import Results

ALONE = "alone"


class Budget(NamedTuple):
    """What the runs of a group had reached when each had spent as much: trials, epochs or seconds.

    values: of each run of the group, as in its row's `value`; ahead: the rows that led.
    """

    by: str
    spent: float
    values: tuple[float | None, ...]
    ahead: tuple[int, ...]


class Group(NamedTuple):
    """Runs of the same data, split and metric.

    runs, best: rows, several best where they are equal. reason: why they stand apart from the first group.
    """

    runs: tuple[int, ...]
    metric: style.Metric
    validation: int | None
    best: tuple[int, ...]
    reason: str
    course: course.Course
    budgets: tuple[Budget, ...]


class Comparison(NamedTuple):
    """All of it; rows are oldest first. notes: sentences on what is missing or was not read."""

    rows: tuple[Row, ...]
    groups: tuple[Group, ...]
    changes: tuple[Change, ...]
    differences: tuple[Difference, ...]
    notes: tuple[str, ...]


def compare(runs: Sequence[Results]) -> Comparison:
    """Compares runs, in numbers only where data, split and metric are the same (`analysis.folders.runs.comparable`).

    Raises:
        ValueError: fewer than two runs, or one of them twice.
    """
    if len(runs) < 2:
        raise ValueError("nothing to compare: name at least two runs")
    if twice := [str(r.path) for n, r in enumerate(runs) if r.path.resolve() in {o.path.resolve() for o in runs[:n]}]:
        raise ValueError(f"{twice[0]}: this run is named twice; a run cannot be compared with itself")
    runs = sorted(runs, key=_begun)
    names = _names(runs)
    best = [results.best() for results in runs]
    configurations = [recipe.configuration(results, trial) for results, trial in zip(runs, best, strict=True)]
    keys = [_key(results, n) for n, results in enumerate(runs)]
    # Those that compare first, then those of which it is known why they do not.
    order = sorted(dict.fromkeys(keys), key=lambda key: (keys.count(key) == 1, key[0] == ALONE))
    rows = [
        read_row(results, name, order.index(key), config)
        for results, name, key, config in zip(runs, names, keys, configurations, strict=True)
    ]
    groups: list[Group] = []
    differences: list[Difference] = []
    for key in order:
        members = [n for n in range(len(runs)) if keys[n] == key]
        group = _group(runs, rows, members)
        found = _differences(runs, rows, group)
        for difference in found:
            if members.index(difference.second) - members.index(difference.first) == 1:
                rows[difference.second] = rows[difference.second]._replace(improvement=difference)
        for n in group.best if len(members) > 1 else ():
            rows[n] = rows[n]._replace(best=True)
        groups.append(group._replace(reason=_reason(members[0], keys.index(order[0]), runs, names)))
        differences += found
    said = dict.fromkeys(note for row, results in zip(rows, runs, strict=True) for note in notes(row, results))
    return Comparison(tuple(rows), tuple(groups), changes(runs, configurations), tuple(differences), tuple(said))


# ---------------------------------------------------------------- which runs, under which name, in which group


def _begun(results: Results) -> float:
    try:
        return datetime.fromisoformat(str(results.run.get("created"))).timestamp()
    except (ValueError, OSError, OverflowError):
        return math.inf


def _names(runs: Sequence[Results]) -> list[str]:
    """The runs' own names; where two are the same, with their folders' names, then with numbers."""
    names = [recipe.one_line(results.name) for results in runs]
    names = [
        f"{name} ({Folder(results.path).name})" if names.count(name) > 1 and Folder(results.path).name != name else name
        for name, results in zip(names, runs, strict=True)
    ]
    return [f"{name} #{names[: n + 1].count(name)}" if names.count(name) > 1 else name for n, name in enumerate(names)]


def _key(results: Results, n: int) -> tuple[str, ...]:
    key = comparable(results.run, results.metric)
    return (ALONE, str(n)) if key is None else (*key, results.mode)


def _reason(n: int, first: int, runs: Sequence[Results], names: Sequence[str]) -> str:
    """Why run n is not compared with run `first` and those beside it; empty for that one."""
    mine, theirs = (comparable(runs[i].run, runs[i].metric) for i in (n, first))
    if mine is None:
        who = "Ray Tune" if runs[n].kind == "ray" else names[n]
        lacks = f"{who} records neither data nor split" if runs[n].metric else f"{names[n]} names no metric"
        return f"{lacks}: the numbers of {names[n]} cannot be compared with others."
    if n == first or theirs is None:
        return ""
    why = []
    if mine[0] != theirs[0]:
        data, other = (runs[i].run["data"].get("dataset", "?") for i in (n, first))
        why.append(
            f"other images ({data}, not {other})" if data != other else f"other images of {data}, by seed or subset"
        )
    elif mine[2:4] != theirs[2:4] and all(map(str.isdecimal, (*mine[2:4], *theirs[2:4]))):
        sizes = [f"{int(key[2]):,} to train on and {int(key[3]):,} to validate on" for key in (mine, theirs)]
        why.append(f"the same images, but another number of them: {sizes[0]}, not {sizes[1]}")
    elif mine[1] != theirs[1]:
        why.append("another split of the same images")
    if mine[4] != theirs[4]:
        why.append(f"judged by {style.words(mine[4])}, not {style.words(theirs[4])}")
    elif runs[n].mode != runs[first].mode:
        why.append("judged in the other direction")
    return f"Not compared in numbers with {names[first]}: {'; '.join(why)}."


def _group(runs: Sequence[Results], rows: Sequence[Row], members: list[int]) -> Group:
    metric = style.metric(next((runs[n] for n in members if rows[n].value is not None), runs[members[0]]))
    known = [n for n in members if rows[n].value is not None]
    judged = {n: _judged(rows[n], all(len(rows[m].seeds) > 1 for m in known)) for n in known}
    top = (max if metric.best == "highest" else min)(judged.values(), default=None)
    lines = course.compute([runs[n] for n in members], [rows[n].name for n in members], members)
    return Group(
        tuple(members),
        metric,
        validation_images(runs[members[0]]),
        tuple(n for n in known if judged[n] == top),
        "",
        lines,
        _budgets(lines, members, metric) if len(members) > 1 else (),
    )


def _judged(row: Row, over_seeds: bool) -> float:
    """Of which the highest is best: means over seeds where every run has them, else best values."""
    return mean(row.seeds) if over_seeds else float(row.value or 0.0)


def _budgets(lines: course.Course, members: Sequence[int], metric: style.Metric) -> tuple[Budget, ...]:
    """Half and all of what the shortest run spent; nothing before the first value."""
    found = []
    for by in course.TITLES:
        steps = {line.look: line.steps[by] for line in lines.lines if by in line.steps}
        if len(steps) < 2:
            continue
        least = min(step.x[-1] for step in steps.values())
        for spent in dict.fromkeys((float(math.ceil(least / 2)), least)):
            values = {n: step.at(spent) for n, step in steps.items()}
            told = {n: value for n, value in values.items() if value is not None}
            top = (max if metric.best == "highest" else min)(told.values(), default=None)
            if not told:
                continue
            ahead = tuple(n for n, value in told.items() if value == top)
            shown = tuple(None if values.get(n) is None else float(values[n] or 0) / metric.factor for n in members)
            found.append(Budget(by, spent, shown, ahead))
    return tuple(found)


def _differences(runs: Sequence[Results], rows: Sequence[Row], group: Group) -> list[Difference]:
    """Each run over the one before it; then the best over the next best, where these do not follow each other."""
    known = [n for n in group.runs if rows[n].value is not None]
    pairs = [pair for pair in zip(group.runs, group.runs[1:], strict=False) if set(pair) <= set(known)]
    if len(known) > 1:
        over_seeds = all(len(rows[n].seeds) > 1 for n in known)
        sign = 1 if group.metric.best == "highest" else -1
        best, following = sorted(known, key=lambda n: -sign * _judged(rows[n], over_seeds))[:2]
        if not {(following, best), (best, following)} & set(pairs):
            pairs.append((following, best))
    return [judge(_result(runs, rows, one), _result(runs, rows, two), (one, two), group.metric) for one, two in pairs]


def _result(runs: Sequence[Results], rows: Sequence[Row], n: int) -> Result:
    row = rows[n]
    return Result(row.name, float(row.value or 0.0), row.seeds, str(runs[n].metric), validation_images(runs[n]))
