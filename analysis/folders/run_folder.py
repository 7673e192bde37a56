"""Reads a run folder of hypertune by its contract (results/README.md)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from analysis.folders.columns import Gatherer, number
from analysis.folders.folder import Folder, readable
from analysis.folders.goal import Mode, read_goal
from analysis.folders.lines import NOTHING, Form, Lines, Reader
from analysis.folders.parameters import Parameter, column_of, flatten, from_config, from_space, infer, look_up, plain
from analysis.folders.raw import STATES, RawRun, RawTrial, Stretch, choose_objective

FORMAT = 1  # of run.json
FORM = Form(
    epoch="epoch",
    written="seq",
    dropped=frozenset(("trial_id", "training_iteration", "time")),  # said by `trial` and `epoch`, or by `elapsed`
    moment=None,
    noted=("seq", "elapsed", "epoch_seconds"),
    reserved=frozenset(),
    keep="first",
    brief=lambda first, last, rows: False,  # the run may have been resumed between any two of them
)


@dataclass
class _Stint:
    """A start of a trial and, where an event told it, its end: on which process, when."""

    worker: tuple[str, int]
    heard: float  # when its first epoch was over
    ended: float = math.nan


@dataclass
class _History:
    """What events.jsonl says of one trial."""

    parameters: Mapping[str, Any] | None = None
    label: str | None = None
    repeat_of: str | None = None
    started: float = math.nan
    ended: float = math.nan
    state: str | None = None
    reason: str | None = None
    seq: float = math.nan  # of the end
    asked: float = math.nan
    stints: list[_Stint] = field(default_factory=list)


@dataclass(frozen=True)
class _Files:
    """What the folder of one trial says."""

    config: Mapping[str, Any] = field(default_factory=dict)
    lines: Lines = NOTHING
    error: str | None = None


def read(folder: Folder, metric: str | None = None, mode: Mode | None = None) -> RawRun:
    """Reads all of it. A trial without an end is running while run.json says so and a process holds run.lock.

    Else it is interrupted, unless its last line carries the decision that ended it.
    """
    run = _read_run(folder)
    goal = read_goal(run)
    histories = _read_events(folder)
    gatherer = Gatherer((*goal.losses, *(objective.metric for objective in goal.objectives)))
    files = _read_all(folder, histories, gatherer)
    status = str(run.get("status", "unknown"))
    alive = folder.is_locked("run.lock") if status in ("running", "unknown") else None
    parameters = _read_parameters(folder, histories, files)
    trials = [
        _make_trial(name, history, files.get(name, _Files()), parameters, run, bool(alive))
        for name, history in histories.items()
    ]
    for trial in trials:
        if trial.state in ("finished", "stopped") and not trial.epochs:
            folder.problems.count("trials that ended and left no epochs", trial.id)
    columns = gatherer.finish(list(histories), folder.problems)
    metric, mode = choose_objective(columns.metrics, goal.objectives, (metric, mode), folder.problems)
    if status == "running" and not alive:
        status = "dead"
        folder.problems.say("run.json says running, but no process holds run.lock: the run was killed")
    return RawRun(
        name=str(run.get("name", folder.name)),
        kind="hypertune",
        status=status,
        created=run["created"] if isinstance(run.get("created"), str) else None,
        trials=trials,
        columns=columns,
        parameters=parameters,
        metric=metric,
        mode=mode,
        run={**run, "status": status},
        goal=goal,
        alive=alive,
    )


def _read_all(folder: Folder, histories: dict[str, _History], gatherer: Gatherer) -> dict[str, _Files]:
    """The folders of all trials, in order of histories; those that events do not name get one, behind the others."""
    reader = Reader(folder, FORM, gatherer)
    files: dict[str, _Files] = {}
    listed = dict.fromkeys(folder.folders("trials"))
    for name in [*(name for name in histories if name in listed), *(name for name in listed if name not in histories)]:
        found = _read_files(folder, name, reader)
        if name not in histories and not (found.lines.rows or found.config or found.error):
            folder.problems.count("trial folders with nothing to read", readable(name))
            continue
        histories.setdefault(name, _History())
        files[name] = found
    return files


def _read_run(folder: Folder) -> Mapping[str, Any]:
    run = folder.json("run.json")
    if not isinstance(run, dict):
        folder.problems.say("run.json is missing or damaged: what the run was is not known")
        return {}
    if run.get("format", FORMAT) != FORMAT:
        folder.problems.say(f"run.json has format {run['format']}, this version reads {FORMAT}: some may be misread")
    return run


def _read_events(folder: Folder) -> dict[str, _History]:
    """Trial -> its history, in order of asking. An end is undone by a later start: the run was resumed."""
    histories: dict[str, _History] = {}
    if not folder.has("events.jsonl"):
        folder.problems.say("events.jsonl is missing: states were taken from the trials' own files")
    for event in folder.lines("events.jsonl"):
        kind, trial = event.get("event"), event.get("trial")
        if kind not in ("asked", "started", "mutated", "retried", "ended"):
            continue
        if not isinstance(trial, str):
            folder.problems.count("events without a trial, skipped", "events.jsonl")
            continue
        history = histories.setdefault(trial, _History())
        elapsed = number(event.get("elapsed"))
        if kind in ("retried", "ended") and history.stints:
            history.stints[-1].ended = elapsed
        if kind == "asked":
            history.asked = elapsed
            history.parameters = event["parameters"] if isinstance(event.get("parameters"), dict) else None
            history.label = None if event.get("label") is None else str(event["label"])
            history.repeat_of = event["repeat_of"] if isinstance(event.get("repeat_of"), str) else None
        elif kind == "mutated":  # all of its settings, as they are from then on
            if isinstance(event.get("parameters"), dict):
                history.parameters = event["parameters"]
        elif kind == "started":
            history.stints.append(_Stint((str(event.get("host")), int(number(event.get("pid"), -1.0))), elapsed))
            history.started = elapsed if math.isnan(history.started) else history.started
            history.state, history.reason, history.ended = None, None, math.nan
        elif kind == "retried":
            continue
        elif event.get("state") in STATES:
            history.state, history.ended, history.seq = event["state"], elapsed, number(event.get("seq"))
            history.reason = None if event.get("reason") is None else str(event["reason"])
        else:
            folder.problems.count("events with an unknown state, skipped", trial)
    return histories


def _read_files(folder: Folder, name: str, reader: Reader) -> _Files:
    place = ("trials", name)
    config = folder.json(*place, "params.json")
    lines = reader.read(*place, "result.json")
    if not isinstance(config, dict):
        folder.problems.count("trials without a readable params.json", readable(name))
        config = {}
    return _Files(config, lines, folder.text(*place, "error.txt"))


def _read_parameters(
    folder: Folder, histories: Mapping[str, _History], files: Mapping[str, _Files]
) -> tuple[Parameter, ...]:
    space = folder.json("space.json")
    if isinstance(space, list):
        parameters = []
        for entry in space:
            try:
                parameters.append(from_space(entry))
            except (ValueError, LookupError, TypeError, AttributeError):
                folder.problems.count("damaged entries skipped", "space.json")
        return tuple(parameters)
    asked = [_plain(history.parameters) for history in histories.values() if history.parameters is not None]
    source = "what was asked" if asked else "params.json"
    folder.problems.say(f"space.json is missing or damaged: the searched settings are those that vary in {source}")
    return infer(asked or [_plain(flatten(found.config)) for found in files.values()])


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: plain(value) for name, value in settings.items()}


def _make_trial(
    name: str,
    history: _History,
    files: _Files,
    parameters: tuple[Parameter, ...],
    run: Mapping[str, Any],
    running: bool,
) -> RawTrial:
    columns = {parameter.name: parameter.column for parameter in parameters}
    named = from_config(parameters, files.config) if history.parameters is None else _plain(history.parameters)
    full = _full_epochs(files.config, run)
    # An end that epochs follow was not the last: the run was resumed.
    over = bool(history.state) and not any(number(row[0]) > history.seq for row in files.lines.noted)
    state, reason = history.state, history.reason
    if state is None or not over:
        state, reason = _state_without_end(files, full, running)
    if reason is None and files.error is not None and state == "failed":
        reason = last_line(files.error)
    return RawTrial(
        id=readable(name),
        state=state,
        epochs=files.lines.rows,
        settings={columns.get(key, column_of(key)): value for key, value in named.items()},
        label=history.label,
        repeat_of=history.repeat_of,
        reason=reason,
        full_epochs=full,
        seconds=number(files.lines.last.get("time_total_s")) if files.lines.rows else 0.0,
        started=history.started,
        ended=history.ended if over else math.nan,
        stretches=_make_stretches(history, files.lines, state),
    )


def _make_stretches(history: _History, lines: Lines, state: str) -> list[Stretch]:
    """Each begins an epoch before its first is heard of and ends by its event or, after a kill, with its last row."""
    stretches: list[Stretch] = []
    earliest = number(history.asked, missing=0.0)
    nexts = [*(stint.heard for stint in history.stints), math.inf][1:]
    for stint, after in zip(history.stints, nexts, strict=True):
        own = [(number(row[1]), row[2]) for row in lines.noted if stint.heard <= number(row[1]) < after]
        ended = stint.ended
        if math.isnan(ended) and not (after == math.inf and state == "running"):
            ended = own[-1][0] if own else stint.heard
        began = max(earliest, stint.heard - (number(own[0][1], missing=0.0) if own else 0.0))
        stretches.append(Stretch(stint.worker, began, max(ended, began)))
        earliest = number(ended, missing=began)
    return stretches


def _full_epochs(config: Mapping[str, Any], run: Mapping[str, Any]) -> float:
    try:
        return number(look_up(config, "train.epochs"), missing=number(run.get("epochs")))
    except KeyError:
        return number(run.get("epochs"))


def _state_without_end(files: _Files, full: float, running: bool) -> tuple[str, str | None]:
    """State and reason by the trial's own files: its last line carries the decision that ended it."""
    last = files.lines.last
    reason = None if last.get("reason") is None else str(last["reason"])
    if files.error is not None:
        return "failed", None
    if last.get("diverged"):
        return "diverged", str(last["diverged"])
    if files.lines.final >= full:
        return "finished", reason
    if last.get("decision") == "stop":
        return "stopped", reason
    return ("running", None) if running else ("interrupted", None)


def last_line(error: str) -> str | None:
    """The line of a trace that names the error: the last one that starts without a blank and reads `Name: text`."""
    lines = [line for line in error.splitlines() if line.strip()]
    named = [line for line in lines if line.partition(":")[0].replace(".", "_").isidentifier()]
    return (named or lines)[-1].strip() if lines else None
