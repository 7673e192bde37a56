"""Weights: which checkpoints of a run a trial may start from, and which are kept."""

from __future__ import annotations

import errno
import math
import shutil
from collections.abc import Iterable
from pathlib import Path

from tuner.errors import HypertuneError, NoSpace
from tuner.records.segments import Matches, Segments
from tuner.records.store import StoreError
from tuner.runner.trial import Goal, Trial
from tuner.training import checkpoint

BEST = "checkpoint_best"


class Weights:
    """The checkpoints below `trials`; of ended trials only those of the `keep` best are kept, None keeps all.

    Where the run has a `copy`, those in its store count too: workers put them there from disks of their own.
    """

    def __init__(self, trials: Path, keep: int | None, goal: Goal, copy: Segments | None = None) -> None:
        self._trials = trials
        self._keep = keep
        self._goal = goal
        self._copy = copy
        self._holding: dict[str, Trial] = {}

    def numbered(self, trial: Trial) -> list[str]:
        """Checkpoints to go on from, newest first.

        Raises:
            HypertuneError: the store cannot be asked.
        """
        here = checkpoint.newest(self._trials / trial.id)
        if self._copy is None or not trial.epochs:  # before its first row is heard there is nothing worth a request
            return here
        folder = f"trials/{trial.id}/"
        found = [name.removeprefix(folder) for name in self._copy.store.names(folder.rstrip("/"))]
        return checkpoint.order({*here, *(name.partition("/")[0] for name in found if name.endswith(checkpoint.STATE))})

    def starts(self, trial: Trial) -> tuple[str, ...]:
        """Where its next job may start, best first: after a population's change, from the weights that it was given.

        None that is ahead of the log by more than the epoch that nobody may have heard: a log that was brought from a
        store can be some seconds behind the workers, and the epochs between would be missing.
        """
        names = [name for name in self.numbered(trial) if int(name.rpartition("_")[2]) <= trial.epochs + 1]
        if trial.changed is None:
            return tuple(names)
        given = self._given(trial.changed)
        later = [name for name in names if int(name.rpartition("_")[2]) > trial.changed]
        return (*later, given, *(name for name in names if name not in later))

    def give(self, source: Trial, trial: Trial, epoch: int) -> bool:
        """Give a trial the weights that another one has after `epoch`; False where they are gone.

        Raises:
            NoSpace: the disk is full.
            HypertuneError: they cannot be copied for another reason.
        """
        there = self._give_there(source, trial, epoch)
        origin = self._trials / source.id / checkpoint.name(epoch)
        try:
            checkpoint.copy(origin, self._trials / trial.id / self._given(epoch))
        except FileNotFoundError:
            return there
        except OSError as error:
            kind = NoSpace if error.errno in (errno.ENOSPC, errno.EDQUOT) else HypertuneError
            raise kind(f"{origin} cannot be copied: {error.strerror or error}") from error
        return True

    def _give_there(self, source: Trial, trial: Trial, epoch: int) -> bool:
        if self._copy is None:
            return False
        origin, target = f"trials/{source.id}/{checkpoint.name(epoch)}", f"trials/{trial.id}/{self._given(epoch)}"
        files = (checkpoint.WEIGHTS, checkpoint.STATE)  # it is whole with the second
        try:
            return all(self._copy.store.copy(f"{origin}/{file}", f"{target}/{file}") for file in files)
        except StoreError:
            return False

    def forget_given(self, trial: Trial) -> None:
        """Delete what it was given before its last change."""
        if trial.changed is not None:
            for path in (self._trials / trial.id).glob("given_*"):
                if path.name != self._given(trial.changed):
                    shutil.rmtree(path, ignore_errors=True)
            now = self._given(trial.changed)
            self._forget_there(trial.id, lambda name: name.startswith("given_") and name != now)

    def retain(self, trial: Trial, front: Iterable[Trial] = ()) -> None:
        """Delete what no longer serves when a trial has ended: its checkpoints to go on from, and the losers' best."""
        if trial.state in (None, "interrupted"):
            return
        folder = self._trials / trial.id
        for name in (*checkpoint.newest(folder), *(path.name for path in folder.glob("given_*"))):
            shutil.rmtree(folder / name, ignore_errors=True)
        if trial.repeat_of is not None:  # a repeat tells of the noise; its numbers are enough
            shutil.rmtree(folder / BEST, ignore_errors=True)
            self._forget_there(trial.id, lambda name: True)
            return
        self._forget_there(trial.id, lambda name: name.startswith("given_") or bool(checkpoint.order([name])))
        self._holding[trial.id] = trial
        if self._keep is None:
            return
        ranked = sorted(self._holding.values(), key=self._score, reverse=True)
        kept = {t.id: t for t in (*ranked[: self._keep], *(t for t in front if t.id in self._holding))}
        for loser in self._holding.keys() - kept.keys():
            shutil.rmtree(self._trials / loser / BEST, ignore_errors=True)
            self._forget_there(loser, BEST.__eq__)
        self._holding = kept

    def _forget_there(self, trial: str, matches: Matches) -> None:
        """When the lines so far are in the store: what they tell of can be gone on with as long as it is there."""
        if self._copy is not None:
            self._copy.forget(trial, matches)

    def _score(self, trial: Trial) -> float:
        return self._goal.first.score(trial.best) if trial.best else -math.inf

    def _given(self, epoch: int) -> str:
        return f"given_{epoch:06d}"
