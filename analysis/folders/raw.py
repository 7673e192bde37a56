"""RawRun: a run as its files tell it, in plain values: what both readers make and tables and lists are made from."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from analysis.folders.columns import Columns
from analysis.folders.folder import Problems, Unreadable
from analysis.folders.goal import NO_GOAL, Goal, Mode, Objective
from analysis.folders.parameters import Parameter

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
RESERVED = frozenset((*TRIAL_COLUMNS, *EPOCH_COLUMNS))
# Numbers of a row that say when, not how well.
NO_METRIC = frozenset(("epoch", "seq", "elapsed", "timestamp", "time_this_iter_s", "time_total_s"))

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
MORE_IS_BETTER = frozenset(
    ("accuracy", "acc", "f1", "auc", "score", "reward", "precision", "recall", "map", "iou", "dice", "bleu", "return")
)
LESS_IS_BETTER = frozenset(
    (
        *(
            "loss",
            "losses",
            "error",
            "err",
            "errors",
            "rmse",
            "mse",
            "mae",
            "nll",
            "perplexity",
            "ppl",
            "regret",
            "cost",
        ),
        *("latency", "time", "seconds", "wer", "cer", "eer", "fid", "distance", "divergence"),
    )
)


class Stretch(NamedTuple):
    """Once that a trial ran on a worker, a process of some host; seconds since the run began, `ended` NaN: it runs."""

    worker: tuple[str, int]
    began: float
    ended: float


@dataclass(frozen=True)
class RawTrial:
    """One trial. `epochs`: how many rows of the run's columns are its own; `settings` by column.

    `repeat_of` is the trial that it repeats with another seed, None for a trial of the search itself.
    """

    id: str
    state: str
    epochs: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    label: str | None = None
    repeat_of: str | None = None
    reason: str | None = None
    full_epochs: float = math.nan
    seconds: float = math.nan
    started: float = math.nan
    ended: float = math.nan
    stretches: Sequence[Stretch] = ()


@dataclass(frozen=True)
class RawRun:
    """A run. `status` is running, finished, interrupted, failed, dead (says running, but nothing runs) or unknown.

    columns: the rows of all trials, in order of trials. alive: what was found when it was looked whether a process
    still works at it, None where nobody had to look; `newest`: seconds since 1970 of Ray's last sign of life.
    """

    name: str
    kind: Literal["hypertune", "ray"]
    status: str
    created: str | None
    trials: Sequence[RawTrial]
    columns: Columns
    parameters: tuple[Parameter, ...]
    metric: str | None
    mode: Mode
    run: Mapping[str, Any]
    goal: Goal = NO_GOAL
    alive: bool | None = None
    newest: float = math.nan


def best_rows(columns: Columns, metric: str | None, mode: Mode, goal: Goal = NO_GOAL) -> NDArray[np.int64]:
    """The row with the best value of each trial, the first of equals, -1 where there is none.

    One that breaks a constraint is best only where all do. An epoch without a finite value of the metric, of a loss or
    of an objective never is.
    """
    counts, starts = columns.counts, columns.ends - columns.counts
    best = np.full(len(counts), -1, dtype=np.int64)
    if metric is None or metric not in columns.numbers:
        return best
    values = columns.numbers[metric] if mode == "max" else -columns.numbers[metric]
    told = np.isfinite(values) & columns.sound
    broken = told & _broken(columns, goal)
    filled = counts > 0
    for allowed in (told & ~broken, broken):  # the second only where the first has none
        if allowed.any():
            scores = np.where(allowed, values, -np.inf)
            highest = np.repeat(np.maximum.reduceat(scores, starts[filled]), counts[filled])
            rows = np.flatnonzero(allowed & (scores == highest))
            trials, first = np.unique(np.searchsorted(columns.ends, rows, side="right"), return_index=True)
            best[trials] = np.where(best[trials] < 0, rows[first], best[trials])
    return best


def broken_by(columns: Columns, row: int, goal: Goal) -> tuple[str, ...]:
    """The constraints that a row breaks, as text."""
    return goal.broken({name: float(values[row]) for name, values in columns.numbers.items()})


def _broken(columns: Columns, goal: Goal) -> NDArray[np.bool_]:
    broken = np.zeros(len(columns.sound), dtype=bool)
    for constraint in goal.constraints:
        if constraint.metric in columns.numbers:
            value = columns.numbers[constraint.metric]
            broken |= value > constraint.bound if constraint.sense == "<=" else value < constraint.bound
    return broken


def guess_metric(reported: Iterable[str]) -> str | None:
    """The first of `GUESSES` that is reported, one of training only where there is no other; else the only metric."""
    names = [name for name in reported if name not in NO_METRIC]
    for training in (False, True):
        for guess in GUESSES:
            for name in names:
                if ("train" in name) == training and (name == guess or name.endswith(f"/{guess}")):
                    return name
    return names[0] if len(names) == 1 else None


def guess_mode(metric: str) -> Mode:
    """min for names with a word such as loss or error in them, else max."""
    words = metric.lower().replace("/", "_").replace("-", "_").replace(".", "_").split("_")
    return "max" if LESS_IS_BETTER.isdisjoint(words) else "min"


def choose_objective(
    reported: Iterable[str],
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
        metric = guess_metric(reported)
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
        words = set(re.split(r"[^a-z0-9]+", metric.lower()))
        if mode == "min" or words & MORE_IS_BETTER or any("acc" in word for word in words):
            problems.say(f"no direction of {metric} is recorded: {mode} was taken by its name")
        else:
            problems.say(f"no direction of {metric} is recorded and its name says none: {mode} was assumed; set --mode")
    return metric, mode
