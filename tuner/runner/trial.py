"""A trial as the driver sees it, and a job: a stretch of it on a worker, from a checkpoint or from the start."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tuner.search.preflight import Size
from tuner.search.sampler import State, Told
from tuner.spec.distributions import Plain
from tuner.spec.objective import Constraint, Objective, number
from tuner.spec.space import Space
from tuner.spec.trial_config import TrialConfig

Row = Mapping[str, Any]

LOSSES = ("train_loss", "val_loss")
"""A trial with one of them not finite has diverged, whatever its accuracy."""


@dataclass(frozen=True)
class Goal:
    """What the search improves and must keep to."""

    objectives: tuple[Objective, ...]
    rules: tuple[Constraint, ...] = ()

    @property
    def first(self) -> Objective:
        """The objective that drives the search."""
        return self.objectives[0]

    def broken(self, row: Row) -> str:
        """The first loss or objective that is not a finite number; empty where all are."""
        names = (*LOSSES, *(objective.metric for objective in self.objectives))
        return next((name for name in names if not math.isfinite(number(row.get(name)))), "")

    def excess(self, row: Row) -> dict[str, float]:
        """By how much the row passes each rule on a measured metric that it has; 0 or less where it keeps to it."""
        measured = ((rule, number(row.get(rule.metric))) for rule in self.rules if not rule.counted)
        return {str(rule): rule.excess(value) for rule, value in measured if math.isfinite(value)}

    def kept(self, row: Row) -> bool:
        """Whether the row keeps to every rule."""
        return all(excess <= 0 for excess in self.excess(row).values())

    def scores(self, row: Row) -> tuple[float, ...]:
        """Every objective, larger is better."""
        return tuple(objective.score(row) for objective in self.objectives)


@dataclass(slots=True, eq=False)
class Trial:
    """One configuration and what has become of it.

    `number` is that of the sampler's proposal; None for a repeat and for a trial from before the space was changed.
    `top` is the row of the best epoch; `best` the best one that keeps to all rules, which may be another or none, with
    the parameters and the configuration of then: a population changes them.
    `changed` is the epoch at which a population last changed it. `place`: its place among all trials, from 0.
    """

    id: str
    parameters: Mapping[str, Plain]
    _config: TrialConfig | bytes
    size: Size
    number: int | None = None
    label: str | None = None
    to_the_end: bool = False
    repeat_of: str | None = None
    fits: bool = True
    place: int = 0
    full: int = field(init=False)
    """Epochs of a full training."""
    epochs: int = 0
    last: Row = field(default_factory=dict)
    top: Row = field(default_factory=dict)
    best: Row = field(default_factory=dict)
    best_parameters: Mapping[str, Plain] = field(default_factory=dict)
    _best_config: TrialConfig | bytes | None = None
    curve: dict[int, float] = field(default_factory=dict)
    seconds: float = 0.0
    state: State | None = None
    reason: str = ""
    deaths: int = 0
    moves: int = 0
    alone: bool = False
    jobs: int = 0
    running: bool = False
    heard: float = 0.0
    hung: str = ""
    started: bool = False
    decided: tuple[State, str] | None = None
    changed: int | None = None

    def __post_init__(self) -> None:
        self.full = self.config.train.epochs

    @property
    def config(self) -> TrialConfig:
        """What is trained."""
        return _unfold(self._config)

    @property
    def best_config(self) -> TrialConfig | None:
        """What was trained at the best epoch; None where there is none."""
        return None if self._best_config is None else _unfold(self._best_config)

    def take(self, row: Row, goal: Goal) -> None:
        """Note an epoch."""
        self.epochs, self.last = int(row["epoch"]), row
        self.seconds += number(row.get("epoch_seconds"))
        value = number(row.get(goal.first.metric))
        if math.isfinite(value):
            self.curve[self.epochs] = value
        if goal.broken(row):
            return
        score = goal.first.score(row)
        if not self.top or score > goal.first.score(self.top):
            self.top = row
        if goal.kept(row) and (not self.best or score > goal.first.score(self.best)):
            self.best, self.best_parameters, self._best_config = row, self.parameters, self._config

    def mutate(self, parameters: Mapping[str, Plain], config: TrialConfig, size: Size, epoch: int) -> None:
        """Note what a population changed after this epoch."""
        self.parameters, self._config, self.size, self.changed = dict(parameters), config, size, epoch

    def told(self, state: State, goal: Goal) -> Told:
        """What the sampler must know at the end."""
        values = tuple(number(self.top[o.metric]) for o in goal.objectives) if self.top else ()
        return Told(state, values, self.curve, goal.excess(self.top) if self.top else {})

    def shrink(self, goal: Goal) -> None:
        """Keep of an ended trial what is still asked of it: 3 KB instead of 20, of which there may be 100,000.

        Of its rows the epoch, the objectives and the number of weights; its configurations as text.
        """
        kept = ("epoch", "params", *(objective.metric for objective in goal.objectives))
        best = {name: self.best[name] for name in kept if name in self.best}
        self.top = best if self.top is self.best else {name: self.top[name] for name in kept if name in self.top}
        self.last, self.best = {}, best
        same = self._best_config is self._config
        self._config = _fold(self._config)
        self._best_config = self._config if same else self._best_config and _fold(self._best_config)


def _fold(config: TrialConfig | bytes) -> bytes:
    """A configuration in 0.5 KB; as an object it has 6."""
    return config if isinstance(config, bytes) else zlib.compress(config.model_dump_json().encode())


def _unfold(config: TrialConfig | bytes) -> TrialConfig:
    return TrialConfig.model_validate_json(zlib.decompress(config)) if isinstance(config, bytes) else config


@dataclass(frozen=True)
class Job:
    """A stretch of a trial: train it from the first sound checkpoint of `start` (none: from the start) to `stop_at`."""

    trial: Trial
    number: int
    start: tuple[str, ...] = ()
    stop_at: int | None = None


def resolve(space: Space, parameters: Mapping[str, Any], seed: int | None) -> TrialConfig:
    """The configuration of these parameters, trained with this seed; None: with the space's."""
    config = space.resolve(lambda p: parameters[p.name])
    return config if seed is None else config.model_copy(update={"seed": seed})


def front(trials: Sequence[Trial], goal: Goal) -> list[Trial]:
    """The Pareto front: trials that no other one beats in one objective without losing in another; in their order."""
    scored = [(trial, goal.scores(trial.best)) for trial in trials if trial.best and trial.repeat_of is None]
    return [trial for trial, mine in scored if not any(beats(others, mine) for _, others in scored)]


def beats(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    """Whether these scores are better in one objective and worse in none."""
    return one != other and all(a >= b for a, b in zip(one, other, strict=True))
