"""Sampler: which configuration next. An Optuna study, asked define-by-run, told how each trial really ended.

Optuna is fed what other tools get wrong: a trial stopped early is told PRUNED with its intermediate values, never as if
it had finished, a diverged one and one that cannot be built PRUNED without a value (TPE ignores FAIL and would go there
again), a finished one with its best epoch. Each question has a seed of its own, so that a study rebuilt from the files
asks the same.
"""

from __future__ import annotations

import itertools
import json
import math
import warnings
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import optuna

from tuner.errors import Infeasible, SearchFailed
from tuner.search import grid
from tuner.search.preflight import CountModel, resolve
from tuner.spec.distributions import Choice, Int, LogInt, LogUniform, Plain
from tuner.spec.space import Parameter, Space, Start
from tuner.spec.trial_config import Grid, Tpe, TrialConfig

State = Literal["finished", "stopped", "diverged", "failed", "interrupted"]

USUAL, BY_CHANCE = 20, 500
"""Proposals of the sampler, then of pure chance, that may be impossible to build or known before it gives up."""


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

    `count` refuses configurations that cannot be built; those are never spent a trial on. Nor is a configuration that
    was proposed before: with one training seed it would give the same curve again. Starting points are exempt.
    """

    def __init__(self, space: Space, count: CountModel) -> None:
        self._space = space
        self._count = count
        self._sign = 1 if space.fixed.search.mode == "max" else -1
        self._refused = 0
        with quiet():
            self.study = optuna.create_study(direction="maximize", sampler=self._sampler(0, usual=True))
        self._open: dict[int, optuna.Trial] = {}
        self._best: dict[int, float] = {}
        self._known: set[str] = set()
        self._starts = list(space.starts)
        self._points = grid.points(space) if isinstance(space.fixed.search.sampler, Grid) else None
        self._few = (grid.count(space) or grid.LARGEST + 1) <= grid.LARGEST

    def ask(self) -> Proposal | None:
        """The next configuration; None when there is none left.

        Raises:
            SearchFailed: no configuration, or none with a starting point's values, was found that can be built.
        """
        start = self._starts.pop(0) if self._starts else None
        reason, failed = "", 0
        for fixed, usual in self._tries(start):
            try:
                proposal = self._propose(fixed, usual, start)
            except Infeasible as error:
                reason, failed = str(error), failed + 1
                continue
            if proposal:
                return proposal
        if reason and (start or not self._few or not self._known):
            what = f"starting point {start.label}" if start else f"{failed} configurations in a row"
            raise SearchFailed(f"{what} could not be built, the last time because {reason}")
        return None

    def _tries(self, start: Start | None) -> Iterator[tuple[Mapping[str, Plain], bool]]:
        """What to fix in each try, and whether the usual sampler gives the rest."""
        if start:
            yield from itertools.repeat((start.fixed, True), USUAL)
        elif self._points is not None:
            yield from ((point, True) for point in self._points)
        else:
            yield from itertools.repeat(({}, True), USUAL)
            # A sampler that keeps coming back to what is known: in a small space take whatever is left, in order.
            yield from ((p, True) for p in grid.points(self._space)) if self._few else [({}, False)] * BY_CHANCE

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

    def _propose(self, fixed: Mapping[str, Plain], usual: bool, start: Start | None) -> Proposal | None:
        """One try; None for a configuration that is known.

        Raises:
            Infeasible: it cannot be built.
        """
        number = len(self.study.get_trials(deepcopy=False))
        told = optuna.trial.TrialState
        parameters: dict[str, Plain] = {}

        def choose(parameter: Parameter) -> Plain:
            value = suggest(trial, parameter)
            parameters[parameter.name] = value
            return value

        with quiet():
            self.study.sampler = self._sampler(number, usual)
            if fixed:
                self.study.enqueue_trial(dict(fixed))
            trial = self.study.ask()
            try:
                config = resolve(self._space, choose)
                self._count(config)
            except Infeasible:
                self._refused += 1
                self.study.tell(trial, state=told.PRUNED)
                raise
        key = json.dumps(parameters, sort_keys=True)
        if key in self._known and not start:
            self.study.tell(trial, state=told.FAIL)  # teaches nothing new
            return None
        self._known.add(key)
        self._open[trial.number] = trial
        return Proposal(
            trial.number, parameters, config, start.label if start else None, start.to_the_end if start else False
        )

    def _sampler(self, number: int, usual: bool) -> optuna.samplers.BaseSampler:
        config = self._space.fixed.search.sampler
        seed = zlib.crc32(f"{self._space.fixed.seed}/{number}".encode())
        if isinstance(config, Tpe) and usual:
            # group: conditional parameters are modelled together with those that exist at the same time.
            return optuna.samplers.TPESampler(
                seed=seed,
                multivariate=True,
                group=True,
                n_startup_trials=config.startup_trials + self._refused,  # those were told too, but never trained
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
