"""What was asked differently of runs, and where their best configurations differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import pandas as pd

from analysis.comparison.recipe import UNKNOWN, value
from analysis.folders.parameters import flatten
from analysis.page import tables
from analysis.results import Results

# Of run.json: what the search was, beside the settings of its trials.
_SEARCH = ("trials", "repeats", "time_budget", "sampler", "scheduler", "constraints")
_RUN = ("seeds", "device", "precision")
_IGNORED = ("data.root", "seed", "search.sampler.reason")  # the fingerprint says which images they were


class Change(NamedTuple):
    """One setting that is not the same everywhere.

    kind "asked": its fixed value or its search range differs. "found": asked alike, but the best trials differ in it.
    values: of each run as text, in the order of the runs; `–` where a run does not have it.
    """

    setting: str
    kind: Literal["asked", "found"]
    values: tuple[str, ...]


class _Run(NamedTuple):
    """asked, found: setting -> text; name -> kind of a section that has one stands at the section itself."""

    kind: str
    asked: dict[str, str]
    found: dict[str, str]
    searched: frozenset[str]


def changes(runs: Sequence[Results], configurations: Sequence[Mapping[str, Any]]) -> tuple[Change, ...]:
    """All changes between the runs, what was asked before what was found; runs of another kind share no settings.

    A field that only some networks, optimizers or versions have is no change by itself; a section that only some runs
    have is one, as a whole.

    Args:
        runs: to compare.
        configurations: of each run's best trial, as in its params.json; empty where unknown.
    """
    whole = {kind: _partly_there([c for r, c in zip(runs, configurations, strict=True) if c and r.kind == kind])
             for kind in ("hypertune", "ray")}  # fmt: skip
    told = [_read(results, config, whole[results.kind]) for results, config in zip(runs, configurations, strict=True)]
    names = dict.fromkeys(name for run in told for name in (*run.asked, *run.found))
    lines = [change for name in names if (change := _compare(name, told))]
    return tuple(sorted(lines, key=lambda change: change.kind))


def _compare(name: str, runs: Sequence[_Run]) -> Change | None:
    cells = []
    for run in runs:
        asked, found = run.asked.get(name), run.found.get(name)
        cells.append(f"{asked}; best {found}" if asked and found else asked or found or UNKNOWN)
    if any(_differ([run for run in runs if run.kind == kind], name) for kind in ("hypertune", "ray")):
        return Change(name, "asked", tuple(cells))
    if any(len({r.found[name] for r in runs if r.kind == k and name in r.found}) > 1 for k in ("hypertune", "ray")):
        return Change(name, "found", tuple(run.found.get(name, UNKNOWN) for run in runs))
    return None


def _differ(runs: Sequence[_Run], name: str) -> bool:
    texts = {run.asked.get(name, run.found.get(name)) for run in runs}
    if not any(name in run.searched for run in runs):
        texts.discard(None)
    return any(name in run.asked for run in runs) and len(texts) > 1


def _partly_there(configurations: Sequence[Mapping[str, Any]]) -> frozenset[str]:
    """Paths that are a section in one configuration and none in another."""
    sections = [_sections(config) for config in configurations]
    return frozenset(path for path in set().union(*sections) if not all(path in some for some in sections))


def _sections(config: Mapping[str, Any], start: str = "") -> set[str]:
    found = set()
    for key, part in config.items():
        if isinstance(part, Mapping):
            found |= {f"{start}{key}", *_sections(part, f"{start}{key}.")}
    return found


def _leaves(config: Mapping[str, Any], whole: frozenset[str], start: str = "") -> dict[str, str]:
    """Path -> text; a section of `whole` as one text, one's kind under the section's own path."""
    leaves: dict[str, str] = {}
    for key, part in config.items():
        path = f"{start}{key}"
        if isinstance(part, Mapping) and path in whole:
            leaves[path] = value(", ".join(f"{name} {value(leaf)}" for name, leaf in flatten(part).items()) or "there")
        elif isinstance(part, Mapping):
            leaves |= _leaves(part, whole, f"{path}.")
        elif path not in _IGNORED:
            leaves[start[:-1] if key == "name" and start else path] = value(part)
    return leaves


def _read(results: Results, config: Mapping[str, Any], whole: frozenset[str]) -> _Run:
    asked, found = _ranges(results), {}
    searched, best = frozenset(asked), results.best()
    for column in searched:
        here: Any = results.trials.loc[best, column] if best is not None else None
        if not pd.isna(here):
            found[column] = value(here)
    for path, text in _leaves(config, whole).items():
        if any(path.startswith((f"{column}.", f"{column}/")) for column in searched):
            found.setdefault(path, text)  # part of something that is searched as a whole
        elif path not in searched:
            asked[path] = text
    if results.kind == "hypertune":
        run = {f"search.{key}": results.run[key] for key in _SEARCH if key in results.run}
        run |= {key: results.run[key] for key in _RUN if key in results.run}
        asked |= {path: text for path, text in _leaves(run, frozenset()).items() if text != "null"}
    return _Run(results.kind, asked, found, searched)


def _ranges(results: Results) -> dict[str, str]:
    """Column -> where it was searched; several parameters of one column, one a branch, with their conditions."""
    found: dict[str, list[str]] = {}
    for parameter in results.parameters:
        ((_, words, condition),) = tables.asked((parameter,))
        found.setdefault(parameter.column, []).append(f"{words} where {condition}" if condition else words)
    return {column: "; ".join(parts) for column, parts in found.items()}
