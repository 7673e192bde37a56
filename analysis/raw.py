"""RawRun: a run as its files tell it, in plain values: what both readers make and tables and lists are made from."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from analysis.folder import Problems, Unreadable
from analysis.goal import NO_GOAL, Goal, Mode, Objective
from analysis.parameters import Parameter, is_number

Row = dict[str, Any]

# Columns that tables have of their own. A foreign metric of such a name becomes metric/NAME, a setting config/NAME.
TRIAL_COLUMNS = (
    "number",
    "label",
    "state",
    "reason",
    "epochs",
    "best_epoch",
    "full_epochs",
    "seconds",
    "started",
    "ended",
    "repeat_of",
    "breaks",
)
EPOCH_COLUMNS = ("trial", "epoch", "seq", "elapsed", "decision")
TEXTS = ("decision", "reason", "diverged")  # of a row of ours: words, where most rows have none
RESERVED = frozenset((*TRIAL_COLUMNS, *EPOCH_COLUMNS))
# Numbers of a row that say when, not how well.
NO_METRIC = frozenset(("epoch", "seq", "elapsed", "timestamp", "time_this_iter_s", "time_total_s"))

LONGEST = 2**53  # epochs; beyond it a float counts no more
STATES = ("finished", "stopped", "diverged", "failed", "out_of_memory", "interrupted", "running")

# What a foreign run most likely wants to improve, best guess first; nested names count by their last part.
GUESSES = (
    "val_accuracy",
    "val_acc",
    "valid_accuracy",
    "validation_accuracy",
    "val/accuracy",
    "mean_accuracy",
    "test_accuracy",
    "accuracy",
    "acc",
    "val_f1",
    "f1",
    "auc",
    "score",
    "episode_reward_mean",
    "val_loss",
    "valid_loss",
    "validation_loss",
    "val/loss",
    "mean_loss",
    "loss",
    "rmse",
    "error",
    "_metric",
)
LESS_IS_BETTER = frozenset(
    ("loss", "losses", "error", "err", "rmse", "mse", "mae", "nll", "perplexity", "regret", "cost", "latency", "time")
)


@dataclass(frozen=True)
class RawTrial:
    """One trial. `rows` are its epochs in order, each once, flat, with `epoch`; `settings` by column.

    `repeat_of` is the trial that it repeats with another seed, None for a trial of the search itself.
    """

    id: str
    state: str
    rows: Sequence[Row]
    settings: Mapping[str, Any] = field(default_factory=dict)
    label: str | None = None
    repeat_of: str | None = None
    reason: str | None = None
    full_epochs: float = math.nan
    seconds: float = math.nan
    started: float = math.nan
    ended: float = math.nan


@dataclass(frozen=True)
class RawRun:
    """A run. `status` is running, finished, interrupted, failed, dead (says running, but nothing runs) or unknown."""

    name: str
    kind: Literal["hypertune", "ray"]
    status: str
    created: str | None
    trials: Sequence[RawTrial]
    parameters: tuple[Parameter, ...]
    metric: str | None
    mode: Mode
    run: Mapping[str, Any]
    goal: Goal = NO_GOAL


def once(rows: Iterable[Row], keep: Literal["first", "last"], place: str, problems: Problems) -> list[Row]:
    """One row an epoch, in order of epochs: of several the first or the last by `seq`, else by place in the file."""
    kept: dict[int, Row] = {}
    repeated = without = 0
    unnumbered = math.inf if keep == "first" else -1
    for row in sorted(rows, key=lambda row: number(row.get("seq"), missing=unnumbered)):
        epoch = number(row.get("epoch"))
        if not 0 <= epoch < LONGEST or epoch != int(epoch):
            without += 1
            continue
        repeated += int(epoch) in kept
        if keep == "last" or int(epoch) not in kept:
            row["epoch"] = int(epoch)
            kept[int(epoch)] = row
    problems.count("lines without an epoch, skipped", place, without)
    problems.count(f"epochs written twice, the {keep} one kept", place, repeated)
    return [kept[epoch] for epoch in sorted(kept)]


def best_row(rows: Sequence[Row], metric: str | None, mode: Mode, goal: Goal = NO_GOAL) -> Row | None:
    """The epoch with the best value, the first of equals; one that breaks a constraint only where all do.

    An epoch without a finite value of the metric, of a loss or of an objective is never best.
    """
    if metric is None:
        return None
    sign = 1.0 if mode == "max" else -1.0
    told = [row for row in rows if math.isfinite(number(row.get(metric))) and goal.sound(row)]
    return max(told, key=lambda row: (not goal.broken(row), sign * row[metric]), default=None)


def number(value: Any, missing: float = math.nan) -> float:
    """A number as a float; `missing` for everything else and for NaN."""
    return float(value) if is_number(value) and value == value else missing


def guess_metric(rows: Iterable[Row]) -> str | None:
    """The first of `GUESSES` that is reported, one of training only where there is no other; else the only metric."""
    names = {name: None for row in rows for name, value in row.items() if name not in NO_METRIC and is_number(value)}
    for training in (False, True):
        for guess in GUESSES:
            for name in names:
                if ("train" in name) == training and (name == guess or name.endswith(f"/{guess}")):
                    return name
    return next(iter(names)) if len(names) == 1 else None


def guess_mode(metric: str) -> Mode:
    """min for names with a word such as loss or error in them, else max."""
    words = metric.lower().replace("/", "_").replace("-", "_").replace(".", "_").split("_")
    return "max" if LESS_IS_BETTER.isdisjoint(words) else "min"


def choose_objective(
    rows: Iterable[Row],
    recorded: Sequence[Objective],
    asked: tuple[str | None, Mode | None],
    problems: Problems,
) -> tuple[str | None, Mode]:
    """Metric and direction: what the caller asks for, else what the run recorded, else a guess, which is noted.

    Raises:
        Unreadable: the caller asks for the other direction than the run recorded.
    """
    directions = {objective.metric: objective.mode for objective in recorded}
    metric = asked[0] or next(iter(directions), None)
    if metric is None:
        metric = guess_metric(rows)
        if metric is None:
            problems.say("no metric is recorded and none can be guessed: name one")
            return None, asked[1] or "max"
        problems.say(f"no metric is recorded: {metric} was guessed")
    known = directions.get(metric)
    if known and asked[1] and known != asked[1]:
        raise Unreadable(f"the run recorded {metric} with direction {known}, not {asked[1]}; leave --mode out")
    mode = asked[1] or known
    if mode is None:
        mode = guess_mode(metric)
        problems.say(f"no direction of {metric} is recorded: {mode} was taken by its name")
    return metric, mode
