"""Roster: the trials of a search, and what is asked of all of them after every result, kept while they change.

Ray's loop asks after each event whether the search is over, what is best and who runs; a walk over all trials takes
5 ms when there are 3,000 of them. The only place where trials change their state: what is counted here holds only then.
"""

from __future__ import annotations

from collections import Counter

from tuner.runner.trial import Goal, Row, Trial, beats, front
from tuner.search.sampler import State


class Roster:
    """All trials of one search.

    `trials`: by id, in the order in which they were asked for. `running`: those that a worker has. `open`: those that
    have not ended. `again`: the trial that was repeated with other seeds and its repeats. `ended`: in that order.
    `states`: how many are in each state, None: open. `searched`: how many are no repeats; `done`: those of them that
    have ended. `epochs`: of all trials.
    """

    def __init__(self, goal: Goal) -> None:
        self.trials: dict[str, Trial] = {}
        self.running: dict[str, Trial] = {}
        self.open: dict[str, Trial] = {}
        self.again: list[Trial] = []
        self.ended: list[Trial] = []
        self.states: Counter[State | None] = Counter()
        self.searched = self.done = self.epochs = 0
        self.best: Trial | None = None
        """The trial with the best epoch of all that keep to the rules, no repeat; the earlier one of two equal ones."""
        self.finished: Trial | None = None
        """The best one of those that were trained to the end."""
        self._goal = goal
        self._front: list[Trial] = []
        self._queue: dict[str, Trial] = {}
        self._alone: dict[str, Trial] = {}

    def enter(self, trial: Trial) -> None:
        """Know a trial, which is open and has no epoch."""
        trial.place = len(self.trials)
        self.trials[trial.id] = self.open[trial.id] = trial
        self.states[None] += 1
        if trial.repeat_of is None:
            self.searched += 1
        else:
            self.again = [*(self.again or [self.trials[trial.repeat_of]]), trial]

    def take(self, trial: Trial, row: Row) -> None:
        """Note an epoch of a trial."""
        self.epochs -= trial.epochs
        trial.take(row, self._goal)
        self.epochs += trial.epochs
        if trial.best is row and trial.repeat_of is None:
            self.best = self._better(trial, self.best)

    def line_up(self, trial: Trial) -> None:
        """It waits for a worker, behind the others that do; apart where it must run with nothing beside it."""
        (self._alone if trial.alone else self._queue)[trial.id] = trial

    def first(self, *, alone: bool = False) -> Trial | None:
        """Whose turn it is of those that wait."""
        return next(iter((self._alone if alone else self._queue).values()), None)

    def begin(self, trial: Trial) -> None:
        """A worker has it."""
        self._queue.pop(trial.id, None)
        self._alone.pop(trial.id, None)
        trial.running = True
        self.running[trial.id] = trial

    def rest(self, trial: Trial) -> None:
        """No worker has it."""
        trial.running = False
        self.running.pop(trial.id, None)

    def settle(self, trial: Trial, state: State, reason: str) -> None:
        """It has ended; its second ending in a state replaces the first one's reason."""
        self.rest(trial)
        self._queue.pop(trial.id, None)
        self._alone.pop(trial.id, None)
        self.states[trial.state] -= 1
        self.states[state] += 1
        first, trial.state, trial.reason = trial.state is None, state, reason
        if not first:
            return
        del self.open[trial.id]
        self.ended.append(trial)
        if trial.repeat_of is not None:
            return
        self.done += 1
        if trial.best and state == "finished":
            self.finished = self._better(trial, self.finished)
        if trial.best and len(self._goal.objectives) > 1:
            self._front = self._widen(self._front, trial)

    def settled_front(self) -> list[Trial]:
        """The Pareto front of the trials that have ended; empty where there is one objective."""
        return self._front

    def front(self) -> list[Trial]:
        """The Pareto front of all that have an epoch."""
        if len(self._goal.objectives) == 1:
            top = self.best and self._goal.scores(self.best.best)
            known = (trial for trial in self.trials.values() if trial.best and trial.repeat_of is None)
            return [trial for trial in known if self._goal.scores(trial.best) == top]
        both = sorted((*self._front, *self.open.values()), key=lambda trial: trial.place)
        return front(both, self._goal)

    def _better(self, trial: Trial, other: Trial | None) -> Trial:
        if other is None or other is trial:
            return trial
        mine, others = (self._goal.first.score(each.best) for each in (trial, other))
        return trial if mine > others or (mine == others and trial.place < other.place) else other

    def _widen(self, found: list[Trial], trial: Trial) -> list[Trial]:
        """A front with one more trial: whom it beats leaves, and it stays out if one there beats it."""
        mine = self._goal.scores(trial.best)
        scored = [(other, self._goal.scores(other.best)) for other in found]
        if any(beats(scores, mine) for _, scores in scored):
            return found
        return [*(other for other, scores in scored if not beats(mine, scores)), trial]
