"""Ray Tune's questions, handed to the conductor: which job next, go on with this one, anything else meanwhile.

A trial of Tune's is one job of ours: a stretch of a trial. Retries, resumes and a population's slices are further
jobs, so Tune itself neither retries nor restores anything. It pickles all three objects when a search starts, for a
restore that nobody will do from there: they pickle as empty. It also turns an exception of theirs into one of its own
and cleans up slowly: what must get out leaves as `Through`.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import ray
from ray import tune
from ray.tune.experiment import Trial as RayTrial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from tuner.errors import HypertuneError, NoSpace
from tuner.runner.conductor import Conductor
from tuner.runner.trial import Job


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

    def __init__(self, conductor: Conductor, describe: Callable[[Job], dict[str, Any]]) -> None:
        super().__init__()
        self._conductor = conductor
        self._describe = describe

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]  # Ray: dict or "FINISHED"
        """The next job; None when it must wait for others; Ray's own word for "no more" when there is none."""
        with let_through():
            job = self._conductor.next()
            if job is None:
                return Searcher.FINISHED if self._conductor.over else None
            return self._describe(job)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing: the conductor has heard it from the scheduler."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the run folder is the record."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the run folder is the record."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class Judging(FIFOScheduler):
    """Go on with this job? First come, first served otherwise."""

    def __init__(self, conductor: Conductor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._conductor = conductor

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
        error = trial.get_error()
        text = str(error or "its process ended without a word")
        with let_through():
            if isinstance(error, ray.exceptions.OutOfMemoryError) or "OutOfMemoryError" in text:
                self._conductor.lack_memory(trial.config["id"], text)
            else:
                self._conductor.die(trial.config["id"], text)

    def __getstate__(self) -> dict[str, Any]:
        return {}


class Watching(tune.Callback):
    """Calls `look` between Ray's steps, about ten times a second, and ends the processes of trials that hang."""

    def __init__(self, conductor: Conductor, look: Callable[[], None]) -> None:
        self._conductor = conductor
        self._look = look

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
