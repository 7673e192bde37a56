"""What Ray Tune tells of jobs whose process, node or memory is gone, as the conductor and the placer hear it."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any

import pytest
from ray.air.execution._internal.actor_manager import RayActorManager
from ray.exceptions import OutOfMemoryError, RayActorError

from tuner.runner.adapters import Judging, Watching


class Told:
    """Whatever it is told, in order; jobs and nodes alike."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, str]] = []
        self.trials = {"001": "trial 001"}

    def __getattr__(self, name: str) -> Any:
        return lambda *given: self.heard.append((name, str(given[0])))


class RayTrial:
    """A job as Tune has it."""

    def __init__(self, status: str, error: Path | None = None, job: int = 1) -> None:
        self.status, self.error_file = status, error and str(error)
        self.config = {"id": "001", "job": job, "node": "10.0.0.1"}


@pytest.fixture
def told() -> Told:
    return Told()


def judging(told: Told, *trials: RayTrial, gone: bool = False) -> Judging:
    made = Judging(told, told, lambda address: gone)  # type: ignore[arg-type]
    for trial in trials:
        made.on_trial_add(types.SimpleNamespace(stop_trial=lambda trial: told.stopped(trial.status)), trial)  # type: ignore[arg-type]
    return made


def test_what_is_ended_for_want_of_memory_is_one_job_and_not_the_search(told: Told, tmp_path: Path) -> None:
    heard: list[Exception] = []
    actor = types.SimpleNamespace(actor_id=1, _on_error=None)
    task = types.SimpleNamespace(_tracked_actor=actor, _on_error=lambda actor, error: heard.append(error))
    manager = types.SimpleNamespace(_failed_actor_ids=set(), _cleanup_actor=lambda tracked_actor: None)
    full = OutOfMemoryError("the node is full")  # type: ignore[no-untyped-call]
    RayActorManager._actor_task_failed(manager, tracked_actor_task=task, exception=full)  # type: ignore[arg-type]
    (error,) = heard
    assert isinstance(error, RayActorError) and "the node is full" in str(error)
    (tmp_path / "error.txt").write_text(str(error))
    judging(told).on_trial_error(None, RayTrial("RUNNING", tmp_path / "error.txt"))  # type: ignore[arg-type]
    assert told.heard == [("lack_memory", "001")]


def test_a_job_whose_node_is_gone_is_moved_and_nothing_is_placed_there(told: Told) -> None:
    judging(told, gone=True).on_trial_error(None, RayTrial("RUNNING"))  # type: ignore[arg-type]
    assert told.heard == [("leave_out", "10.0.0.1"), ("move", "001")]


def test_a_job_whose_process_dies_on_a_node_that_answers_has_died(told: Told) -> None:
    judging(told).on_trial_error(None, RayTrial("RUNNING"))  # type: ignore[arg-type]
    assert told.heard == [("die", "001")]


def test_of_the_jobs_of_a_node_that_is_gone_those_that_wait_are_moved_and_stopped(told: Told) -> None:
    made = judging(told, RayTrial("PENDING"), RayTrial("RUNNING", job=2))
    made.leave(["001-1", "001-2", "009-1"])
    assert told.heard == [("move", "001"), ("stopped", "PENDING")]


def test_jobs_that_wait_for_room_when_time_is_up_are_given_up(told: Told) -> None:
    judging(told, RayTrial("PENDING"), RayTrial("RUNNING", job=2)).give_up()
    assert told.heard == [("go_on", "trial 001"), ("stopped", "PENDING")]


def test_a_place_is_given_back_however_a_job_ends(told: Told) -> None:
    made, trial = judging(told, first := RayTrial("RUNNING")), RayTrial("RUNNING", job=2)
    watching = Watching(told, made, lambda: None)  # type: ignore[arg-type]
    watching.on_trial_complete(0, [], first)  # type: ignore[arg-type]
    watching.on_trial_error(0, [], trial)  # type: ignore[arg-type]
    assert told.heard == [("give_back", "001-1"), ("give_back", "001-2")]
    made.give_up()
    assert len(told.heard) == 2
