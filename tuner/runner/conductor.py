"""Conductor: the search without Ray. Hands out configurations, hears every epoch, decides, and writes it all down.

Everything that a trial reports goes through `hear`, in this order: study and rungs, the line on disk, the outcome. The
line carries the decision, so that what was decided can never be on one side of a crash and what was seen on the other.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tuner.errors import SearchFailed
from tuner.records.writer import RunFolder
from tuner.search.rungs import Rungs
from tuner.search.sampler import Proposal, Sampler, State
from tuner.spec.space import Space
from tuner.spec.trial_config import Asha

Row = Mapping[str, Any]

LOSSES = ("train_loss", "val_loss")
"""A trial with one of them not finite has diverged, whatever its accuracy."""


@dataclass
class Trial:
    """A trial as the driver sees it."""

    id: str
    proposal: Proposal
    epochs: int = 0
    last: Row = field(default_factory=dict)
    best: Row = field(default_factory=dict)
    seconds: float = 0.0
    state: State | None = None
    reason: str = ""

    @property
    def full(self) -> int:
        """Epochs of a full training."""
        return self.proposal.config.train.epochs


class Conductor:
    """Runs one search over `folder`; `trials` configurations at most, until `seconds` have passed."""

    def __init__(
        self, space: Space, sampler: Sampler, folder: RunFolder, *, trials: int, full: int, seconds: float | None
    ) -> None:
        search = space.fixed.search
        self.metric = search.metric
        self.sign = 1 if search.mode == "max" else -1
        self.trials: dict[str, Trial] = {}
        self.wanted = trials
        self._sampler = sampler
        self._folder = folder
        self._rungs = Rungs(search.scheduler, full, self.sign) if isinstance(search.scheduler, Asha) else None
        self._digits = max(3, len(str(trials)))
        self._deadline = None if seconds is None else time.monotonic() + seconds
        self._exhausted = False

    @property
    def over(self) -> bool:
        """Whether no further trial is to be started."""
        return self._exhausted or len(self.trials) >= self.wanted or self.late

    @property
    def late(self) -> bool:
        """Whether the time budget is spent."""
        return self._deadline is not None and time.monotonic() >= self._deadline

    @property
    def running(self) -> list[Trial]:
        """Trials without an outcome."""
        return [trial for trial in self.trials.values() if trial.state is None]

    def best(self) -> Trial | None:
        """The trial with the best epoch of all; the earlier one where two are equal."""
        seen = [trial for trial in self.trials.values() if trial.best]
        return max(seen, key=lambda trial: self.sign * float(trial.best[self.metric]), default=None)

    def next(self) -> Trial | None:
        """A new trial, written down; None when there is none to start."""
        if self.over:
            return None
        try:
            proposal = self._sampler.ask()
        except SearchFailed:
            if self.best() is None:
                raise
            proposal = None  # what was found stays found
        if proposal is None:
            self._exhausted = True
            return None
        trial = Trial(f"{len(self.trials) + 1:0{self._digits}d}", proposal)
        self._folder.start_trial(trial.id, proposal.config.model_dump(mode="json"))
        start = {"label": proposal.label, "to_the_end": proposal.to_the_end} if proposal.label else {}
        self._folder.write_event(
            "asked", trial=trial.id, number=proposal.number, parameters=dict(proposal.parameters), **start
        )
        self.trials[trial.id] = trial
        return trial

    def hear(self, trial_id: str, row: Row, *, host: str, pid: int) -> bool:
        """Take in an epoch of a trial; whether the trial ends with it."""
        trial = self.trials[trial_id]
        value = _number(row[self.metric])
        if not trial.epochs:
            self._folder.write_event("started", trial=trial_id, host=host, pid=pid)
        trial.epochs, trial.last = int(row["epoch"]), row
        trial.seconds += float(row["epoch_seconds"])
        broken = next((name for name in (*LOSSES, self.metric) if not math.isfinite(_number(row[name]))), None)
        if not broken and (not trial.best or self.sign * (value - float(trial.best[self.metric])) > 0):
            trial.best = row
        self._sampler.report(trial.proposal.number, trial.epochs, value)
        state, reason = self._decide(trial, value, broken)
        self._folder.write_row(
            trial_id,
            {
                **row,
                "training_iteration": trial.epochs,
                "time_total_s": round(trial.seconds, 6),
                "decision": "stop" if state else "continue",
                "reason": reason,
            },
        )
        if state:
            self._end(trial, state, reason)
        return state is not None

    def fail(self, trial_id: str, text: str) -> None:
        """A trial broke: its trace goes to error.txt, its last line is the reason."""
        trial = self.trials[trial_id]
        if trial.state is None:
            self._folder.write_error(trial_id, text)
            lines = [line for line in text.strip().splitlines() if line.strip()]
            self._end(trial, "failed", lines[-1].strip() if lines else "no message")

    def interrupt(self, reason: str) -> None:
        """The run ends before its running trials do."""
        for trial in self.running:
            self._end(trial, "interrupted", reason)

    def counts(self) -> dict[str, int]:
        """How many trials ended how."""
        states: tuple[State, ...] = ("finished", "stopped", "diverged", "failed", "interrupted")
        return {state: sum(trial.state == state for trial in self.trials.values()) for state in states}

    def _decide(self, trial: Trial, value: float, broken: str | None) -> tuple[State | None, str]:
        verdict = self._rungs.judge(trial.id, trial.epochs, value) if self._rungs else None
        if broken:
            return "diverged", f"{broken} is not a number"
        if trial.epochs >= trial.full:
            return "finished", "all epochs done"
        if verdict and verdict.stop and not trial.proposal.to_the_end:
            return "stopped", verdict.reason
        if self.late:
            return "interrupted", "the time budget is spent"
        return None, ""

    def _end(self, trial: Trial, state: State, reason: str) -> None:
        trial.state, trial.reason = state, reason
        self._folder.write_event("ended", trial=trial.id, state=state, epoch=trial.epochs, reason=reason)
        self._sampler.tell(trial.proposal.number, state)


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)
