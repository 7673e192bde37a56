"""Folder -> Results: what the trials of a run left, as two DataFrames, and what could not be read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd


@dataclass(frozen=True)
class Parameter:
    """One searched setting. `column` is its column in `Results.trials`: its path, such as train.optimizer.lr.

    kind float and int carry low, high and log; kind choice carries choices. `ordered` is true for numbers and for
    choices among numbers. `active_when` is as in space.json. Several parameters may share one column (one a branch).
    """

    name: str
    column: str
    kind: Literal["float", "int", "choice"]
    ordered: bool
    log: bool = False
    low: float | None = None
    high: float | None = None
    choices: tuple[Any, ...] = ()
    active_when: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class Results:
    """A run, read. `kind` is "hypertune" or "ray".

    trials: one row a trial, index `trial` (its id, a string), in order of start. Columns: number (1, 2, ...), label,
    state (finished | stopped | diverged | failed | interrupted | running), reason, epochs (done), best_epoch,
    full_epochs (what it would have trained in full), seconds (of its epochs), started and ended (seconds since the
    run began, NaN where unknown), every metric of the best epoch under its own name (NaN where there is none), then one column a
    parameter column (missing where the parameter was not active).
    epochs: one row an epoch: trial, epoch, every metric under its own name.
    `metric` and `mode` come from the run itself, never from YAML; the best epoch is by them. None when a foreign
    folder names no metric and has none that can be guessed.
    """

    path: Path
    name: str
    kind: Literal["hypertune", "ray"]
    trials: pd.DataFrame
    epochs: pd.DataFrame
    parameters: tuple[Parameter, ...]
    metric: str | None
    mode: Literal["max", "min"]
    run: Mapping[str, Any]
    problems: tuple[str, ...]
