"""Ray Tune's questions, handed to the conductor: which job next, go on with this one, anything else meanwhile.

A trial of Tune's is one job of ours: a stretch of a trial. Retries, resumes and a population's slices are further
jobs, so Tune itself neither retries nor restores anything. It pickles all three objects when a search starts, for a
restore that nobody will do from there: they pickle as empty. It also turns an exception of theirs into one of its own
and cleans up slowly: what must get out leaves as `Through`.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.air.execution._internal.actor_manager import RayActorManager
from ray.exceptions import RayActorError, RayTaskError
from ray.tune.experiment import Trial as RayTrial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from tuner.errors import HypertuneError, NoSpace
from tuner.runner.conductor import Conductor
from tuner.runner.placing import Placed, Placer
from tuner.runner.trial import Job

FULL = ("OutOfMemoryError", "running low on memory")
"""What Ray says of a process that it ended for want of main memory."""

TOUCH = 0.001
"""Of a node's own resource, which Ray gives each node: whoever asks for some of it is placed there."""


_task_failed = RayActorManager._actor_task_failed


def _end_one(self: Any, tracked_actor_task: Any, exception: Exception) -> None:  # Ray gives them by name
    """A task of a job failed. To Tune, what ends a process for want of memory is no error of a process: it would break
    off the search (seen with 2.60)."""
    if not isinstance(exception, RayActorError | RayTaskError):
        exception = RayActorError(error_msg=f"{type(exception).__name__}: {exception}")
    _task_failed(self, tracked_actor_task=tracked_actor_task, exception=exception)


RayActorManager._actor_task_failed = _end_one  # type: ignore[method-assign]


class Through(BaseException):
    """Carries an error of ours, or None for a signal, out of Ray's loop."""

    def __init__(self, error: HypertuneError | None = None) -> None:
        self.error = error
        super().__init__(error)


@contextlib.contextmanager
def let_through() -> Iterator[None]:
    """Errors of ours leave the block as `Through`."""
    try:
        yield
    except HypertuneError as error:
        raise Through(error) from error


class Asking(Searcher):
    """Which job next? `describe` turns a job into the dictionary that its worker gets."""

    def __init__(self, conductor: Conductor, placer: Placer, describe: Callable[[Job, Placed], dict[str, Any]]) -> None:
        super().__init__()
        self._conductor = conductor
        self._placer = placer
        self._describe = describe

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]  # Ray: dict or "FINISHED"
        """The next job; None when it must wait for others; Ray's own word for "no more" when there is none."""
        with let_through():
            job = self._conductor.next() if self._placer.room else None
            if job is None:
                return Searcher.FINISHED if self._conductor.over else None
            return self._describe(job, self._placer.place(f"{job.trial.id}-{job.number}", job.trial))

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing: the conductor has heard it from the scheduler."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the run folder is the record."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the run folder is the record."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class Judging(FIFOScheduler):
    """Go on with this job? First come, first served otherwise. gone: whether the machine at an address is gone."""

    def __init__(self, conductor: Conductor, placer: Placer, gone: Callable[[str], bool]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._conductor = conductor
        self._placer = placer
        self._gone = gone
        self._jobs: dict[str, RayTrial] = {}
        self._controller: Any = None

    def on_trial_add(self, tune_controller: Any, trial: RayTrial) -> None:
        """Remember a job by its name."""
        self._controller = tune_controller
        self._jobs[name_job(trial)] = trial

    def leave(self, jobs: Iterable[str]) -> None:
        """The nodes of these jobs are gone. Those that run end by themselves; one that waits would wait for ever."""
        for name in jobs:
            trial = self._jobs.get(name)
            if trial is not None and trial.status == RayTrial.PENDING:
                with let_through():
                    self._conductor.move(trial.config["id"], "its node is gone")
                self._controller.stop_trial(trial)

    def give_up(self) -> None:
        """The search is over but for jobs that wait for room: they would begin when nobody wants them any more."""
        for trial in [trial for trial in self._jobs.values() if trial.status == RayTrial.PENDING]:
            self._conductor.go_on(self._conductor.trials[trial.config["id"]])
            self._controller.stop_trial(trial)

    def forget(self, trial: RayTrial) -> None:
        """A job has ended: its place is free."""
        self._placer.give_back(name_job(trial))
        self._jobs.pop(name_job(trial), None)

    def on_trial_result(self, tune_controller: Any, trial: RayTrial, result: dict[str, Any]) -> str:
        """Stop or continue."""
        name, conductor = trial.config["id"], self._conductor
        with let_through():
            if text := result.get("no_space"):
                raise NoSpace(f"{text}; what was written before is kept")
            for passed in json.loads(result.get("passed_over") or "[]"):
                conductor.folder.write_event("checkpoint", trial=name, reason=passed)
            for text in json.loads(result.get("notes") or "[]"):
                conductor.note(name, text)
            if text := result.get("failure"):
                conductor.fail(name, text)
                return TrialScheduler.STOP
            if text := result.get("out_of_memory"):
                conductor.lack_memory(name, text)
                return TrialScheduler.STOP
            stop = conductor.hear(name, json.loads(result["row"]), host=result["host"], pid=result["pid"])
        return TrialScheduler.STOP if stop else TrialScheduler.CONTINUE

    def on_trial_error(self, tune_controller: Any, trial: RayTrial) -> None:
        """The process of a job died, was ended for want of memory, or could not be started."""
        text = read_error(trial)
        with let_through():
            if any(words in text for words in FULL):
                text += "\nRay ended its process: the main memory of its machine was full"
                self._conductor.lack_memory(trial.config["id"], text)
            elif trial.config["node"] and self._gone(trial.config["node"]):
                self._placer.leave_out(trial.config["node"])
                self._conductor.move(trial.config["id"], f"its node {trial.config['node']} is gone")
            else:
                self._conductor.die(trial.config["id"], text)

    def __getstate__(self) -> dict[str, Any]:
        return {}


class Watching(tune.Callback):
    """Calls `look` between Ray's steps, about ten times a second, and ends the processes of trials that hang."""

    def __init__(self, conductor: Conductor, judging: Judging, look: Callable[[], None]) -> None:
        self._conductor = conductor
        self._judging = judging
        self._look = look

    def on_trial_start(self, iteration: int, trials: list[RayTrial], trial: RayTrial, **info: Any) -> None:
        """Its process runs: from now on it must give epochs."""
        self._conductor.placed(trial.config["id"])

    def on_trial_complete(self, iteration: int, trials: list[RayTrial], trial: RayTrial, **info: Any) -> None:
        """Its place is free."""
        self._judging.forget(trial)

    def on_trial_error(self, iteration: int, trials: list[RayTrial], trial: RayTrial, **info: Any) -> None:
        """Its place is free."""
        self._judging.forget(trial)

    def on_step_end(self, iteration: int, trials: list[RayTrial], **info: Any) -> None:
        """Look."""
        with let_through():
            self._look()
            hanging = {trial.id for trial in self._conductor.hanging()}
        for trial in trials if hanging else ():
            if trial.status == RayTrial.RUNNING and trial.config["id"] in hanging:
                assert trial.temporary_state.ray_actor is not None  # it runs
                ray.kill(trial.temporary_state.ray_actor)  # Tune then hears of a dead process

    def __getstate__(self) -> dict[str, Any]:
        return {}


def read_error(trial: RayTrial) -> str:
    """What Tune wrote of the error of a job; `get_error` looks where that is copied to, which we never let it do."""
    file = Path(trial.error_file or "none")
    return file.read_text(errors="replace") if file.is_file() else "its process ended without a word"


def name_job(trial: RayTrial) -> str:
    """A name of its own for each job, for the placer and Ray's logs."""
    return f"{trial.config['id']}-{trial.config['job']}"


def request(job: Mapping[str, Any]) -> tune.PlacementGroupFactory:
    """What a job asks Ray for; jobs that ask for the same share processes."""
    wanted = {"CPU": job["cpu"], **({"GPU": job["gpu"]} if job["gpu"] else {})}
    return tune.PlacementGroupFactory([{**wanted, **({f"node:{job['node']}": TOUCH} if job["node"] else {})}])
