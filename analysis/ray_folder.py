"""Reads anybody's Ray Tune results folder (Ray 2.9 to 2.60) from its plain JSON; the pickles beside it stay closed."""

from __future__ import annotations

import csv
import io
import math
import re
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from analysis.folder import Folder, parse, readable
from analysis.goal import Mode, Objective
from analysis.parameters import flatten, infer, plain
from analysis.raw import RESERVED, RawRun, RawTrial, Row, choose_objective, number, once
from analysis.run_folder import last_line

ALIVE = 600.0  # s: Ray leaves no sign of life; a run that wrote within this time is taken as running
TRIAL_FILES = ("result.json", "progress.csv", "params.json", "error.txt")
TRIAL_NAME = re.compile(r".*\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d", re.DOTALL)  # Ray ends a trial folder's name by its date
# What Ray adds to a row and is no metric; hosts and process ids are nobody's business.
DROPPED = frozenset(
    (
        *("config", "trial_id", "experiment_id", "experiment_tag", "training_iteration", "done", "date", "timestamp"),
        *("hostname", "node_ip", "pid", "checkpoint_dir_name", "should_checkpoint", "iterations_since_restore"),
        *("time_since_restore", "timesteps_since_restore", "timesteps_total", "episodes_total", "warmup_time"),
    )
)


@dataclass(frozen=True)
class _Snapshot:
    """What the newest readable experiment_state says: per trial by folder name, and of the run."""

    trials: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    metric: str | None = None
    began: float = math.nan


@dataclass(frozen=True)
class _Found:
    """One trial as its folder and the snapshot tell it. `started` and `newest` (its last row): seconds since 1970."""

    name: str
    trial_id: str
    status: str  # Ray's, or UNKNOWN
    rows: list[Row]
    settings: Mapping[str, Any]
    error: str | None
    started: float
    newest: float


@dataclass(frozen=True)
class _Run:
    """What the trials say together: metric, the longest trial's epochs, begin in seconds since 1970, signs of life."""

    metric: str | None
    full: float
    began: float
    alive: bool


def is_run(folder: Folder) -> bool:
    """Whether it is the folder of a Ray Tune experiment: a state file or trial folders."""
    if folder.files("experiment_state-", ".json") or folder.has("tuner.pkl"):
        return True
    return any(folder.has(name, file) for name in folder.folders() for file in TRIAL_FILES)


def read(folder: Folder, metric: str | None = None, mode: Mode | None = None) -> RawRun:
    """Reads all of it. Ray does not record the full training length: it is taken to be that of the longest trial."""
    snapshot = _read_snapshot(folder)
    listed = frozenset(folder.folders())
    found = [
        _read_trial(folder, name, snapshot.trials.get(name, {}), listed) for name in _trial_names(folder, snapshot)
    ]
    found.sort(key=lambda one: number(one.started, missing=math.inf))
    recorded = [] if snapshot.metric is None else [Objective(snapshot.metric, None)]
    metric, mode = choose_objective(
        (row for one in found for row in one.rows), recorded, (metric, mode), folder.problems
    )
    newest = max((one.newest for one in found if one.newest == one.newest), default=snapshot.began)
    starts = [moment for moment in (snapshot.began, *(one.started for one in found)) if moment == moment]
    run = _Run(
        metric=metric,
        full=max((one.rows[-1]["epoch"] for one in found if one.rows), default=math.nan),
        began=min(starts, default=math.nan),
        alive=abs(time.time() - newest) < ALIVE,
    )
    trials = [_make_trial(name, one, run) for name, one in zip(_unique_ids(found, folder), found, strict=True)]
    status = _status({trial.state for trial in trials})
    return RawRun(
        name=folder.name,
        kind="ray",
        status=status,
        created=_iso(run.began),
        trials=trials,
        parameters=infer(trial.settings for trial in trials),
        metric=metric,
        mode=mode,
        run={"status": status, "created": _iso(run.began), "trials": len(trials)},
    )


def _read_snapshot(folder: Folder) -> _Snapshot:
    """The newest experiment_state that can be read; Ray starts another at each restore."""
    for name in reversed(folder.files("experiment_state-", ".json")):
        state = folder.json(name)
        if not isinstance(state, dict):
            continue
        runner = state.get("runner_data")
        runner = runner if isinstance(runner, dict) else {}
        entries = state.get("trial_data") or state.get("checkpoints")
        trials = {}
        for entry in entries if isinstance(entries, list) else []:
            merged = _merge_entry(entry)
            if isinstance(merged.get("relative_logdir"), str):
                trials[merged["relative_logdir"]] = merged
            else:
                folder.problems.count("damaged trial entries skipped", name)
        metric = runner.get("_metric")
        return _Snapshot(trials, metric if isinstance(metric, str) else None, number(runner.get("_start_time")))
    folder.problems.say("no readable experiment_state: states and order were taken from the trials' own files")
    return _Snapshot()


def _merge_entry(entry: Any) -> dict[str, Any]:
    """A trial in experiment_state: a JSON text, or a pair of them, description and progress."""
    merged: dict[str, Any] = {}
    for part in entry if isinstance(entry, list) else [entry]:
        try:
            value = parse(part) if isinstance(part, str) else part
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            merged |= value
    return merged


def _trial_names(folder: Folder, snapshot: _Snapshot) -> list[str]:
    """Folders of trials, and what the snapshot knows besides: trials that never started have no folder."""
    names = []
    for name in folder.folders():
        if name in snapshot.trials or any(folder.has(name, file) for file in TRIAL_FILES):
            names.append(name)
        elif TRIAL_NAME.fullmatch(name):
            folder.problems.count("trial folders with nothing to read", readable(name))
    return sorted({*names, *snapshot.trials}, key=_natural)


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts by the numbers in a name: trial 9 before trial 10."""
    return [(int(part) if part.isdecimal() else -1, part) for part in re.split(r"(\d+)", name)]


def _read_trial(folder: Folder, name: str, entry: Mapping[str, Any], listed: Collection[str]) -> _Found:
    # A name that only the snapshot knows may be any path: nothing is opened by it.
    here = name in listed
    lines, source = (folder.lines(name, "result.json"), "result.json") if here else ([], "")
    if here and not lines:
        lines, source = _read_csv(folder, name), "progress.csv"
        if lines:
            folder.problems.count("trials read from progress.csv, as result.json is missing or empty", readable(name))
    first, last = (lines[0], lines[-1]) if lines else ({}, {})
    status = entry.get("status")
    error = folder.text(name, "error.txt") if here else None
    if status is None:
        status = "ERROR" if error is not None else "TERMINATED" if last.get("done") is True else "UNKNOWN"
    config = folder.json(name, "params.json") if here else None
    if not isinstance(config, dict):
        config = next((c for c in (last.get("config"), entry.get("config")) if c and isinstance(c, dict)), None)
        if config is None:
            folder.problems.count("trials whose settings are not known", readable(name))
    return _Found(
        name=name,
        trial_id=readable(str(entry.get("trial_id") or last.get("trial_id") or name)),
        status=str(status),
        rows=once(map(_make_row, lines), "last", f"{readable(name)}/{source}", folder.problems),
        settings={path: plain(value) for path, value in flatten(config or {}).items()},
        error=error,
        started=number(
            entry.get("start_time"), number(first.get("timestamp")) - number(first.get("time_total_s"), missing=0.0)
        ),
        newest=number(last.get("timestamp")),
    )


def _make_row(line: Mapping[str, Any]) -> Row:
    metrics = {name: value for name, value in line.items() if name not in DROPPED}
    row = {f"metric/{name}" if name in RESERVED else name: value for name, value in flatten(metrics, "/").items()}
    return row | {"epoch": line.get("training_iteration"), "timestamp": line.get("timestamp")}


def _read_csv(folder: Folder, name: str) -> list[dict[str, Any]]:
    """Rows of progress.csv with numbers as numbers; settings, which it holds as config/NAME, as one mapping."""
    text = folder.text(name, "progress.csv")
    rows = []
    try:
        for line in csv.DictReader(io.StringIO(text or "", newline="")):
            row: dict[str, Any] = {"config": {}}
            for key, cell in line.items():
                if not isinstance(key, str) or not cell:
                    continue
                if key.startswith("config/"):
                    row["config"][key.removeprefix("config/").replace("/", ".")] = _parse_cell(cell)
                else:
                    row[key] = cell if key == "trial_id" else _parse_cell(cell)
            rows.append(row)
    except csv.Error:
        folder.problems.count("damaged files, read up to the damage", f"{readable(name)}/progress.csv")
    return rows


def _parse_cell(cell: str) -> Any:
    if cell in ("True", "False"):
        return cell == "True"
    for kind in (int, float):
        try:
            return kind(cell)
        except ValueError:
            continue
    return cell


def _unique_ids(found: list[_Found], folder: Folder) -> list[str]:
    """Ray's ids; where a folder was copied, the folder's name for the second one."""
    ids: dict[str, None] = {}
    for one in found:
        if one.trial_id in ids:
            folder.problems.count("trial ids met twice, the folder's name taken instead", one.trial_id)
        trial_id = readable(one.name) if one.trial_id in ids else one.trial_id
        while trial_id in ids:
            trial_id += "'"
        ids[trial_id] = None
    return list(ids)


def _make_trial(trial_id: str, found: _Found, run: _Run) -> RawTrial:
    state, reason = _state(found, run)
    for row in found.rows:
        row["elapsed"] = number(row.pop("timestamp")) - run.began
    return RawTrial(
        id=trial_id,
        state=state,
        rows=found.rows,
        settings=found.settings,
        reason=reason,
        full_epochs=run.full,
        seconds=number(found.rows[-1].get("time_total_s")) if found.rows else 0.0,
        started=found.started - run.began,
        ended=math.nan if state == "running" else max(found.newest, found.started) - run.began,
    )


def _state(found: _Found, run: _Run) -> tuple[str, str | None]:
    """Our word for Ray's. Stopped by a scheduler and finished are both TERMINATED: the length tells them apart."""
    if found.status == "ERROR":
        return "failed", None if found.error is None else last_line(found.error)
    # Without a snapshot a trial that a scheduler did not end never says so; only the longest are sure to be whole.
    whole = found.status == "UNKNOWN" and not run.alive and bool(found.rows) and found.rows[-1]["epoch"] >= run.full
    if found.status != "TERMINATED" and not whole:
        return ("running", None) if run.alive else ("interrupted", None)
    if not found.rows:
        return "interrupted", "it ended without a result"
    last = found.rows[-1]
    value = None if run.metric is None else last.get(run.metric)
    if isinstance(value, float) and not math.isfinite(value):
        return "diverged", f"{run.metric} was {value} at epoch {last['epoch']}"
    return ("finished", None) if last["epoch"] >= run.full else ("stopped", None)


def _status(states: set[str]) -> str:
    for status in ("running", "interrupted"):
        if status in states:
            return status
    if not states:
        return "unknown"
    return "failed" if states == {"failed"} else "finished"


def _iso(moment: float) -> str | None:
    """Local time with offset, as in run.json; None for a moment that no calendar has."""
    try:
        return datetime.fromtimestamp(moment, UTC).astimezone().isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):
        return None
