"""Ray Tune's three questions, handed to the conductor: which trial next, go on with this one, anything else meanwhile.

Tune pickles all three when a search starts, for a restore that nobody will do from there: they pickle as empty.
It also turns an exception of theirs into one of its own and cleans up slowly: what must get out leaves as `Through`.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

from ray import tune
from ray.tune.experiment import Trial as RayTrial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from tuner.errors import HypertuneError
from tuner.runner.conductor import Conductor, Trial


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
    """Which trial next? `job` turns a trial into the dictionary that its worker gets."""

    def __init__(self, conductor: Conductor, job: Callable[[Trial], dict[str, Any]]) -> None:
        super().__init__()
        self._conductor = conductor
        self._job = job

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]  # Ray: dict or "FINISHED"
        """The next trial's job; Ray's own word for "no more" when there is none."""
        with let_through():
            trial = self._conductor.next()
        return Searcher.FINISHED if trial is None else self._job(trial)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing: the conductor has heard it from the scheduler."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the run folder is the record."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the run folder is the record."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class Judging(FIFOScheduler):
    """Go on with this trial? First come, first served otherwise."""

    def __init__(self, conductor: Conductor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._conductor = conductor

    def on_trial_result(self, tune_controller: Any, trial: RayTrial, result: dict[str, Any]) -> str:
        """Stop or continue."""
        name = trial.config["id"]
        with let_through():
            if "failure" in result:
                self._conductor.fail(name, result["failure"])
                return TrialScheduler.STOP
            stop = self._conductor.hear(name, json.loads(result["row"]), host=result["host"], pid=result["pid"])
        return TrialScheduler.STOP if stop else TrialScheduler.CONTINUE

    def on_trial_error(self, tune_controller: Any, trial: RayTrial) -> None:
        """The process of a trial died, or ran out of memory."""
        with let_through():
            self._conductor.fail(trial.config["id"], str(trial.get_error() or "its process ended without a word"))

    def __getstate__(self) -> dict[str, Any]:
        return {}


class Watching(tune.Callback):
    """Calls `look` between Ray's steps, about ten times a second."""

    def __init__(self, look: Callable[[], None]) -> None:
        self._look = look

    def on_step_end(self, iteration: int, trials: list[RayTrial], **info: Any) -> None:
        """Look."""
        self._look()

    def __getstate__(self) -> dict[str, Any]:
        return {}
