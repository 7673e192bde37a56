"""A run as a study of Optuna, in the SQLite file that optuna-dashboard opens."""

from __future__ import annotations

import math
import shlex
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis import pareto
from analysis.exports import plain
from analysis.folders.goal import Objective
from analysis.folders.parameters import Parameter, is_number
from analysis.results import Results

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

SCHEME = "sqlite:///"


def to_optuna(results: Results, target: Path | str) -> str:
    """Adds a study called like the run to an SQLite file (a path, or sqlite:///PATH), which is made where it is not.

    A finished trial is COMPLETE with the value of its best epoch; one that was stopped or interrupted PRUNED with its
    curve; one that diverged or ran out of memory PRUNED without a value, as samplers understand "bad"; a failed one
    FAIL. Each has the parameters that it used, and as user attributes its name, state, label, reason and epochs.
    Repeats with other seeds are no part of the search: their values are a user attribute of the study. Returns what to
    type to look at it.

    Raises:
        ValueError: there is a study of that name, nothing to judge trials by, or the file is no database of Optuna.
    """
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    path = Path(str(target).removeprefix(SCHEME))
    goals = pareto.objectives(results) or ((Objective(results.metric, results.mode),) if results.metric else ())
    if not goals:
        raise ValueError(f"{path}: the folder names no metric, and a study needs one; choose one with --metric")
    if not path.parent.is_dir():
        raise ValueError(f"{path}: there is no folder {path.parent} to write it in")
    with _quietly():
        try:
            storage = optuna.storages.RDBStorage(f"{SCHEME}{path}")
            study = optuna.create_study(
                storage=storage,
                study_name=results.name,
                directions=["minimize" if goal.mode == "min" else "maximize" for goal in goals],
            )
        except optuna.exceptions.DuplicatedStudyError:
            raise ValueError(
                f"{path}: there is a study {results.name} already, and it is not overwritten; choose another file, or "
                f"remove it with `optuna delete-study --study-name {results.name} --storage {SCHEME}{path}`"
            ) from None
        except (SQLAlchemyError, optuna.exceptions.OptunaError, RuntimeError) as error:
            raise ValueError(
                f"{path}: no database that Optuna can write: {str(error).splitlines()[0]}; choose another file"
            ) from None
        try:
            names = [goal.metric for goal in goals]
            study.set_metric_names(names)
            study.set_user_attr("run", results.path.name)
            if repeats := {t.id: t.best.get(names[0]) for t in plain.trials(results) if t.repeat_of is not None}:
                study.set_user_attr("repeats of the best configuration, left out", repeats)
            study.add_trials(frozen(results, goals))  # 25 ms a trial of 20 epochs
        except BaseException:
            storage.delete_study(study._study_id)  # never half a study
            raise
        finally:
            storage.engine.dispose()
    return f"optuna-dashboard {shlex.quote(f'{SCHEME}{path}')}"


def frozen(results: Results, goals: Sequence[Objective]) -> Iterator[FrozenTrial]:
    """The trials of the search as Optuna sees them, in order of start."""
    from optuna.trial import TrialState, create_trial

    searched = [trial for trial in plain.trials(results) if trial.repeat_of is None]
    kinds = {
        p.name: distribution(p, [t.settings[p.name] for t in searched if p.name in t.settings])
        for p in results.parameters
    }
    states = {
        "finished": TrialState.COMPLETE, "stopped": TrialState.PRUNED, "interrupted": TrialState.PRUNED,
        "diverged": TrialState.PRUNED, "out_of_memory": TrialState.PRUNED, "running": TrialState.RUNNING,
    }  # fmt: skip
    first = goals[0].metric
    for trial in searched:
        state = states.get(trial.state, TrialState.FAIL)
        values = [trial.best.get(goal.metric, math.nan) for goal in goals]
        curve = {row.epoch: row.metrics[first] for row in trial.epochs if first in row.metrics}
        if trial.state in ("diverged", "out_of_memory"):
            curve = {}
        if state == TrialState.COMPLETE and not all(map(math.isfinite, values)):
            state = TrialState.FAIL
        if state == TrialState.PRUNED and curve and len(goals) == 1:
            values = [curve[max(curve)]]  # as Optuna's own tell does
        elif state != TrialState.COMPLETE:
            values = []
        told = {name: given for name, given in trial.settings.items() if _fits(kinds[name], given)}
        made = create_trial(
            state=state,
            values=values or None,
            params=told,
            distributions={name: kinds[name] for name in told},
            intermediate_values=curve,
            user_attrs={
                key: given
                for key, given in (
                    ("trial", trial.id), ("state", trial.state), ("label", trial.label), ("reason", trial.reason),
                    ("epochs", len(trial.epochs)), ("best_epoch", trial.best_epoch),
                )
                if given is not None
            },
            constraints=dict(trial.excess) or None,
        )  # fmt: skip
        made.datetime_start = datetime.fromtimestamp(trial.began)
        if state.is_finished():
            last = trial.ended or max((row.time for row in trial.epochs), default=trial.began)
            made.datetime_complete = datetime.fromtimestamp(last)
        yield made


def distribution(parameter: Parameter, values: Iterable[Any]) -> BaseDistribution:
    """The parameter's, made wide enough for every value that a trial had: a run may have changed its space."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if parameter.kind == "choice":
        known = list(parameter.choices)
        known += [value for value in dict.fromkeys(values) if value not in known]
        return CategoricalDistribution(known)
    numbers = [float(value) for value in values if is_number(value)]
    ends = [*numbers, *(end for end in (parameter.low, parameter.high) if end is not None)]
    low, high = min(ends, default=0.0), max(ends, default=1.0)
    if parameter.kind == "int":
        return IntDistribution(int(low), int(high), log=parameter.log and low >= 1)
    return FloatDistribution(low, high, log=parameter.log and low > 0)


def _fits(kind: BaseDistribution, value: Any) -> bool:
    """Whether it is a number where one belongs: several branches may keep different things under one path."""
    return hasattr(kind, "choices") or is_number(value)


@contextmanager
def _quietly() -> Iterator[None]:
    """Without Optuna's log and its warnings of experimental methods."""
    import optuna

    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(level)
