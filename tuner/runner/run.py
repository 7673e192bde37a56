"""A run from plan to outcome: the sampler and conductor built, or rebuilt from the run folder; the search; its end."""

from __future__ import annotations

import contextlib
import shlex
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tuner.errors import HypertuneError
from tuner.records.reader import Record
from tuner.records.writer import RunFolder, now
from tuner.runner import local
from tuner.runner.about import describe
from tuner.runner.conductor import LOST, Conductor
from tuner.runner.drive import Stage
from tuner.runner.plan import Plan
from tuner.runner.replay import Replayed, replay
from tuner.runner.signals import Signals
from tuner.runner.trial import Goal
from tuner.runner.until import Enough, Until, least_trials
from tuner.search.sampler import Sampler
from tuner.search.transfer import Knowledge
from tuner.spec.search import Grid


@dataclass(frozen=True)
class Outcome:
    """How a run ended. `signal` is the number of the signal that ended it, 0 for none; `broken`: an error did.

    `seconds` are those of all sessions of the run together.
    """

    path: Path
    conductor: Conductor
    seconds: float
    signal: int = 0
    broken: bool = False

    @property
    def status(self) -> str:
        """The word in run.json."""
        if self.signal:
            return "interrupted"
        return "failed" if self.broken or not self.trusted else "finished"

    @property
    def trusted(self) -> bool:
        """Whether a trial gave a result and no more failed than `search.max_failed` allows."""
        counts, trials = self.conductor.counts(), len(self.conductor.trials)
        lost = sum(counts[state] for state in LOST)
        good = counts["finished"] + counts["stopped"] + counts["interrupted"]
        return good > 0 and lost <= self.conductor.search.max_failed * trials


class Screen(Protocol):
    """Who shows the search."""

    def watch(self, conductor: Conductor) -> None:
        """Show its state; called about ten times a second."""

    def note(self, text: str) -> None:
        """Say something that is worth knowing."""

    def leave(self, text: str) -> None:
        """Give the terminal back at once, with this text as the last word; may be called in a signal handler."""


@dataclass(frozen=True)
class Before:
    """What a run goes on from: its folder as read, the seconds it has taken, whether its space was changed."""

    record: Record
    spent: float
    changed: bool = False


@dataclass(frozen=True)
class How:
    """How a run is gone about.

    enough: what `search.until` goes by. before: what it goes on from. known: what earlier runs know. ground: searches
    on a stage; None: with a Ray of its own on this machine. flags: what the command that goes on with it needs. store:
    address of the run's copy in an object store.
    """

    enough: Enough | None = None
    before: Before | None = None
    known: Knowledge | None = None
    ground: Callable[[Stage], None] | None = None
    flags: str = ""
    store: str = ""


def make_until(enough: Enough | None, plan: Plan) -> Until | None:
    """What ends the search where no further trial is worth it; None where that was not asked for."""
    search = plan.space.fixed.search
    if enough is None or search.until is None:
        return None
    return Until(enough, Goal(search.objectives, search.rules), least_trials(plan.sampler), plan.facts.validation)


def run(plan: Plan, folder: RunFolder, screen: Screen, how: How | None = None) -> Outcome:
    """Search, writing into `folder`; Ray's own output goes to its ray.log.

    Raises:
        HypertuneError: the search could not go on; what was done is kept.
    """
    how = how or How()
    before, known = how.before, how.known
    space, start = plan.space, time.monotonic()
    spent = before.spent if before else 0.0
    budget = space.fixed.search.seconds
    conductor = Conductor(
        space,
        Sampler(space, plan.count, plan.sampler),
        folder,
        trials=plan.trials,
        full=plan.full,
        seconds=None if budget is None else max(0.0, budget - spent),
        until=make_until(how.enough, plan),
    )
    found = replay(conductor, before.record, space, changed=before.changed) if before else Replayed()
    if before:  # what does not lie in the space any more is none of its combinations
        unfit = sum(not trial.fits for trial in conductor.searched)
        grid = isinstance(plan.sampler, Grid)
        conductor.wanted = plan.trials + unfit if grid else max(plan.trials, space.fixed.search.trials)
    if before and conductor.complete and not before.changed and before.record.run.get("status") == "finished":
        why, more = f"all of its {len(conductor.trials)} trials have ended", "--trials +20"
        if conductor.enough:
            why, more = conductor.enough, "--set search.until=null"
        screen.note(f"{why}; to go on: {more}")
        return Outcome(folder.path, conductor, spent)  # nothing to do, nothing to write
    if before and before.changed:  # first: a crash after it finds old trials marked as such, whatever space there is
        folder.write_event("space_changed", dropped=found.dropped)
    if known:  # all at once, and before there is a run: what goes on from here knows all of it
        metrics = [objective.metric for objective in space.fixed.search.objectives]
        folder.write_events("learned", [{**item.as_dict(), "metrics": metrics} for item in known.trials])
        for item in known.trials:
            conductor.sampler.learn(item.parameters, item.told)
    folder.write_space(space.text, space.to_json())
    told = describe(plan, folder.path.name)
    if before:
        told = {**told, "created": before.record.run.get("created", told["created"])}
    folder.write_run(**told, status="running", ended=None, seconds=spent)
    command = shlex.join(sys.argv)
    for text in found.texts():
        screen.note(text)
    if before:
        for name in found.left_out:
            conductor.end(conductor.trials[name], "stopped", conductor.trials[name].reason)
        asked = {"trials": plan.trials, "time_budget": budget}
        if asked != {key: before.record.run.get(key) for key in asked}:
            folder.write_event("extended", **asked)
        folder.write_event("resumed", command_line=command, unfinished=found.unfinished)
    else:
        folder.write_event("run_started", command_line=command)

    def end(reason: str, number: int, broken: bool) -> Outcome:
        conductor.interrupt(reason or "the search ended")
        outcome = Outcome(folder.path, conductor, spent + time.monotonic() - start, number, broken)
        folder.write_event("run_ended", status=outcome.status, reason=reason)
        folder.write_run(
            status=outcome.status, ended=now(), seconds=round(outcome.seconds, 3), counts=conductor.counts()
        )
        return outcome

    def end_now(reason: str) -> None:
        """A second signal."""
        with contextlib.suppress(HypertuneError):
            end(reason, signals.caught[-1], False)
        screen.leave("stopped at once")

    def last_word(error: Exception) -> None:
        """The loop hangs in a call to what is no more."""
        with contextlib.suppress(HypertuneError):
            end(str(error), 0, True)
        screen.leave(str(error))

    with Signals() as signals:
        signals.at_once = end_now
        try:
            if not conductor.over:
                stage = Stage(plan, folder.path, conductor, screen.watch, signals, last_word, screen.note, how.store)
                (how.ground or local.search)(stage)
        except BaseException as error:
            with contextlib.suppress(HypertuneError):  # a disk that is full stays full
                end(str(error) or type(error).__name__, 0, True)
            raise
        number = signals.caught[0] if signals.caught and not conductor.complete else 0
        return end(signal.Signals(number).name if number else conductor.ending, number, False)
