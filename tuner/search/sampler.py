"""Sampler: which configuration next. An Optuna study, asked define-by-run, told how each trial really ended.

Optuna is fed what other tools get wrong: a trial stopped early is told PRUNED with its intermediate values, never as if
it had finished, a diverged one and one that ran out of memory PRUNED without a value (TPE ignores FAIL and would go
there again), a finished one with its best epoch.
"""

from __future__ import annotations

import itertools
import json
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from tuner.errors import Infeasible, SearchFailed
from tuner.search import grid, history
from tuner.search.history import State, Told
from tuner.search.preflight import CountModel, Size, resolve
from tuner.search.samplers import (
    HANDOVER,
    SAMPLERS,
    STATEFUL,
    Quasi,
    Question,
    always,
    distributions,
    hand_on,
    recent,
    suggest,
)
from tuner.spec.distributions import Plain
from tuner.spec.search import AnySampler, CmaEs, Gp, Grid, Qmc, Tpe
from tuner.spec.space import Parameter, Space, Start
from tuner.spec.trial_config import TrialConfig

__all__ = ["Proposal", "Sampler", "State", "Told"]

USUAL, BY_CHANCE = 20, 500
"""Proposals of the sampler, then of pure chance, that may be impossible to build or known before it gives up."""

USUAL_GP = 3
"""The same of gp, which takes up to a second for each and says much the same again."""


@dataclass(frozen=True)
class Proposal:
    """A configuration to train. `number` counts accepted proposals from 0; `refused`: what the model proposed before
    and cannot be trained, by parameters, which it must hear of again when it is rebuilt.
    """

    number: int
    parameters: Mapping[str, Plain]
    config: TrialConfig
    size: Size
    label: str | None = None
    to_the_end: bool = False
    refused: tuple[Mapping[str, Plain], ...] = ()


class Sampler:
    """Proposes configurations of a space and learns from their results.

    `count` refuses configurations that cannot be built or break a counted constraint; those are never spent a trial on.
    Nor is a configuration that was proposed before: with one training seed it would give the same curve again.
    Starting points are exempt.
    """

    def __init__(self, space: Space, count: CountModel, config: AnySampler) -> None:
        self._space = space
        self.count = count
        self._config = config
        self._objectives = space.fixed.search.objectives
        self._rules = [str(rule) for rule in space.fixed.search.rules if not rule.counted]
        self._kinds = distributions(space)
        self._always = always(space)
        self._history = history.History(self._objectives)
        self._open: dict[int, tuple[int, int]] = {}  # number -> place in the history, place in the model
        self._known: set[int] = set()
        self._refused: list[Mapping[str, Plain]] = []
        self._rows: dict[int, tuple[float, ...]] = {}  # of the model's trials
        self._impossible = 0
        self._fitted = 0
        self._starts = list(space.starts)
        self._asked = 0
        self._model = self._new_model()
        self._quasi = Quasi(space, config) if isinstance(config, Qmc) else None
        self._small = (grid.count(space) or grid.LARGEST + 1) <= grid.LARGEST
        self._left = grid.points(space) if self._small or isinstance(config, Grid) else iter(())

    @property
    def study(self) -> optuna.Study:
        """Everything that was told, as an Optuna study of its own; what is open is RUNNING."""
        study = self._new_model()
        study.add_trials([self._frozen(given, told) for given, told in self._history.records])
        return study

    @property
    def acceptance(self) -> float:
        """Share of what was proposed that can be built and keeps the counted constraints."""
        return self._asked / (self._asked + self._impossible) if self._asked else 1.0

    @property
    def fitted(self) -> int:
        """Trials that the model is fitted on, with what it must keep away from."""
        return self._fitted

    def ask(self) -> Proposal | None:
        """The next configuration; None when there is none left.

        Raises:
            SearchFailed: no configuration, or none with a starting point's values, was found that can be trained.
        """
        self._thin()
        start = self._starts.pop(0) if self._starts else None
        reason, failed = "", 0
        refused: list[Mapping[str, Plain]] = []
        for attempt, propose in enumerate(self._ways(start)):
            parameters: dict[str, Plain] = {}
            try:
                config, size, place = propose(attempt, parameters, start is not None)
            except Infeasible as error:
                reason, failed = str(error), failed + 1
                self._impossible += 1
                if attempt < USUAL and isinstance(self._config, Tpe):
                    self._refuse(parameters)
                    refused.append(parameters)
                continue
            except _Known:
                continue
            number = self._admit(parameters, place)
            label, to_the_end = (start.label, start.to_the_end) if start else (None, False)
            return Proposal(number, parameters, config, size, label, to_the_end, tuple(refused))
        if reason and (start or not self._small or not self._known):
            what = f"starting point {start.label}" if start else f"{failed} configurations in a row"
            raise SearchFailed(f"{what} could not be trained, the last time because {reason}")
        return None

    def readmit(
        self,
        number: int,
        parameters: Mapping[str, Plain],
        *,
        label: str | None = None,
        refused: tuple[Mapping[str, Plain], ...] = (),
    ) -> None:
        """Take an earlier proposal up again, as a run folder recorded it; in the recorded order, between the tells."""
        self._thin()
        starting = bool(label) and any(start.label == label for start in self._starts)
        if self._config.name in STATEFUL:
            again = self.ask()  # the same question gets the same answer
            if again and again.parameters == dict(parameters):
                return
            if again:  # another version answers otherwise
                self._forget(again)
        elif starting:
            self._starts = [start for start in self._starts if start.label != label]
        elif self._quasi:
            self._skip_to(parameters)
        for impossible in refused:
            self._refuse(impossible)
            self._impossible += 1
        self._asked = number
        self._admit(parameters, None)

    def tell(self, number: int, told: Told) -> None:
        """Close a trial."""
        record, place = self._open.pop(number)
        sound = told.sound(len(self._objectives), self._rules)
        self._history.tell(record, sound)
        self._close(place, self._told_model(sound))

    def avoid(self, parameters: Mapping[str, Plain]) -> None:
        """Never propose this configuration: a trial from before the space changed has it."""
        self._known.add(_key(parameters))

    def learn(self, parameters: Mapping[str, Plain], told: Told) -> None:
        """Know a trial that was not proposed here: of another run, or of this one before its space changed."""
        sound = told.sound(len(self._objectives), self._rules)
        self._history.enter(dict(parameters), sound)
        self._fitted += 1
        self._model.add_trial(self._frozen(parameters, self._told_model(sound)))

    # ------------------------------------------------------------ proposing

    def _ways(self, start: Start | None) -> Iterator[Callable[..., tuple[TrialConfig, Size, int | None]]]:
        """How to propose in each attempt."""
        if start:
            yield from itertools.repeat(lambda *given: self._ask(*given, fixed=start.fixed), USUAL)
        elif isinstance(self._config, Grid):
            yield from (self._point_way(point) for point in self._left)
        else:
            usual = self._ask_quasi if self._quasi else self._ask
            yield from itertools.repeat(usual, USUAL_GP if isinstance(self._config, Gp) else USUAL)
            if self._small:  # a sampler that keeps coming back to what is known: take whatever is left, in order
                yield from (self._point_way(point) for point in self._left)
            else:
                yield from itertools.repeat(lambda *given: self._ask(*given, usual=False), BY_CHANCE)

    def _ask(
        self,
        attempt: int,
        parameters: dict[str, Plain],
        again: bool,
        *,
        fixed: Mapping[str, Plain] | None = None,
        usual: bool = True,
    ) -> tuple[TrialConfig, Size, int | None]:
        """Let Optuna propose."""
        with quiet():
            self._model.sampler = self._sampler(attempt, usual)
            if fixed:
                self._model.enqueue_trial(dict(fixed))
            trial = self._model.ask()
            try:
                config, size = self._check(lambda parameter: suggest(trial, parameter), parameters, again)
            except (Infeasible, _Known):
                self._model.tell(trial, state=TrialState.FAIL)  # leaves no trace in the model
                raise
            if self._config.name in STATEFUL:
                return config, size, trial.number
            # Entered anew, as a rebuilt one is: TPE notes in a running trial what it drew for branches not taken, and
            # would learn from it.
            self._model.tell(trial, state=TrialState.FAIL)
        return config, size, None

    def _ask_quasi(
        self, attempt: int, parameters: dict[str, Plain], again: bool
    ) -> tuple[TrialConfig, Size, int | None]:
        assert self._quasi is not None
        return (*self._check(self._quasi.next(), parameters, again), None)

    def _point_way(self, point: Mapping[str, Plain]) -> Callable[..., tuple[TrialConfig, Size, int | None]]:
        def take(attempt: int, parameters: dict[str, Plain], again: bool) -> tuple[TrialConfig, Size, int | None]:
            if _key(point) in self._known:  # told before anything is built
                raise _Known
            return (*self._check(lambda parameter: point[parameter.name], parameters, again), None)

        return take

    def _check(
        self, choose: Callable[[Parameter], Plain], parameters: dict[str, Plain], again: bool
    ) -> tuple[TrialConfig, Size]:
        def note(parameter: Parameter) -> Plain:
            value = parameters[parameter.name] = choose(parameter)
            return value

        config = resolve(self._space, note)
        size = self.count(config)
        if _key(parameters) in self._known and not again:
            raise _Known
        return config, size

    def _sampler(self, attempt: int, usual: bool) -> optuna.samplers.BaseSampler:
        seed = zlib.crc32(f"{self._space.fixed.seed}/{self._asked}/{attempt}".encode())
        config = self._config
        if isinstance(config, Gp) and self._history.finished >= HANDOVER:
            config = Tpe()
        name = config.name if usual and config.name in SAMPLERS else "random"
        return SAMPLERS[name](config, Question(seed, len(self._refused), self._always, tuple(self._kinds), self._rows))

    def _skip_to(self, parameters: Mapping[str, Plain]) -> None:
        """Move the quasi-random points behind the one that gave these parameters."""
        assert self._quasi is not None
        for _ in range(USUAL):
            point: dict[str, Plain] = {}
            try:
                self._check(self._quasi.next(), point, True)
            except Infeasible:
                continue
            if point == dict(parameters):
                return

    # ------------------------------------------------------------ what the model knows

    def _new_model(self) -> optuna.Study:
        with quiet():
            modes = [o.mode for o in self._objectives]
            return optuna.create_study(directions=["maximize" if mode == "max" else "minimize" for mode in modes])

    def _admit(self, parameters: Mapping[str, Plain], place: int | None) -> int:
        """Open a trial; `place`: where it is in the model already."""
        if place is None:
            self._model.add_trial(self._frozen(parameters, None))
            place = len(self._model.get_trials(deepcopy=False)) - 1
        self._fitted += 1
        number = self._asked
        self._open[number] = (self._history.enter(parameters), place)
        self._known.add(_key(parameters))
        self._asked += 1
        return number

    def _forget(self, proposal: Proposal) -> None:
        _, place = self._open.pop(proposal.number)
        self._history.forget()
        self._known.discard(_key(proposal.parameters))
        self._model.tell(place, state=TrialState.FAIL)
        self._fitted -= 1

    def _refuse(self, parameters: Mapping[str, Plain]) -> None:
        """Let the model keep away from what cannot be trained; it is no trial and has no value."""
        self._refused.append(dict(parameters))
        self._fitted += 1
        self._model.add_trial(self._frozen(parameters, Told("diverged")))

    def _close(self, place: int, told: Told) -> None:
        frozen = self._model.get_trials(deepcopy=False)[place]
        trial = optuna.trial.Trial(self._model, frozen._trial_id)
        state, values = self._outcome(told)
        for key, value in told.excess.items():
            trial.set_constraint(key, value)
        with quiet():
            if len(self._objectives) == 1:
                for epoch, value in sorted(told.curve.items()):
                    trial.report(value, epoch)
            self._model.tell(place, values, state=state)

    def _outcome(self, told: Told) -> tuple[TrialState, list[float] | None]:
        if told.complete:
            return TrialState.COMPLETE, list(told.values)
        return (TrialState.FAIL if told.state == "failed" else TrialState.PRUNED), None

    def _told_model(self, sound: Told) -> Told:
        """The same as the model can use it: CMA-ES knows no rules, so what breaks one is no part of a generation."""
        if isinstance(self._config, CmaEs):
            return Told("diverged") if sound.violation else replace(sound, excess={})
        return sound

    def _frozen(self, parameters: Mapping[str, Plain], told: Told | None) -> FrozenTrial:
        given = dict(parameters)
        kinds = {name: self._kinds[name] for name in given}
        if told is None:
            return create_trial(state=TrialState.RUNNING, params=given, distributions=kinds)
        state, values = self._outcome(told)
        curve = dict(sorted(told.curve.items())) if len(self._objectives) == 1 else {}
        if state == TrialState.PRUNED and curve:
            values = [curve[max(curve)]]  # as Optuna's tell does
        return create_trial(
            state=state,
            values=values,
            params=given,
            distributions=kinds,
            intermediate_values=curve,
            constraints=dict(told.excess) or None,
        )

    def _thin(self) -> None:
        """Fit on fewer trials when there are many."""
        if self._config.name in STATEFUL:
            self._shorten()
            return
        if self._fitted - len(self._open) < 2 * history.FITTED:
            return
        kept = self._history.thin()
        self._refused = self._refused[-history.GOOD :]
        self._model, self._rows = self._new_model(), {}
        self._model.add_trials([self._frozen(p, Told("diverged")) for p in self._refused])
        entered = [self._history.records[place] for place in kept]
        self._model.add_trials([self._frozen(p, told and self._told_model(told)) for p, told in entered])
        self._fitted = len(self._refused) + len(kept)
        places = {record: len(self._refused) + place for place, record in enumerate(kept)}
        self._open = {number: (record, places[record]) for number, (record, _) in self._open.items()}

    def _shorten(self) -> None:
        """Let a sampler that works in generations forget those that it does not look at any more."""
        most = max(history.FITTED, 4 * (getattr(self._config, "population", None) or 0))
        if self._fitted - len(self._open) < 2 * most:
            return
        kept, old = recent(self._model, most), self._model
        self._model = self._new_model()
        self._model.add_trials(kept)
        numbers = {trial.number: place for place, trial in enumerate(kept)}
        hand_on(old, self._model, numbers)
        self._open = {number: (record, numbers[place]) for number, (record, place) in self._open.items()}
        self._fitted = len(kept)


class _Known(Exception):
    """The configuration was proposed before."""


def _key(parameters: Mapping[str, Plain]) -> int:
    """64 bits of them: as text they would take 40 MB for 100,000 trials, of which two collide in one search of 10^9."""
    return hash(json.dumps(dict(parameters), sort_keys=True))


def quiet() -> Any:
    """Optuna's warnings that experimental options are experimental, off within this block."""
    if optuna.logging.get_verbosity() != optuna.logging.ERROR:  # to set it walks over every logger that there is
        optuna.logging.set_verbosity(optuna.logging.ERROR)
    return warnings.catch_warnings(action="ignore", category=optuna.exceptions.ExperimentalWarning)
