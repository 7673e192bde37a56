"""Which checkpoints a trial may start from, and which a run keeps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tuner.runner.trial import Goal, Trial
from tuner.runner.weights import Weights
from tuner.search.preflight import Size
from tuner.spec.data import Data
from tuner.spec.objective import Objective
from tuner.spec.trial_config import TrialConfig

GOAL = Goal((Objective("val_accuracy", "max"),))
CONFIG = TrialConfig(data=Data(dataset="digits"))


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Trial]:
    def make(name: str, accuracy: float, *checkpoints: int) -> Trial:
        for folder in ("checkpoint_best", *(f"checkpoint_{epoch:06d}" for epoch in checkpoints)):
            (tmp_path / name / folder).mkdir(parents=True)
            (tmp_path / name / folder / "state.json").write_text(f"{name} {folder}")
            (tmp_path / name / folder / "weights.safetensors").touch()
        best = {"val_accuracy": accuracy, "epoch": 1}
        return Trial(name, {}, CONFIG, Size(1, 1), best=best, epochs=max(checkpoints, default=0))

    return make


def left(path: Path) -> set[str]:
    return {str(p.relative_to(path)) for p in path.glob("*/*") if p.is_dir()}


def test_a_trial_starts_from_its_newest_checkpoint_first(tmp_path: Path, make: Callable[..., Trial]) -> None:
    trial = make("001", 0.5, 9, 10)
    assert Weights(tmp_path, 3, GOAL).starts(trial) == ("checkpoint_000010", "checkpoint_000009")


def test_a_checkpoint_that_is_further_ahead_than_the_epoch_that_nobody_heard_is_left_out(
    tmp_path: Path, make: Callable[..., Trial]
) -> None:
    trial = make("001", 0.5, 6, 8, 9)  # of a log that was brought from a copy, which can be seconds behind
    trial.epochs = 7
    assert Weights(tmp_path, 3, GOAL).starts(trial) == ("checkpoint_000008", "checkpoint_000006")
    trial.epochs = 2
    assert Weights(tmp_path, 3, GOAL).starts(trial) == ()


def test_an_ended_trial_keeps_its_best_weights_while_it_is_among_the_leaders(
    tmp_path: Path, make: Callable[..., Trial]
) -> None:
    weights = Weights(tmp_path, 2, GOAL)
    for name, accuracy in (("001", 0.5), ("002", 0.7), ("003", 0.6), ("004", 0.4)):
        trial = make(name, accuracy, 3)
        trial.state = "finished"
        weights.retain(trial)
    running = make("005", 0.1, 1, 2)
    assert left(tmp_path) == {
        "002/checkpoint_best", "003/checkpoint_best",
        "005/checkpoint_best", "005/checkpoint_000001", "005/checkpoint_000002",
    }  # fmt: skip
    assert running.state is None


def test_an_interrupted_trial_keeps_what_it_goes_on_from(tmp_path: Path, make: Callable[..., Trial]) -> None:
    trial = make("001", 0.5, 3)
    trial.state = "interrupted"
    Weights(tmp_path, 1, GOAL).retain(trial)
    assert left(tmp_path) == {"001/checkpoint_best", "001/checkpoint_000003"}


def test_null_keeps_the_best_weights_of_every_trial(tmp_path: Path, make: Callable[..., Trial]) -> None:
    weights = Weights(tmp_path, None, GOAL)
    for name in ("001", "002", "003"):
        trial = make(name, 0.5)
        trial.state = "stopped"
        weights.retain(trial)
    assert left(tmp_path) == {f"00{n}/checkpoint_best" for n in (1, 2, 3)}


def test_what_lies_on_the_front_is_kept_though_it_leads_in_nothing(tmp_path: Path, make: Callable[..., Trial]) -> None:
    weights = Weights(tmp_path, 1, GOAL)
    small, large = make("001", 0.3), make("002", 0.9)
    small.state = large.state = "finished"
    weights.retain(small, [small])
    weights.retain(large, [small, large])
    assert left(tmp_path) == {"001/checkpoint_best", "002/checkpoint_best"}


def test_weights_given_by_another_trial_come_before_its_own_older_ones(
    tmp_path: Path, make: Callable[..., Trial]
) -> None:
    weights, good, bad = Weights(tmp_path, 1, GOAL), make("001", 0.9, 3, 4), make("002", 0.1, 3, 4)
    assert weights.give(good, bad, 4)
    bad.changed = 4
    assert (tmp_path / "002/given_000004/state.json").read_text() == "001 checkpoint_000004"
    assert weights.starts(bad) == ("given_000004", "checkpoint_000004", "checkpoint_000003")
    make_later = tmp_path / "002/checkpoint_000005"
    make_later.mkdir()
    assert weights.starts(bad)[0] == "checkpoint_000005"
