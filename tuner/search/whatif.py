"""What another scheduler would have done: what it would have spent, and whether the winner would still be there."""

from __future__ import annotations

import math
import random
import statistics
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from tuner.search.play import Config, Play, Record, play
from tuner.spec.search import Asha, Hyperband, Median, NoScheduler

ORDERS = 20
"""Random orders of the trials, from fixed seeds, in which a setting must keep the winner."""

ENOUGH = 10
"""Trials that a scheduler may stop, from which on one is recommended."""

SLOW = 10**7
"""Epochs times the epochs of a full training, from which on the median rule, which hears them all, takes minutes."""


@dataclass(frozen=True)
class Outcome:
    """A scheduler on a record. Pairs are (at least, at most), equal where all that it would have done was recorded.

    Between them lies what would be if those who go on past their record gave way at once, or beat all others.
    """

    config: Config
    epochs: tuple[int, int]
    seconds: float
    """At least, where something is unknown."""
    best: float
    """Best score that was recorded and that it would have seen."""
    top: tuple[int, int]
    """How many of the best five it would have trained to their best epoch."""
    winner: bool | None
    """Whether it would have kept the recorded winner; None: that depends on what was not recorded."""
    agreement: float | None
    """Spearman's correlation of the ranking that it leaves with the final one, over trials recorded to the end."""
    stopped: int
    unknown: int
    to_best: float | None
    """Seconds until the best score of all was there; None: never."""
    to_99: float | None
    """The same for one within 1% of its value."""
    orders: tuple[int, int] | None = None
    """In how many of the random orders of the trials the winner is kept; None: not played."""


@dataclass(frozen=True)
class Answer:
    """`recorded`: what was done; `own`: how many trials end as they did, replayed under the run's own scheduler."""

    record: Record
    recorded: Outcome
    own: int | None
    outcomes: tuple[Outcome, ...]

    @cached_property
    def compared(self) -> int:
        """How many trials could have been stopped."""
        pairs = zip(self.record.courses, self.record.races, strict=True)
        return sum(races and bool(course.scores) and not course.to_the_end for course, races in pairs)

    @cached_property
    def advice(self) -> Outcome | None:
        """The cheapest that the record supports, cheaper than what was done; None where it cannot tell."""
        if self.compared < ENOUGH:
            return None
        of = len(self.record.top)
        good = [o for o in self.outcomes if supported(o, of) and o.epochs[1] < self.recorded.epochs[1]]
        return min(good, key=lambda o: o.epochs[1], default=None)


def supported(outcome: Outcome, of: int, *, perhaps: bool = False) -> bool:
    """Whether the winner and most of the `of` best are kept, the winner in 19 of 20 other orders of the trials too.

    For certain; or `perhaps`, if what was not recorded had gone well.
    """
    bound = 1 if perhaps else 0
    kept = outcome.winner is not False if perhaps else outcome.winner is True
    return kept and outcome.top[bound] >= most(of) and (outcome.orders or (0, 0))[bound] >= 0.95 * ORDERS


def most(of: int) -> int:
    """Three of five."""
    return (of + 1) // 2


def weigh(record: Record, config: Config) -> Outcome:
    """Play a record under a scheduler, once or, where something is unknown, also with the unknown ones as rivals."""
    told = play(record, config)
    plays = [told, play(record, config, rivals=True)] if any(told.unknown) else [told]
    kept = [p.kept(record) for p in plays]
    winner = {k[0] for k in kept}
    best = max((c.best[e] for c, e in zip(record.courses, told.epochs, strict=True)), default=-math.inf)
    top = max((c.best[-1] for c in record.courses), default=-math.inf)
    return Outcome(
        config=config,
        epochs=(
            min(sum(p.epochs) + sum(p.unknown) for p in plays),
            max(sum(p.epochs) + _missing(record, p) for p in plays),
        ),
        seconds=told.seconds,
        best=best,
        top=(min(map(sum, kept)), max(map(sum, kept))),
        winner=winner.pop() if len(winner) == 1 else None,
        agreement=_agreement(record, told),
        stopped=sum(told.stopped),
        unknown=sum(told.unknown),
        to_best=told.reached(record, top),
        to_99=told.reached(record, top - 0.01 * abs(top)),
    )


def in_orders(record: Record, config: Config) -> tuple[int, int]:
    """In how many random orders of the trials the winner is kept: with all that is unknown as rivals, and without."""
    if isinstance(config, NoScheduler):
        return ORDERS, ORDERS
    least, at_most = 0, 0
    winner = record.top[0]
    for seed in range(ORDERS):
        order = list(range(len(record.courses)))
        random.Random(seed).shuffle(order)
        told = play(record, config, order=order, follow=winner)
        hard = play(record, config, order=order, rivals=True, follow=winner) if any(told.unknown) else told
        kept = [played.kept(record)[0] for played in (told, hard)]
        least, at_most = least + all(kept), at_most + any(kept)
    return least, at_most


def compare(
    record: Record,
    configs: Sequence[Config],
    own: Config | None = None,
    tell: Callable[[int, int], None] = lambda done, of_all: None,
) -> Answer:
    """What each of `configs` would have done; `own`: that of the run; `tell` hears (done, of all)."""
    outcomes = []
    for done, config in enumerate(configs):
        tell(done, len(configs))
        outcomes.append(replace(weigh(record, config), orders=in_orders(record, config)))
    tell(len(configs), len(configs))
    same = None
    if own is not None and not (isinstance(own, Median) and slow(record)):
        again = play(record, own)
        same = sum(
            epochs == len(course.scores) and stopped == (course.state == "stopped")
            for course, epochs, stopped in zip(record.courses, again.epochs, again.stopped, strict=True)
        )
    spent = sum(len(course.scores) for course in record.courses)
    halted = sum(course.state == "stopped" for course in record.courses)
    recorded = replace(weigh(record, NoScheduler()), epochs=(spent, spent), stopped=halted, unknown=0)
    return Answer(record, recorded, same, tuple(outcomes))


def settings(record: Record, own: Config | None = None) -> list[Config]:
    """Schedulers worth a look, the run's own among them; no median rule where it would take minutes."""
    full = record.full
    graces = [1, *(g for g in (2, 3) if 3 * g <= full), *[g for g in (5, 10, 20, 50, 100) if 3 * g <= full][-1:]]
    found: list[Config] = [NoScheduler()]
    found += [Asha(grace=grace, factor=factor) for grace in graces for factor in (2, 3, 4)]
    found += [Hyperband(), *(Median(grace=grace) for grace in dict.fromkeys((1, graces[-1])))]
    found = found if own is None or own in found else [found[0], own, *found[1:]]
    return [config for config in found if not (slow(record) and isinstance(config, Median))]


def slow(record: Record) -> bool:
    """Whether the median rule would take minutes."""
    return record.epochs * record.full > SLOW


def name(config: Config) -> str:
    """A scheduler with what it was given: `asha(grace 1, factor 3)`."""
    said = config.model_dump(exclude={"name"})
    inner = ", ".join(f"{key} {value}" for key, value in said.items() if (key, value) != ("brackets", 1))
    return f"{config.name}({inner})" if inner else config.name


def _missing(record: Record, told: Play) -> int:
    """Epochs that those would have had at most who went on past their records."""
    ended = zip(record.courses, told.epochs, told.unknown, strict=True)
    return sum(course.full - epochs for course, epochs, unknown in ended if unknown)


def _agreement(record: Record, told: Play) -> float | None:
    """Longer trained is better, among equally long ones the better score; None below three trials or all alike."""
    pairs = zip(record.courses, told.epochs, strict=True)
    rows = [(c, e) for c, e in pairs if c.state == "finished" and c.best[-1] > -math.inf]
    ours, theirs = [(min(e / len(c.scores), 1.0), c.best[e]) for c, e in rows], [(c.best[-1],) for c, _ in rows]
    if len(rows) < 3 or len(set(theirs)) == 1 or len(set(ours)) == 1:
        return None
    return statistics.correlation(_ranks(ours), _ranks(theirs))


def _ranks(keys: Sequence[tuple[float, ...]]) -> list[float]:
    """Places from the smallest, equal ones in the middle of theirs."""
    ordered = sorted(keys)
    return [(bisect_left(ordered, key) + bisect_right(ordered, key)) / 2 for key in keys]
