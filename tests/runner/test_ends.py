"""A trial that is over by its own rules is finished with its reason, wherever a crash strikes, and never goes on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tuner.records.reader import read_record
from tuner.records.writer import RunFolder
from tuner.runner.conductor import Conductor
from tuner.runner.replay import replay
from tuner.runner.stretch import Stretch
from tuner.runner.trial import Job
from tuner.search.choose import choose_sampler
from tuner.search.preflight import Size
from tuner.search.sampler import Sampler
from tuner.spec.data import Data
from tuner.spec.space import parse_space
from tuner.training.datasets import prepare

# Rates this small move no accuracy, so that no epoch is better than the first.
SPACE = """
name: e
data: {{dataset: shapes, images: 40, image_size: 8}}
model: {{name: cnn, depth: 1, width: {{choice: [4, 6]}}}}
train:
  epochs: 6
  batch_size: 16
  precision: fp32
  optimizer: {{name: sgd, lr: {{choice: [1.0e-12, 2.0e-12]}}}}
  early_stopping: {{patience: 2}}
search: {search}
"""
REASON = "no better value for 2 epochs, since epoch 1"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    section = Data.model_validate({"dataset": "shapes", "images": 40, "image_size": 8})
    return prepare(section, 0, tmp_path_factory.mktemp("cache")).folder


Open = Callable[..., Conductor]


@pytest.fixture
def search(tmp_path: Path) -> Open:
    """A conductor of two trials: of a new search, or of the one that lies in the folder."""

    def open_search(search: str = "{scheduler: none, sampler: random}") -> Conductor:
        space = parse_space(SPACE.format(search=search), "e")
        there = (tmp_path / "run.json").exists()
        folder = RunFolder(tmp_path)
        record = read_record(tmp_path) if there else None
        folder.write_space(space.text, space.to_json())
        folder.write_run(name="e", status="running", trials=2)
        sampler = Sampler(space, lambda config: Size(1, 1), choose_sampler(space, 2)[0])
        conductor = Conductor(space, sampler, folder, trials=2, full=6, seconds=None)
        if record:
            replay(conductor, record, space, changed=False)
        return conductor

    return open_search


def begin(conductor: Conductor, job: Job, data: Path) -> Stretch:
    """The job on a worker; a clock by which writing costs nothing gives a checkpoint each epoch."""
    given = {
        "id": job.trial.id, "trial": job.trial.config.model_dump_json(), "data": str(data), "split_seed": 0,
        "folder": str(conductor.folder.trial(job.trial.id)), "metric": "val_accuracy", "sign": 1, "rules": [],
        "threads": 1, "gpu": 0, "latency": False, "start": list(job.start), "stop_at": job.stop_at,
    }  # fmt: skip
    return Stretch(given, clock=lambda: 0.0)


def work(conductor: Conductor, data: Path) -> None:
    """Train job after job to the end of the search."""
    while job := conductor.next():
        stretch = begin(conductor, job, data)
        while not conductor.hear(job.trial.id, stretch.step()["row"], host="here", pid=1):
            pass


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def outcome(conductor: Conductor) -> list[tuple[str | None, str, int]]:
    return [(trial.state, trial.reason, trial.epochs) for trial in conductor.trials.values()]


@pytest.mark.parametrize("scheduler", ["none", "asha", "{name: pbt, every: 4}", "{name: pbt, every: 2}", "median"])
def test_a_trial_ends_by_its_own_rule_and_is_not_given_out_again(scheduler: str, search: Open, data: Path) -> None:
    conductor = search(f"{{scheduler: {scheduler}, sampler: random}}")
    work(conductor, data)
    assert outcome(conductor) == [("finished", REASON, 3)] * 2
    assert conductor.over and conductor.complete
    *_, last = lines(conductor.folder.trial("001") / "result.json")
    assert (last["epoch"], last["decision"], last["reason"]) == (3, "stop", REASON)


def test_of_epochs_that_are_equal_the_first_has_the_best_weights(search: Open, data: Path) -> None:
    conductor = search()
    work(conductor, data)
    assert [trial.best["epoch"] for trial in conductor.trials.values()] == [1, 1]


def test_a_search_that_comes_back_leaves_it_ended(search: Open, data: Path) -> None:
    first = search()
    work(first, data)
    first.folder.close()
    again = search()
    assert outcome(again) == outcome(first)
    assert again.next() is None and again.over


def test_a_crash_before_the_line_that_ends_it_does_not_train_it_again(search: Open, data: Path, tmp_path: Path) -> None:
    first = search()
    work(first, data)
    first.folder.close()
    events = tmp_path / "events.jsonl"
    events.write_text("".join(f"{json.dumps(e)}\n" for e in lines(events) if e["event"] != "ended"))
    again = search()
    assert outcome(again) == outcome(first)
    assert again.next() is None and again.over


@pytest.mark.parametrize("lost", [[], ["checkpoint_000003"]], ids=["with its checkpoint", "and its checkpoint"])
def test_a_crash_before_its_last_row_ends_it_with_the_same_reason(lost: list[str], search: Open, data: Path) -> None:
    first = search()
    job = first.next()
    assert job is not None
    stretch = begin(first, job, data)
    rows = [stretch.step()["row"] for _ in range(3)]
    assert [first.hear(job.trial.id, row, host="here", pid=1) for row in rows[:2]] == [False, False]
    first.folder.close()
    for name in lost:
        shutil.rmtree(first.folder.trial(job.trial.id) / name)
    again = search()
    work(again, data)
    assert outcome(again) == [("finished", REASON, 3)] * 2
