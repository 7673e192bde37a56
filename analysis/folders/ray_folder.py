"""Reads anybody's Ray Tune results folder (Ray 2.9 to 2.60) from its plain JSON; the pickles beside it stay closed."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec

from analysis.folders.columns import Gatherer, number
from analysis.folders.folder import Folder, parse, readable
from analysis.folders.goal import Mode, Objective
from analysis.folders.lines import NOTHING, Form, Lines, Reader
from analysis.folders.parameters import flatten, infer, plain
from analysis.folders.raw import RESERVED, RawRun, RawTrial, Stretch, choose_objective
from analysis.folders.read import TRIAL_FILES
from analysis.folders.run_folder import last_line

ALIVE = 600.0  # s: Ray leaves no sign of life; a run that wrote within this time is taken as running
TRIAL_NAME = re.compile(r".*\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d", re.DOTALL)  # Ray ends a trial folder's name by its date
# What Ray adds to a row and is no metric; hosts and process ids are nobody's business.
DROPPED = frozenset(
    (
        *("config", "trial_id", "experiment_id", "experiment_tag", "training_iteration", "done", "date", "timestamp"),
        *("hostname", "node_ip", "pid", "checkpoint_dir_name", "should_checkpoint", "iterations_since_restore"),
        *("time_since_restore", "timesteps_since_restore", "timesteps_total", "episodes_total", "warmup_time"),
    )
)

FORM = Form(
    epoch="training_iteration",
    written=None,
    dropped=DROPPED,
    moment="timestamp",
    noted=("hostname", "pid", "timestamp", "time_this_iter_s", "iterations_since_restore", "time_total_s"),
    reserved=RESERVED,
    keep="last",
    # The same process counted on from the first to the last.
    brief=lambda first, last, rows: rows > 2 and first[:2] == last[:2] and first[4] == 1 and last[4] == rows,
)


class _Entry(msgspec.Struct):
    """What experiment_state says of a trial. What is beside it there may be pickled and stays closed."""

    trial_id: Any = None
    status: Any = None
    relative_logdir: Any = None
    start_time: Any = None
    config: Any = None


class _State(msgspec.Struct):
    """An experiment_state, its trials undecoded: they are 14 KB each, of which 300 B are of use."""

    trial_data: list[msgspec.Raw] = []
    checkpoints: list[msgspec.Raw] = []  # the same before Ray 2.10
    runner_data: Any = None


@dataclass(frozen=True)
class _Snapshot:
    """What the newest readable experiment_state says: per trial by folder name, and of the run."""

    trials: Mapping[str, _Entry] = field(default_factory=dict)
    metric: str | None = None
    began: float = math.nan


class _Found(NamedTuple):
    """One trial as its folder and the snapshot tell it. `started` and `newest` (its last row): seconds since 1970."""

    name: str
    trial_id: str
    status: str  # Ray's, or UNKNOWN
    lines: Lines
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


NO_ENTRY = _Entry()
_PAIR = msgspec.json.Decoder(tuple[str, msgspec.Raw])
_DESCRIPTION = msgspec.json.Decoder(_Entry)
_START = re.compile(rb'"\{\\n  \\"start_time\\": (\d+\.\d+),')  # as Ray writes it, before 10 KB of no use


def read(folder: Folder, metric: str | None = None, mode: Mode | None = None) -> RawRun:
    """Reads all of it. Ray does not record the full training length: it is taken to be that of the longest trial."""
    snapshot = _read_snapshot(folder)
    listed = frozenset(folder.folders())
    gatherer = Gatherer()
    reader = Reader(folder, FORM, gatherer)
    found = [
        _read_trial(folder, name, snapshot.trials.get(name, NO_ENTRY), reader if name in listed else None)
        for name in _trial_names(folder, snapshot)
    ]
    found.sort(key=lambda one: number(one.started, missing=math.inf))
    columns = gatherer.finish([one.name for one in found], folder.problems)
    recorded = [] if snapshot.metric is None else [Objective(snapshot.metric, None)]
    metric, mode = choose_objective(columns.metrics, recorded, (metric, mode), folder.problems)
    newest = max((one.newest for one in found if one.newest == one.newest), default=snapshot.began)
    starts = [moment for moment in (snapshot.began, *(one.started for one in found)) if moment == moment]
    run = _Run(
        metric=metric,
        full=max((one.lines.final for one in found if one.lines.rows), default=math.nan),
        began=min(starts, default=math.nan),
        alive=is_alive(newest),
    )
    trials = [_make_trial(name, one, run) for name, one in zip(_unique_ids(found, folder), found, strict=True)]
    status = _status({trial.state for trial in trials})
    moments = columns.numbers.pop("timestamp", None)
    if moments is not None:
        columns.numbers["elapsed"] = moments - run.began
    return RawRun(
        name=folder.name,
        kind="ray",
        status=status,
        created=_iso(run.began),
        trials=trials,
        columns=columns,
        parameters=infer(trial.settings for trial in trials),
        metric=metric,
        mode=mode,
        run={"status": status, "created": _iso(run.began), "trials": len(trials)},
        alive=run.alive,
        newest=newest,
    )


def is_alive(newest: float) -> bool:
    """Whether a run with this last sign of life, in seconds since 1970, is taken as running."""
    return bool(abs(time.time() - newest) < ALIVE)  # of a NumPy number too


def _read_snapshot(folder: Folder) -> _Snapshot:
    """The newest experiment_state that can be read; Ray starts another at each restore."""
    for name in reversed(folder.files("experiment_state-", ".json")):
        state = _read_state(folder, name)
        if state is None:
            continue
        runner = state.runner_data if isinstance(state.runner_data, dict) else {}
        trials = {}
        for raw in state.trial_data or state.checkpoints:
            entry = _read_entry(raw)
            if isinstance(entry.relative_logdir, str):
                trials[entry.relative_logdir] = entry
            else:
                folder.problems.count("damaged trial entries skipped", name)
        metric = runner.get("_metric")
        return _Snapshot(trials, metric if isinstance(metric, str) else None, number(runner.get("_start_time")))
    folder.problems.say("no readable experiment_state: states and order were taken from the trials' own files")
    return _Snapshot()


def _read_state(folder: Folder, name: str) -> _State | None:
    data = folder.data(name)
    try:
        return msgspec.json.decode(data or b"", type=_State)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        state = folder.json(name)  # NaN in it, or something else than lists; or damage, which is said
    if not isinstance(state, dict):
        return None
    lists = {key: state[key] for key in ("trial_data", "checkpoints") if isinstance(state.get(key), list)}
    entries = {key: [msgspec.Raw(json.dumps(entry)) for entry in listed] for key, listed in lists.items()}
    return _State(**entries, runner_data=state.get("runner_data"))


def _read_entry(raw: msgspec.Raw) -> _Entry:
    """A trial in experiment_state: a JSON text, or a pair of them, description and progress."""
    try:
        described, progress = _PAIR.decode(raw)
        entry = _DESCRIPTION.decode(described)
        start = _START.match(progress)
        if start:
            entry.start_time = float(start[1])
            return entry
    except (msgspec.MsgspecError, ValueError, RecursionError):
        pass
    try:
        value = parse(bytes(raw))
    except (ValueError, RecursionError):
        return NO_ENTRY
    merged: dict[str, Any] = {}
    for part in value if isinstance(value, list) else [value]:
        try:
            value = parse(part) if isinstance(part, str) else part
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            merged |= value
    return _Entry(**{name: merged.get(name) for name in _Entry.__struct_fields__})


def _trial_names(folder: Folder, snapshot: _Snapshot) -> list[str]:
    """Folders of trials, and what the snapshot knows besides: trials that never started have no folder."""
    names = []
    for name in folder.folders():
        if name in snapshot.trials or any(folder.has(name, file) for file in TRIAL_FILES):
            names.append(name)
        elif TRIAL_NAME.fullmatch(name):
            folder.problems.count("trial folders with nothing to read", readable(name))
    # Times of starting tell the order; where one is missing, the numbers in the names do.
    known = all(type(entry.start_time) is float for entry in snapshot.trials.values())
    both = {*names, *snapshot.trials}
    return sorted(both, key=None if known and len(both) == len(snapshot.trials) else _natural)


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts by the numbers in a name: trial 9 before trial 10."""
    return [(int(part) if part.isdecimal() else -1, part) for part in re.split(r"(\d+)", name)]


def _read_trial(folder: Folder, name: str, entry: _Entry, reader: Reader | None) -> _Found:
    # A name that only the snapshot knows may be any path: nothing is opened by it, there is no reader for it.
    lines = NOTHING if reader is None else reader.read(name, "result.json")
    own = lines.newest.get("config")
    if reader is not None and not lines.newest:
        rows = _read_csv(folder, name)
        if rows:
            folder.problems.count("trials read from progress.csv, as result.json is missing or empty", readable(name))
            lines = reader.add(rows, (name, "progress.csv"))
    newest, first = lines.newest, lines.noted[0] if lines.noted else (None,) * len(FORM.noted)
    error = None
    if reader is not None and entry.status in (None, "ERROR"):
        error = folder.text(name, "error.txt")
    status = entry.status
    if status is None:
        status = "ERROR" if error is not None else "TERMINATED" if newest.get("done") is True else "UNKNOWN"
    return _Found(
        name=name,
        trial_id=readable(str(entry.trial_id or newest.get("trial_id") or name)),
        status=str(status),
        lines=lines,
        settings=_read_settings(folder, name, own, newest, entry, reader is not None),
        error=error,
        started=number(entry.start_time, number(first[2]) - number(first[5], missing=0.0)),
        newest=number(newest.get("timestamp")),
    )


def _read_settings(
    folder: Folder, name: str, own: Any, newest: Mapping[str, Any], entry: _Entry, here: bool
) -> Mapping[str, Any]:
    """Those that its last row was trained with; else those of params.json, of progress.csv, of the snapshot."""
    config = own if own and isinstance(own, dict) else folder.json(name, "params.json") if here else None
    if not isinstance(config, dict):
        config = next((c for c in (newest.get("config"), entry.config) if c and isinstance(c, dict)), None)
        if config is None:
            folder.problems.count("trials whose settings are not known", readable(name))
    return {path: plain(value) for path, value in flatten(config or {}).items()}


def _make_stretches(lines: Lines, began: float, state: str) -> list[Stretch]:
    """Rows of one process that counts on, in seconds since the run began; the last of a running trial has no end."""
    stretches: list[Stretch] = []
    for host, pid, moment, seconds, since, _ in lines.noted:
        ended = number(moment) - began
        worker = str(host), int(number(pid, missing=-1.0))
        if not stretches or stretches[-1].worker != worker or since == 1:
            stretches.append(Stretch(worker, ended - number(seconds, missing=0.0), ended))
        else:
            stretches[-1] = stretches[-1]._replace(ended=ended)
    told = [stretch for stretch in stretches if stretch.ended == stretch.ended]
    return [*told[:-1], told[-1]._replace(ended=math.nan)] if told and state == "running" else told


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
    return RawTrial(
        id=trial_id,
        state=state,
        epochs=found.lines.rows,
        settings=found.settings,
        reason=reason,
        full_epochs=run.full,
        seconds=number(found.lines.last.get("time_total_s")) if found.lines.rows else 0.0,
        started=found.started - run.began,
        ended=math.nan if state == "running" else max(found.newest, found.started) - run.began,
        stretches=_make_stretches(found.lines, run.began, state),
    )


def _state(found: _Found, run: _Run) -> tuple[str, str | None]:
    """Our word for Ray's. Stopped by a scheduler and finished are both TERMINATED: the length tells them apart."""
    if found.status == "ERROR":
        return "failed", None if found.error is None else last_line(found.error)
    # Without a snapshot a trial that a scheduler did not end never says so; only the longest are sure to be whole.
    whole = found.status == "UNKNOWN" and not run.alive and found.lines.final >= run.full
    if found.status != "TERMINATED" and not whole:
        return ("running", None) if run.alive else ("interrupted", None)
    if not found.lines.rows:
        return "interrupted", "it ended without a result"
    value = found.lines.infinite.get(run.metric or "")
    if value is not None:
        return "diverged", f"{run.metric} was {value} at epoch {found.lines.final:.0f}"
    return ("finished", None) if found.lines.final >= run.full else ("stopped", None)


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
