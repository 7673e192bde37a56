"""A stretch of a trial on a worker, from a checkpoint or the start: an epoch a step; what goes wrong is a result."""

from __future__ import annotations

import ctypes
import errno
import math
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from tuner.errors import BadInput
from tuner.runner.sending import Sending
from tuner.spec.objective import parse_constraint
from tuner.spec.trial_config import TrialConfig
from tuner.training import checkpoint
from tuner.training.datasets import open_dataset
from tuner.training.latency import measure_latency_ms
from tuner.training.trainer import Objective, Trainer

BEST = "checkpoint_best"
KEEP = 2
"""Checkpoints to go on from: should the newest be damaged, there is the one before."""

SHARE = 0.015
"""Of the time that may go into writing checkpoints: with everything else that is no training it stays under 2%."""

LONGEST = 60.0
"""Seconds of training that a crash may cost, whatever writing costs."""

NO_MEMORY = "DefaultCPUAllocator: "
"""How torch's words begin when a CPU has no more memory; for a GPU it has an exception."""


Rank = tuple[bool, float]
"""Whether an epoch keeps to the rules, and how good it is."""


class Pace:
    """When to write a checkpoint to go on from: at the first chance, then so that writing takes 1.5% of the time.

    What was written besides, such as the best weights, counts too: then the next one comes later, but within 60 s.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last: float | None = None
        self._spent = 0.0

    def due(self) -> bool:
        """Whether it is time."""
        return self._last is None or self._clock() - self._last >= min(self._spent / SHARE, LONGEST)

    @contextmanager
    def writing(self, *, to_go_on: bool) -> Iterator[None]:
        """Around whatever is written."""
        start = self._clock()
        yield
        end = self._clock()
        self._spent = end - start + (0.0 if to_go_on else self._spent)
        if to_go_on:
            self._last = end


class Stretch:
    """Trains the trial of one job: `step` by `step`, without end; whoever hears the results says when it is enough.

    job: id, trial (a TrialConfig as JSON text), data (folder of the decoded images), split_seed, folder (of the trial),
    metric and sign (of the first objective), rules (on measured metrics), threads, gpu, latency (whether it is
    measured), start (names of the checkpoints to try, best first) and stop_at (the epoch at which a checkpoint is
    always written, or None). Where the run keeps a copy: store (its address; checkpoints go there too, and come from
    there) and epochs (that the driver has heard of; best weights that are further are of a time that was lost).
    """

    def __init__(self, job: Mapping[str, Any], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._job = job
        self._folder = Path(job["folder"])
        self._pace = Pace(clock)
        self._trainer: Trainer | None = None
        self._stored: dict[str, Any] | None = None
        self._newest = 0
        self._best: Rank = (False, -math.inf)
        self._rules = tuple(map(parse_constraint, job["rules"]))
        self._latency: float | None = None
        self._passed_over: list[str] = []
        self._noted = 0
        self._sending = Sending(job["store"], job["id"]) if job.get("store") else None

    def step(self) -> dict[str, Any]:
        """Train an epoch: `row`, or the first time the row that the checkpoint holds, which may have been heard before.

        The row says `ends` where the trial is over by its own rules. Instead of `row` there is `failure` (a trace),
        `out_of_memory` or `no_space` (why), if so. `passed_over` lists the checkpoints that did not load, and why;
        `notes` what else a person should know, each sentence once.

        Raises:
            torch.AcceleratorError: the state of the device is doubtful, so a fresh process is wanted.
        """
        result: dict[str, Any]
        try:
            result = {"row": self._train()}
        except torch.AcceleratorError:
            raise
        except Exception as error:  # whatever breaks a trial must not take the worker with it
            result = {_name(error): str(error) or type(error).__name__}
            if "failure" in result:
                result["failure"] = traceback.format_exc()
        if "row" not in result:
            self._trainer = None
        if "out_of_memory" in result and self._job["gpu"]:
            torch.cuda.empty_cache()
        if self._trainer and (new := self._trainer.notes[self._noted :]):
            self._noted += len(new)
            result["notes"] = new
        if self._sending and self._sending.notes:
            result["notes"] = [*result.get("notes", []), *self._sending.notes]
            self._sending.notes = []
        passed, self._passed_over = self._passed_over, []
        return {**result, "passed_over": passed} if passed else result

    def close(self) -> None:
        """Wait until the best weights are in the store; before another job, and before the process ends."""
        if self._sending:
            self._sending.close()

    def _train(self) -> dict[str, Any]:
        if self._trainer is None:
            self._trainer = self._begin()
            if self._stored:
                return self._stored
        job, trainer = self._job, self._trainer
        row: dict[str, Any] = trainer.run_epoch().as_dict()
        if job["latency"]:
            if self._latency is None:
                self._latency = measure_latency_ms(trainer)
            row["latency_ms"] = self._latency
        row["checkpoint_epoch"] = self._newest
        numbers = (value for value in row.values() if isinstance(value, float | int))
        sound = all(map(math.isfinite, numbers))  # else the trial has diverged
        if trainer.ends:
            row["ends"] = trainer.ends
        if sound:
            self._keep_best(trainer, row)
            if trainer.epoch == job["stop_at"] or self._pace.due():
                self._write(trainer, row)
        return row

    def _begin(self) -> Trainer:
        job = self._job
        _give_memory_back()
        config = TrialConfig.model_validate_json(job["trial"])
        dataset = open_dataset(Path(job["data"]), config.data, job["split_seed"])
        trainer = Trainer(
            config,
            dataset,
            device="cuda" if job["gpu"] else "cpu",
            threads=job["threads"],
            objective=Objective(job["metric"], job["sign"]),
        )
        for name in job["start"]:
            try:
                self._load(trainer, name)
                break
            except BadInput as error:
                self._passed_over.append(f"{name}: {error}")
        self._best = self._read_best()
        return trainer

    def _load(self, trainer: Trainer, name: str) -> None:
        """Go on from this checkpoint; one under a trial's own name must be its own, any other may be a gift."""
        if self._sending:
            self._sending.fetch(self._folder, name)
        tensors, state = checkpoint.load(self._folder / name)
        own = state.get("trial") == self._job["id"]
        if not own and name.startswith("checkpoint_"):
            raise BadInput(f"a checkpoint of trial {state.get('trial')}")
        trainer.load_state_dict(tensors, state)
        self._newest = trainer.epoch
        self._stored = state["row"] if own else None

    def _read_best(self) -> Rank:
        """The best value so far, as the best weights know it; none where they are damaged: others will take over."""
        found = self._sending.metrics(BEST) if self._sending else None
        try:
            _, state = checkpoint.load(self._folder / BEST)
            here = (state.get("trial"), state["metrics"])
        except BadInput:
            here = None
        known = self._job.get("epochs", math.inf) + 1
        ours = [row for each in (found, here) if each for trial, row in [each] if trial == self._job["id"]]
        return max((self._rank(row) for row in ours if row["epoch"] <= known), default=(False, -math.inf))

    def _rank(self, row: Mapping[str, Any]) -> Rank:
        """What keeps to the rules on measured metrics comes before what does not, then the better one."""
        kept = all(rule.excess(float(row[rule.metric])) <= 0 for rule in self._rules if rule.metric in row)
        return kept, float(self._job["sign"] * row[self._job["metric"]])

    def _keep_best(self, trainer: Trainer, row: dict[str, Any]) -> None:
        """Before the checkpoint to go on from: whoever goes on from this epoch does not train it again."""
        if (rank := self._rank(row)) <= self._best:
            return
        self._best = rank
        tensors = {f"model.{name}": tensor for name, tensor in trainer.weights_that_count().items()}
        state = {"trial": self._job["id"], "metrics": row, "config": trainer.config.model_dump(mode="json")}
        with self._pace.writing(to_go_on=False):
            checkpoint.save(self._folder / BEST, tensors, state, trainer.images.about)
            if self._sending:
                self._sending.put_meanwhile(self._folder, BEST)

    def _write(self, trainer: Trainer, row: dict[str, Any]) -> None:
        """A checkpoint with the row inside: it may be on disk when the row never got to the driver."""
        name = checkpoint.name(trainer.epoch)
        row["checkpoint_epoch"] = trainer.epoch
        with self._pace.writing(to_go_on=True):
            tensors, state = trainer.state_dict()
            checkpoint.save(self._folder / name, tensors, {**state, "trial": self._job["id"], "row": row})
            checkpoint.prune(self._folder, KEEP, last=name)
            if self._sending:
                self._sending.put(self._folder, name)
        self._newest = trainer.epoch


def _name(error: Exception) -> str:
    """Under which name a result tells of this error."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "no_space"
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return "out_of_memory"
    if isinstance(error, RuntimeError) and NO_MEMORY in str(error):
        return "out_of_memory"
    return "failure"


def _give_memory_back() -> None:
    """Let the system have what the job before freed; glibc alone would keep 100 MiB more after 150 jobs."""
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)
