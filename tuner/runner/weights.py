"""Weights: which checkpoints of a run a trial may start from, and which are kept. The files only; no torch."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable
from pathlib import Path

from tuner.runner.trial import Goal, Trial

BEST = "checkpoint_best"


class Weights:
    """The checkpoints below `trials`; of ended trials only those of the `keep` best are kept, None keeps all."""

    def __init__(self, trials: Path, keep: int | None, goal: Goal) -> None:
        self._trials = trials
        self._keep = keep
        self._goal = goal
        self._holding: dict[str, Trial] = {}

    def numbered(self, trial: Trial) -> list[str]:
        """Checkpoints to go on from, newest first."""
        folder = self._trials / trial.id
        names = [path.name for path in folder.glob("checkpoint_[0-9]*")] if folder.is_dir() else []
        return sorted(names, reverse=True)

    def starts(self, trial: Trial) -> tuple[str, ...]:
        """Where its next job may start, best first: after a population's change, from the weights that it was given."""
        names = self.numbered(trial)
        if trial.changed is None:
            return tuple(names)
        given = self._given(trial.changed)
        later = [name for name in names if name > f"checkpoint_{trial.changed:06d}"]
        return (*later, given, *(name for name in names if name not in later))

    def copy(self, source: Trial, trial: Trial, epoch: int) -> None:
        """Give a trial the weights that another one has after `epoch`.

        Raises:
            OSError: they cannot be copied.
        """
        origin = self._trials / source.id / f"checkpoint_{epoch:06d}"
        target = self._trials / trial.id / self._given(epoch)
        new = target.with_name(f".{target.name}.new")
        shutil.rmtree(new, ignore_errors=True)
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(origin, new)
        new.rename(target)

    def retain(self, trial: Trial, front: Iterable[Trial] = ()) -> None:
        """Delete what no longer serves when a trial has ended: its checkpoints to go on from, and the losers' best."""
        if trial.state in (None, "interrupted"):
            return
        folder = self._trials / trial.id
        for name in (*self.numbered(trial), *(path.name for path in folder.glob("given_*"))):
            shutil.rmtree(folder / name, ignore_errors=True)
        if trial.repeat_of is not None:  # a repeat tells of the noise; its numbers are enough
            shutil.rmtree(folder / BEST, ignore_errors=True)
            return
        self._holding[trial.id] = trial
        if self._keep is None:
            return
        ranked = sorted(self._holding.values(), key=self._score, reverse=True)
        kept = {t.id: t for t in (*ranked[: self._keep], *(t for t in front if t.id in self._holding))}
        for loser in self._holding.keys() - kept.keys():
            shutil.rmtree(self._trials / loser / BEST, ignore_errors=True)
        self._holding = kept

    def _score(self, trial: Trial) -> float:
        return self._goal.first.score(trial.best) if trial.best else -math.inf

    def _given(self, epoch: int) -> str:
        return f"given_{epoch:06d}"
