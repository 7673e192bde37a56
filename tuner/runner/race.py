"""Race: what scheduler and population say of an epoch: whether its trial goes on, stops, or waits for the others."""

from __future__ import annotations

import math

from tuner.runner.trial import Goal, Row, Trial
from tuner.search.population import Population
from tuner.search.sampler import State
from tuner.search.schedulers import make_scheduler
from tuner.spec.search import Pbt
from tuner.spec.space import Space


class Race:
    """The comparisons of one search of `trials` trials at most, of `full` epochs each."""

    def __init__(self, space: Space, goal: Goal, *, trials: int, full: int) -> None:
        config = space.fixed.search.scheduler
        self.population = (
            Population(space, config, size=trials, full=full, seed=space.fixed.seed)
            if isinstance(config, Pbt)
            else None
        )
        self._goal = goal
        self._full = full
        self._every = config.every if isinstance(config, Pbt) else None
        self._scheduler = make_scheduler(config, full=full, seed=space.fixed.seed)

    def enter(self, trial: Trial) -> None:
        """A trial begins."""
        if self.population and self._races(trial):
            self.population.join(trial.id, trial.parameters)

    def judge(self, trial: Trial, row: Row) -> tuple[State | None, str, bool]:
        """The outcome of a trial with this row, the reason, and whether it waits for its population."""
        score, broken = self._goal.first.score(row), self._goal.broken(row)
        stop, why = False, ""
        if self._races(trial):
            verdict = self._scheduler.judge(trial.id, trial.epochs, -math.inf if broken else score)
            stop, why = verdict.stop and not trial.to_the_end, verdict.reason
        if broken:
            return "diverged", f"{broken} is not a number", False
        if trial.epochs >= trial.full:
            return "finished", "all epochs done", False
        if row.get("ends"):
            return "finished", str(row["ends"]), False
        if stop:
            return "stopped", why, False
        if self.population is None or not self._races(trial):
            return None, "", False
        return None, "", self.population.enter(trial.id, trial.epochs, score)

    def judge_again(self, trial: Trial, row: Row) -> tuple[State, str] | None:
        """Hear an epoch that was judged before a crash; the outcome that was written down with it, if any."""
        if self.waits(trial) and self.population:
            self.population.release()  # it went on, so the round was over
        state, reason, _ = self.judge(trial, row)
        return (state, reason) if state and row.get("decision") == "stop" else None

    def waits(self, trial: Trial) -> bool:
        """Whether it waits for its population."""
        return self.population is not None and trial.id in self.population.waiting

    def leave(self, trial: Trial) -> None:
        """It has ended."""
        if self.population:
            self.population.leave(trial.id)

    def stop_at(self, trial: Trial) -> int | None:
        """The epoch at which its next job ends to wait for the others; None: none but the last."""
        if self._every is None or not self._races(trial):
            return None
        return min(trial.full, (trial.epochs // self._every + 1) * self._every)

    def _races(self, trial: Trial) -> bool:
        """Whether it is compared with others at the same epochs: no repeat, and no other length of training."""
        return trial.repeat_of is None and trial.full == self._full
