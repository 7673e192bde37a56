"""Rounds: a population's comparisons, played: who goes on from whose weights, on disk before the trial goes on."""

from __future__ import annotations

from collections.abc import Mapping

from tuner.errors import Infeasible
from tuner.records.writer import RunFolder
from tuner.runner.trial import Trial, resolve
from tuner.runner.weights import Weights
from tuner.search.population import Exploit, Population
from tuner.search.sampler import Sampler
from tuner.spec.space import Space


class Rounds:
    """The rounds of one population."""

    def __init__(
        self, population: Population, space: Space, sampler: Sampler, folder: RunFolder, weights: Weights
    ) -> None:
        self._population = population
        self._space = space
        self._sampler = sampler
        self._folder = folder
        self._weights = weights

    def decide(self, trials: Mapping[str, Trial]) -> list[Trial]:
        """Who goes on, changed where the round says so; empty as long as not all have arrived."""
        if (changes := self._population.decide()) is None:
            return []
        for exploit in changes:
            self._change(trials[exploit.trial], trials[exploit.source], exploit)
        return [trials[member] for member in self._population.release()]

    def _change(self, trial: Trial, source: Trial, exploit: Exploit) -> None:
        """Let a trial go on from another one's weights with other parameters; written down before it does.

        It stays as it is where the other's weights are gone, or what was drawn breaks a rule.
        """
        if trial.changed == exploit.epoch:  # decided before a crash
            return
        config = resolve(self._space, exploit.parameters, trial.config.seed)
        try:
            size = self._sampler.count(config)
        except Infeasible:
            return
        if not self._weights.give(source, trial, exploit.epoch):
            return
        self._folder.write_event(
            "mutated",
            trial=trial.id,
            epoch=exploit.epoch,
            source=source.id,
            parameters=dict(exploit.parameters),
            size=size.as_dict(),
            reason=exploit.reason,
        )
        trial.mutate(exploit.parameters, config, size, exploit.epoch)
        self._population.change(trial.id, exploit.parameters)
        self._weights.forget_given(trial)
