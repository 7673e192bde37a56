"""Folder -> Results: what the trials of a run left, as two DataFrames, and what could not be read."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from analysis.folders import cache as caching
from analysis.folders.folder import Folder, Unreadable
from analysis.folders.frames import make_frames, make_stretches
from analysis.folders.goal import NO_GOAL, Constraint, Goal, Mode, Objective
from analysis.folders.parameters import Parameter
from analysis.folders.ray_folder import is_alive
from analysis.folders.read import read

if TYPE_CHECKING:
    from analysis.gallery import Plots

__all__ = ["Parameter", "Results", "Unreadable", "load"]

TABLES = ("trials", "epochs", "stretches", "classes")


@dataclass(frozen=True, repr=False)
class Results:
    """A run, read. `kind` is "hypertune" or "ray".

    trials: one row a trial, index `trial` (its id, a string), in order of start. Columns: number (1, 2, ...), label,
    state (finished | stopped | diverged | failed | out_of_memory | interrupted | running), reason, epochs (done),
    best_epoch, full_epochs (what it would have trained in full), seconds (of its epochs), started and ended (seconds
    since the run began), repeat_of (the trial that it repeats with another seed), breaks (the constraints that its
    best epoch breaks, as text), every metric of the best epoch under its own name, then one column a parameter column
    (missing where the parameter was not active). Label, reason, repeat_of and breaks are None where there is none;
    number and epochs are int64, all other numbers float64 with NaN where unknown; a parameter's column is float64 when
    all its values are numbers, else object.
    epochs: one row an epoch: trial, epoch, every metric under its own name as float64; where known seq, elapsed
    (seconds since the run began) and, as text, decision and reason. Other texts are kept, lists are not.
    stretches: one row each time that a trial ran on a worker, in order of trials: trial, worker (int64; 1, 2, ... in
    order of first appearance, of a process of some host), began, ended (seconds since the run began; ended NaN while it
    runs).
    classes: how much of each class was recognised (recall on validation) at a trial's best epoch: index trial, one
    float64 column a class, by its name; NaN unknown. None where the run tells no classes apart.
    run: what run.json says, its status made true: dead where it says running and no process does. Of a foreign run
    status, created and the number of trials. goal: its objectives and constraints.
    `metric` and `mode` come from the run itself, never from YAML; the best epoch is by them. None when a foreign
    folder names no metric and has none that can be guessed.
    A foreign metric named like a column above is called metric/NAME, a setting named like a column or a metric
    config/NAME. `problems` are sentences: what could not be read or had to be guessed, where, how often.
    """

    path: Path
    name: str
    kind: Literal["hypertune", "ray"]
    trials: pd.DataFrame
    epochs: pd.DataFrame
    parameters: tuple[Parameter, ...]
    metric: str | None
    mode: Mode
    run: Mapping[str, Any]
    problems: tuple[str, ...]
    goal: Goal = NO_GOAL
    stretches: pd.DataFrame = field(default_factory=lambda: make_stretches(()))
    classes: pd.DataFrame | None = None

    def __repr__(self) -> str:
        return f"<{self.name}: {len(self.trials)} trials, {len(self.epochs)} epochs, by {self.metric}>"

    @property
    def plot(self) -> Plots:
        """The figures, for notebooks: `results.plot.parallel()`."""
        from analysis.gallery import Plots

        return Plots(self)

    def eligible(self) -> pd.Series[bool]:
        """Which trials may be best: those of the search itself, no repeats, that break no constraint."""
        return self.trials["repeat_of"].isna() & self.trials["breaks"].isna()

    def best(self) -> str | None:
        """The trial with the best value of the metric at any epoch, whatever became of it; None if none has one.

        Repeats and trials that break a constraint are never best.
        """
        if self.metric is None or self.metric not in self.trials:
            return None
        values = self.trials.loc[self.eligible(), self.metric].dropna()
        if values.empty:
            return None
        return str(values.idxmax() if self.mode == "max" else values.idxmin())


def load(
    path: str | Path, *, metric: str | None = None, mode: Mode | None = None, cache: str | Path | None = None
) -> Results:
    """Reads a run folder of hypertune, or any results folder of Ray Tune: finished, running, killed or damaged.

    Args:
        path: the folder. Links in it are not followed, pickles not opened, nothing is written.
        metric: what to judge trials by; default: what the run recorded, else a guess, noted in `problems`.
        mode: max or min; default: as recorded, else by the metric's name.
        cache: a folder to keep what was read in, such as report/cache/ of the run: while nothing in the run's folder
            changes, it is read from there the next time. Where it cannot be written, nothing is kept.

    Raises:
        Unreadable: the path is no such folder, no trial reports the metric asked for, or the run recorded the other
            direction.
    """
    folder, place, wish = Folder(Path(path)), None if cache is None else Path(cache), (metric, mode)
    if place is not None:
        kept = caching.find(folder, place, wish)
        if kept is not None and kept.facts["alive"] == _looks_alive(folder, kept.facts):
            return _make(folder.path, kept)
    began = time.time()
    with _no_collection():
        raw = read(folder, metric, mode)
        frames = make_frames(raw)
    if metric is not None and len(frames.epochs) and metric not in frames.metrics:
        raise Unreadable(f"{path}: no trial reports {metric}; there are {', '.join(frames.metrics)}")
    facts = {
        "name": raw.name,
        "kind": raw.kind,
        "parameters": [asdict(parameter) for parameter in frames.parameters],
        "metric": raw.metric,
        "mode": raw.mode,
        "run": raw.run,
        "problems": folder.problems.sentences(),
        "goal": raw.goal._asdict(),
        "alive": raw.alive,
        "newest": None if math.isnan(raw.newest) else raw.newest,
    }
    kept = caching.Kept(facts, {name: getattr(frames, name) for name in TABLES})
    if place is not None:
        caching.keep(kept, folder, began, place, wish)
    return _make(folder.path, kept)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Without looking for garbage, which takes a quarter of the time when a million small things are made."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _make(path: Path, kept: caching.Kept) -> Results:
    """From what was read now, or was kept when it was read."""
    facts = kept.facts
    goal = facts["goal"]
    return Results(
        path=path,
        **{name: facts[name] for name in ("name", "kind", "metric", "mode", "run")},
        parameters=tuple(_make_parameter(parameter) for parameter in facts["parameters"]),
        problems=tuple(facts["problems"]),
        goal=Goal(
            tuple(Objective(*one) for one in goal["objectives"]),
            tuple(Constraint(*one) for one in goal["constraints"]),
            tuple(goal["losses"]),
        ),
        **kept.tables,
    )


def _make_parameter(facts: Mapping[str, Any]) -> Parameter:
    fields: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in facts.items()}
    return Parameter(**fields)


def _looks_alive(folder: Folder, facts: Mapping[str, Any]) -> bool | None:
    """Whether a process works at the run, seen as when it was read; None where that is of no interest."""
    if facts["alive"] is None:
        return None
    return folder.is_locked("run.lock") if facts["kind"] == "hypertune" else is_alive(facts["newest"])
