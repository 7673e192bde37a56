"""Sampler: which configuration next. An Optuna study, asked define-by-run, told how each trial really ended.

Optuna is fed what other tools get wrong: a trial stopped early is told PRUNED with its intermediate values, never as if
it had finished, a diverged one and one that cannot be built PRUNED without a value (TPE ignores FAIL and would go there
again), a finished one with its best epoch. Each question has a seed of its own, so that a study rebuilt from the files
asks the same.
"""

from __future__ import annotations

import math
import warnings
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import optuna

from tuner.errors import Infeasible, SearchFailed
from tuner.search import grid
from tuner.search.preflight import CountModel
from tuner.spec.distributions import Choice, Int, LogInt, LogUniform, Plain
from tuner.spec.space import Parameter, Space
from tuner.spec.trial_config import Grid, Tpe, TrialConfig

State = Literal["finished", "stopped", "diverged", "failed", "interrupted"]

ATTEMPTS = 500
"""Proposals in a row that may be impossible to build before the search gives up."""


@dataclass(frozen=True)
class Proposal:
    """A configuration to train, and the parameters that made it, by name."""

    number: int
    parameters: Mapping[str, Plain]
    config: TrialConfig
    label: str | None = None
    to_the_end: bool = False


class Sampler:
    """Proposes configurations of a space and learns from their results.

    `count` refuses configurations that cannot be built; those are never spent a trial on.
    """

    def __init__(self, space: Space, count: CountModel) -> None:
        self._space = space
        self._count = count
        self._sign = 1 if space.fixed.search.mode == "max" else -1
        with quiet():
            self.study = optuna.create_study(direction="maximize", sampler=self._sampler(0))
        self._open: dict[int, optuna.Trial] = {}
        self._best: dict[int, float] = {}
        self._starts = list(space.starts)
        self._points: Iterator[Mapping[str, Plain]] | None = (
            grid.points(space) if isinstance(space.fixed.search.sampler, Grid) else None
        )

    def ask(self) -> Proposal | None:
        """The next configuration; None when a grid has no point left.

        Raises:
            SearchFailed: `ATTEMPTS` proposals in a row could not be built.
        """
        reason = ""
        for _ in range(ATTEMPTS):
            start = self._starts.pop(0) if self._starts else None
            fixed = start.fixed if start else None
            if fixed is None and self._points is not None:
                fixed = next(self._points, None)
                if fixed is None:
                    return None
            try:
                return self._propose(fixed or {}, start.label if start else None, bool(start and start.to_the_end))
            except Infeasible as error:
                reason = str(error)
        raise SearchFailed(f"{ATTEMPTS} configurations in a row could not be built, the last because {reason}")

    def report(self, number: int, epoch: int, value: float) -> None:
        """Note the metric of a running trial at an epoch; one that is not a number is left out."""
        if math.isfinite(value):
            self._open[number].report(self._sign * value, epoch)
            self._best[number] = max(self._best.get(number, -math.inf), self._sign * value)

    def tell(self, number: int, state: State) -> None:
        """Close a trial. Only a finished one counts with a value: that of its best epoch."""
        trial = self._open.pop(number)
        best = self._best.pop(number, None)
        told = optuna.trial.TrialState
        if state == "finished" and best is not None:
            self.study.tell(trial, best)
        elif state in ("stopped", "diverged", "interrupted", "finished"):
            with quiet():  # Optuna says that the last value is taken; that is meant
                self.study.tell(trial, state=told.PRUNED)
        else:
            self.study.tell(trial, state=told.FAIL)

    def _propose(self, fixed: Mapping[str, Plain], label: str | None, to_the_end: bool) -> Proposal:
        number = len(self.study.get_trials(deepcopy=False))
        with quiet():
            self.study.sampler = self._sampler(number)
            if fixed:
                self.study.enqueue_trial(dict(fixed))
            trial = self.study.ask()
            parameters: dict[str, Plain] = {}

            def choose(parameter: Parameter) -> Plain:
                value = suggest(trial, parameter)
                parameters[parameter.name] = value
                return value

            config = self._space.resolve(choose)
        try:
            self._count(config)
        except Infeasible:
            with quiet():
                self.study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            raise
        self._open[trial.number] = trial
        return Proposal(trial.number, parameters, config, label, to_the_end)

    def _sampler(self, number: int) -> optuna.samplers.BaseSampler:
        config = self._space.fixed.search.sampler
        seed = zlib.crc32(f"{self._space.fixed.seed}/{number}".encode())
        if isinstance(config, Tpe):
            # group: conditional parameters are modelled together with those that exist at the same time.
            return optuna.samplers.TPESampler(
                seed=seed, multivariate=True, group=True, n_startup_trials=config.startup_trials
            )
        return optuna.samplers.RandomSampler(seed=seed)


def suggest(trial: optuna.Trial, parameter: Parameter) -> Plain:
    """Ask an Optuna trial for a parameter's value."""
    d = parameter.distribution
    if isinstance(d, Choice):
        value: Plain = trial.suggest_categorical(parameter.name, d.labels)
        return value
    if isinstance(d, Int | LogInt):
        return trial.suggest_int(parameter.name, d.low, d.high, step=d.step or 1, log=isinstance(d, LogInt))
    return trial.suggest_float(parameter.name, d.low, d.high, step=d.step, log=isinstance(d, LogUniform))


def quiet() -> Any:
    """Optuna's warnings that experimental options are experimental, off within this block."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return warnings.catch_warnings(action="ignore", category=optuna.exceptions.ExperimentalWarning)
