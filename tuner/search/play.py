"""Recorded curves, played again in virtual time under any scheduler of a search.

Trials begin in the order in which they did, each on the first worker that is free, and each epoch takes the seconds
that it took. The schedulers are those of a search, asked as the conductor asks them. What was not recorded is not made
up: a trial that a scheduler would let go on past its record is held there, its worker freed, and counted as unknown.
"""

from __future__ import annotations

import heapq
import itertools
import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from tuner.search.rungs import Brackets
from tuner.search.schedulers import Scheduler, ToTheEnd, make_scheduler
from tuner.spec.search import Asha, Hyperband, Median, NoScheduler

Config = NoScheduler | Asha | Hyperband | Median

OVER = frozenset({"finished", "diverged", "failed", "out_of_memory"})
"""States in which a trial ended by itself: under any scheduler it would have come no further."""

TOP = 5
RIVAL = 1e300
"""A score above all others, of which hundreds can be added."""


@dataclass(frozen=True)
class Course:
    """What one trial left. A score is the metric with its sign turned so that larger is better."""

    trial: str
    scores: tuple[float, ...]
    """Of epochs 1, 2, ...; -inf where the value was not a number."""
    seconds: tuple[float, ...]
    """That each epoch took."""
    state: str
    full: int
    """Epochs of its full training."""
    counts: tuple[bool, ...] | None = None
    """Which epochs may win, as constraints are kept there; default: all."""
    to_the_end: bool = False
    """Whether no scheduler may stop it."""

    @cached_property
    def over(self) -> bool:
        """Whether its record is all that there would ever be of it."""
        return self.state in OVER or len(self.scores) >= self.full

    @cached_property
    def clock(self) -> tuple[float, ...]:
        """Seconds from its begin to the end of epoch 0, 1, ..."""
        return tuple(itertools.accumulate(self.seconds, initial=0.0))

    @cached_property
    def best(self) -> tuple[float, ...]:
        """The best score that may win after epoch 0, 1, ...; -inf while there is none."""
        counts = self.counts or [True] * len(self.scores)
        may = (score if counted else -math.inf for score, counted in zip(self.scores, counts, strict=True))
        return tuple(itertools.accumulate(may, max, initial=-math.inf))

    def reaches(self, score: float) -> int | None:
        """The first epoch at which its best is at least `score`."""
        epoch = bisect_left(self.best, score)
        return epoch if epoch < len(self.best) else None


@dataclass(frozen=True)
class Record:
    """A run's trials in order of start; `full`: epochs of the full training, `seed`: spreads trials over brackets."""

    courses: tuple[Course, ...]
    full: int
    workers: int = 1
    seed: int = 0
    ranked: tuple[str, ...] = ()
    """Trials that may win, at least one, best first; the first one is the winner."""

    @cached_property
    def races(self) -> tuple[bool, ...]:
        """Which trials a scheduler compares: those of the full length, as others are not at the same point."""
        return tuple(course.full == self.full for course in self.courses)

    @cached_property
    def epochs(self) -> int:
        """Epochs of all trials when none is stopped; those that were not recorded taken as many as planned."""
        return sum(len(c.scores) if c.over else c.full for c in self.courses)

    @cached_property
    def top(self) -> tuple[tuple[int, int], ...]:
        """Winner and next best, five at most: where each stands among `courses`, and the epoch of its best score.

        Trials that were themselves cut short are left out: nobody knows what would have become of them.
        """
        place = {course.trial: i for i, course in enumerate(self.courses)}
        first, *rest = (place[trial] for trial in self.ranked)
        best = [first, *(i for i in rest if self.courses[i].over)][:TOP]
        return tuple((i, bisect_left(self.courses[i].best, self.courses[i].best[-1])) for i in best)


@dataclass(frozen=True)
class Play:
    """How a replay went, a value a trial. `epochs`: recorded ones, trained; `began`: NaN for a trial without any."""

    epochs: tuple[int, ...]
    began: tuple[float, ...]
    stopped: tuple[bool, ...]
    unknown: tuple[bool, ...]
    """Who would have gone on past its record."""
    seconds: float

    def kept(self, record: Record) -> tuple[bool, ...]:
        """Of the best trials, who came as far as its best score; the winner first."""
        return tuple(self.epochs[i] >= epoch for i, epoch in record.top)

    def reached(self, record: Record, score: float) -> float | None:
        """Seconds until the first trial had this score; None where none came to have it."""
        found = []
        for course, epochs, began in zip(record.courses, self.epochs, self.began, strict=True):
            epoch = course.reaches(score)
            if epoch is not None and 0 < epoch <= epochs:
                found.append(began + course.clock[epoch])
        return min(found, default=None)


def play(
    record: Record,
    config: Config,
    *,
    order: Sequence[int] = (),
    rivals: bool = False,
    follow: tuple[int, int] | None = None,
) -> Play:
    """The run under another scheduler; `order`: indices of the trials as they begin, default: as they did.

    `follow`: a trial and an epoch; no further than until it is there or has ended.

    With `rivals`, who goes on past its record does so to the end, as one that beats all others: the hardest for them
    that what is not known can be. When two epochs end at once, that of the first worker is heard first.
    """
    scheduler = make_scheduler(config, full=record.full, seed=record.seed)
    courses, count = record.courses, len(record.courses)
    epochs, began, clock = [0] * count, [math.nan] * count, 0.0
    stopped, unknown = [False] * count, [False] * count
    rungs: list[Sequence[int]] = [()] * count
    queue = iter([i for i in order or range(count) if courses[i].scores])
    busy: list[tuple[float, int, int, int]] = []  # end of the epoch, worker, trial, epoch

    def train(worker: int, trial: int, epoch: int) -> None:
        """To the next epoch at which something is decided."""
        course, after = courses[trial], rungs[trial]
        rung = bisect_right(after, epoch)
        known = len(course.scores)
        until = known if epoch < known else course.full
        until = min(until, after[rung]) if rung < len(after) else until
        beyond = max(0, until - known) * course.clock[-1] / known
        heapq.heappush(busy, (began[trial] + course.clock[min(until, known)] + beyond, worker, trial, until))

    def begin(worker: int) -> None:
        if (trial := next(queue, None)) is not None:
            began[trial] = clock
            rungs[trial] = _rungs(scheduler, courses[trial].trial, record.full) if record.races[trial] else ()
            train(worker, trial, 0)

    for worker in range(record.workers):
        begin(worker)
    while busy:
        clock, worker, trial, epoch = heapq.heappop(busy)
        course = courses[trial]
        known = len(course.scores)
        epochs[trial] = min(epoch, known)
        stop = False
        if record.races[trial]:
            score = course.scores[epoch - 1] if epoch <= known else RIVAL
            stop = scheduler.judge(course.trial, epoch, score).stop and not course.to_the_end
        ends = epoch >= course.full or (epoch >= known and course.over)
        stopped[trial] = stop and not ends
        if epoch >= known and not ends and not stop:
            unknown[trial] = True
            ends = not rivals
        if follow and trial == follow[0] and (ends or stop or epoch >= follow[1]):
            break
        if ends or stop:
            begin(worker)
        else:
            train(worker, trial, epoch)
    return Play(tuple(epochs), tuple(began), tuple(stopped), tuple(unknown), clock)


def _rungs(scheduler: Scheduler, trial: str, full: int) -> Sequence[int]:
    """Epochs at which a scheduler may stop a trial; the others need not be asked for."""
    if isinstance(scheduler, ToTheEnd):
        return ()
    if isinstance(scheduler, Brackets):
        return scheduler.brackets[scheduler.bracket(trial)].milestones()
    return range(1, full)
