"""Status: where a run stands, from its folder alone: what `hypertune status` says, of a run under way too."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tuner.records.holder import held, read_holder
from tuner.records.reader import Line, Record, read_record
from tuner.spec.objective import MODES, Constraint, Objective, number, parse_constraint

ENDED = ("finished", "interrupted", "failed")
"""Statuses in run.json of a run that does not run."""

UNSEEN = "written by {}: whether that still runs cannot be told from this machine"

RECENT, FEW = 600.0, 20
"""The rate is that of the last ten minutes; where they saw fewer than 20 epochs, that of the last 20."""

LONGEST = 200
"""Characters of an error that are shown."""

TIME_SPENT = "the time budget is spent"
"""Why a trial was interrupted that goes on when the run does."""

LOSSES = ("train_loss", "val_loss")
"""An epoch with one of them not finite is never best, whatever its accuracy."""


@dataclass(frozen=True)
class Best:
    """The best epoch of the best trial, by the first objective."""

    trial: str
    value: float
    epoch: int
    metric: str


@dataclass(frozen=True)
class Noise:
    """A trial and its repeats with other seeds: the value of the best epoch of each that finished, the trial's first.

    `deviation` is the sample standard deviation (n - 1); both are None of fewer than two values.
    """

    trial: str
    values: tuple[float, ...]
    mean: float | None
    deviation: float | None


@dataclass(frozen=True)
class Status:
    """Where a run stands.

    status: running, dead (says running, but its process is gone), finished, interrupted or failed; `note` says why
    that cannot be told for sure. trials: how many are wanted. states: how many trials are in each state, without
    repeats: running, queued (asked, no epoch since the run was last opened), or how they ended; what a run that does
    not run left open is interrupted. epochs: on disk, those of repeats too; expected_epochs: by the plan. front: trials
    on the Pareto front, None for a single objective. rate: epochs a minute lately. seconds: of all sessions, to the
    last line. seconds_left: None where it cannot be told, 0 where nothing runs. out_of_memory: trials that ran out of
    memory, and what they were estimated to need, in MB. problems: what could not be read.
    """

    path: Path
    name: str
    status: str
    note: str
    trials: int | None
    states: Mapping[str, int]
    repeats: int
    epochs: int
    expected_epochs: float | None
    best: Best | None
    front: int | None
    noise: Noise | None
    rate: float | None
    seconds: float
    seconds_left: float | None
    retries: int
    out_of_memory: Mapping[str, float | None]
    last_error: str
    problems: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "path": str(self.path)}


def read_status(path: Path) -> Status:
    """Where the run in this folder stands; writes nothing and takes no lock.

    Raises:
        BadInput: it is no run folder.
    """
    alive = held(path)  # asked before run.json is read: a run that ends in between is not taken for dead
    record = read_record(path)
    said = record.run.get("status")
    status = str(said) if said in ENDED else "running" if alive or held(path) else "dead"
    holder = read_holder(path)
    goal, problems = _read_goal(record.run)
    trials = _fold(record, goal)
    searched = [trial for trial in trials.values() if trial.repeat_of is None]
    states = Counter(trial.standing(record.run, running=status == "running") for trial in searched)
    elapsed = (number(line.fields.get("elapsed", 0.0)) for line in record.lines)
    seconds = max(_amount(record.run.get("seconds")) or 0.0, *elapsed, 0.0)
    epochs = sum(trial.epochs for trial in trials.values())
    rate = _rate(record.lines)
    return Status(
        path=path,
        name=str(record.run.get("name") or path.resolve().name),
        status=status,
        note=UNSEEN.format(holder) if status == "running" and holder and holder.elsewhere else "",
        trials=_count(record.run.get("trials")),
        states=dict(states),
        repeats=len(trials) - len(searched),
        epochs=epochs,
        expected_epochs=_amount(record.run.get("expected_epochs")),
        best=_best(searched, goal),
        front=_front(searched, goal) if len(goal.objectives) > 1 else None,
        noise=_noise(trials, goal, record.run),
        rate=rate,
        seconds=seconds,
        seconds_left=_seconds_left(record.run, epochs, rate, seconds) if status == "running" else 0.0,
        retries=sum(line.event == "retried" for line in record.lines),
        out_of_memory={trial.id: trial.memory_mb for trial in trials.values() if trial.lacked_memory},
        last_error=_last_error(record.lines),
        problems=(*record.problems, *problems),
    )


def rank(path: Path) -> list[Best]:
    """The best epoch of each trial that has one, repeats left out, the best trial first.

    Raises:
        BadInput: it is no run folder.
    """
    record = read_record(path)
    goal, _ = _read_goal(record.run)
    trials = [trial for trial in _fold(record, goal).values() if trial.repeat_of is None and trial.best]
    return [_epoch(trial, goal) for trial in sorted(trials, key=lambda trial: trial.score, reverse=True)]


# ---------------------------------------------------------------- the trials


@dataclass(frozen=True)
class _Goal:
    """What is improved, and the rules on measured metrics that must be kept."""

    objectives: tuple[Objective, ...]
    rules: tuple[Constraint, ...]

    def sound(self, row: Mapping[str, Any]) -> bool:
        """Whether every loss that the row has and every objective is a finite number."""
        losses = (number(row[name]) for name in LOSSES if name in row)
        return all(map(math.isfinite, losses)) and all(score > -math.inf for score in self.scores(row))

    def kept(self, row: Mapping[str, Any]) -> bool:
        """Whether the row breaks no rule; a metric that it does not have breaks none."""
        values = ((rule, number(row.get(rule.metric))) for rule in self.rules)
        return not any(rule.excess(value) > 0 for rule, value in values)

    def scores(self, row: Mapping[str, Any]) -> tuple[float, ...]:
        """Every objective, larger is better."""
        return tuple(objective.score(row) for objective in self.objectives)


@dataclass
class _Trial:
    """A trial as its lines so far tell it; `best` is its best epoch that keeps to the rules."""

    id: str
    repeat_of: str | None
    memory_mb: float | None
    epochs: int = 0
    last: Mapping[str, Any] = field(default_factory=dict)
    best: Mapping[str, Any] = field(default_factory=dict)
    score: float = -math.inf
    broken: bool = False
    under_way: bool = False
    state: str | None = None
    lacked_memory: bool = False

    def take(self, line: Line, goal: _Goal) -> None:
        """Note a line about it."""
        if line.event == "row":
            self.epochs, self.last = self.epochs + 1, line.fields
            self.broken = bool(goal.objectives) and not goal.sound(line.fields)
            if goal.objectives and not self.broken and goal.kept(line.fields):
                score = goal.objectives[0].score(line.fields)
                if score > self.score:
                    self.best, self.score = line.fields, score
        elif line.event == "ended":
            self.state = str(line.fields["state"])
            self.lacked_memory = self.lacked_memory or self.state == "out_of_memory"
        elif line.event == "retried":
            self.lacked_memory = self.lacked_memory or bool(line.fields["alone"])
        if line.event in ("row", "started", "retried"):
            self.under_way, self.state = True, None

    def standing(self, run: Mapping[str, Any], *, running: bool) -> str:
        """Its state; of one without an end its last line may carry the decision that ended it."""
        if self.state:
            return self.state
        if self.last.get("decision") == "stop" and self.last.get("reason") != TIME_SPENT:
            if self.broken:
                return "diverged"
            ended = self.last.get("ends") or self.last["epoch"] >= (_count(run.get("epochs")) or math.inf)
            return "finished" if ended else "stopped"
        if not running:
            return "interrupted"
        return "running" if self.under_way else "queued"


def _fold(record: Record, goal: _Goal) -> dict[str, _Trial]:
    trials: dict[str, _Trial] = {}
    for line in record.lines:
        if line.event == "asked" and line.trial is not None:
            size = line.fields.get("size") or {}
            trials[line.trial] = _Trial(line.trial, line.fields.get("repeat_of"), size.get("memory_mb"))
        elif line.event == "resumed":
            for trial in map(trials.get, line.fields["unfinished"]):
                if trial:
                    trial.under_way, trial.state = False, None
        elif line.trial is not None:
            trials[line.trial].take(line, goal)
    return trials


def _best(trials: Sequence[_Trial], goal: _Goal) -> Best | None:
    best = max((trial for trial in trials if trial.best), key=lambda trial: trial.score, default=None)
    return _epoch(best, goal) if best else None


def _epoch(trial: _Trial, goal: _Goal) -> Best:
    metric = goal.objectives[0].metric
    return Best(trial.id, float(trial.best[metric]), int(trial.best["epoch"]), metric)


def _front(trials: Sequence[_Trial], goal: _Goal) -> int:
    """How many trials no other one beats in one objective without losing in another."""
    scored = Counter(goal.scores(trial.best) for trial in trials if trial.best)
    front: list[tuple[float, ...]] = []
    for mine in sorted(scored, reverse=True):  # what beats it comes before it
        if not any(all(a >= b for a, b in zip(other, mine, strict=True)) for other in front):
            front.append(mine)
    return sum(scored[scores] for scores in front)


def _noise(trials: Mapping[str, _Trial], goal: _Goal, run: Mapping[str, Any]) -> Noise | None:
    name = next((trial.repeat_of for trial in trials.values() if trial.repeat_of in trials), None)
    if name is None:
        return None
    group = (trial for trial in trials.values() if name in (trial.id, trial.repeat_of))
    done = [trial for trial in group if trial.best and trial.standing(run, running=False) == "finished"]
    values = tuple(_epoch(trial, goal).value for trial in done)
    if len(values) < 2:
        return Noise(name, values, None, None)
    return Noise(name, values, statistics.mean(values), statistics.stdev(values))


# ---------------------------------------------------------------- the run


def _read_goal(run: Mapping[str, Any]) -> tuple[_Goal, list[str]]:
    """What run.json says is searched for, and what of it cannot be understood."""
    problems, objectives, rules = [], [], []
    for said in _list(run.get("objectives")):
        metric, mode = (said.get("metric"), said.get("mode")) if isinstance(said, dict) else (None, None)
        if isinstance(metric, str) and metric in MODES and mode in ("max", "min"):
            objectives.append(Objective(metric, mode))
        else:
            problems.append(f"run.json: no objective: {said}")
    for said in _list(run.get("constraints")):
        try:
            rules.append(parse_constraint(str(said)))
        except ValueError as error:
            problems.append(f"run.json: {error}")
    if not objectives:
        problems.append("run.json names no objective: which trial is best is not known")
    return _Goal(tuple(objectives), tuple(rule for rule in rules if not rule.counted)), problems


def _rate(lines: Sequence[Line]) -> float | None:
    """Epochs a minute lately, in the last session."""
    moments: list[float] = []
    for line in lines:
        if line.event in ("run_started", "resumed"):
            moments.clear()
        elif line.event == "row" and line.fields.get("elapsed") is not None:
            moments.append(line.fields["elapsed"])
    recent = [moment for moment in moments if moment >= moments[-1] - RECENT]
    recent = recent if len(recent) >= FEW else moments[-FEW:]
    span = recent[-1] - recent[0] if recent else 0.0
    return 60 * (len(recent) - 1) / span if span > 0 else None


def _seconds_left(run: Mapping[str, Any], epochs: int, rate: float | None, seconds: float) -> float | None:
    """By the epochs that are still expected, at most until the time budget is spent."""
    expected, budget = _amount(run.get("expected_epochs")), _amount(run.get("time_budget"))
    guesses = []
    if expected is not None and rate and expected > epochs:
        guesses.append(60 * (expected - epochs) / rate)
    if budget is not None:
        guesses.append(max(0.0, budget - seconds))
    return min(guesses, default=None)


def _last_error(lines: Sequence[Line]) -> str:
    """The newest thing that went wrong, in one line that is safe to print; empty where nothing did."""
    for line in reversed(lines):
        failed = line.event == "ended" and line.fields["state"] in ("failed", "out_of_memory")
        broke = line.event == "run_ended" and line.fields["status"] == "failed"
        if failed or broke or line.event in ("retried", "checkpoint"):
            text = " ".join("".join(c if c.isprintable() else " " for c in line.fields.get("reason") or "").split())
            text = text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."
            return f"trial {line.trial}: {text}" if line.trial else text
    return ""


def _amount(value: Any) -> float | None:
    sound = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e15
    return float(value) if sound else None


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
