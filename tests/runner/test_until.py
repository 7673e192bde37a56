"""A search that ends where further trials are not worth it: what is judged, when, and that a resume judges again."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analysis.gain import enough
from tuner.errors import BadInput
from tuner.records import writer
from tuner.records.reader import read_record
from tuner.records.writer import RunFolder
from tuner.runner.conductor import Conductor
from tuner.runner.replay import replay
from tuner.runner.trial import Goal
from tuner.runner.until import Enough, Until, check_until
from tuner.search.preflight import Size
from tuner.search.sampler import Sampler
from tuner.spec.search import RandomSampler, Tpe
from tuner.spec.space import parse_space

SPACE = """
name: u
data: {dataset: digits}
model: {name: cnn, depth: {int: [1, 3]}}
train: {epochs: 2, optimizer: {name: adam, lr: {loguniform: [1.0e-4, 1.0e-1]}}}
search: {until: worth, trials: 60, scheduler: none}
"""
WANTED = parse_space(SPACE, "u")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[RunFolder]:
    with writer.create(tmp_path, "u") as folder:
        yield folder


def conduct(folder: RunFolder, enough: Enough = enough) -> Conductor:
    sampler = Sampler(WANTED, lambda config: Size(1, 1), RandomSampler())
    until = Until(enough, Goal(WANTED.fixed.search.objectives), least=20, validation=1000)
    return Conductor(WANTED, sampler, folder, trials=60, full=2, seconds=None, until=until)


def train(conductor: Conductor, values: Sequence[float]) -> int:
    """One trial after the other until nothing more is asked for; how many there were."""
    for number, value in enumerate(values):
        if (job := conductor.next()) is None:
            return number
        for epoch in (1, 2):
            row = {"epoch": epoch, "val_accuracy": value, "val_loss": 1.0, "train_loss": 1.0, "epoch_seconds": 0.5}
            conductor.hear(job.trial.id, row, host="here", pid=1)
    return len(values)


PLATEAU = (0.8 - np.random.default_rng(0).gamma(2, 0.002, 60)).tolist()
RISING = (0.2 + 0.01 * np.arange(60) + np.random.default_rng(1).normal(0, 0.02, 60)).tolist()


def test_a_search_on_its_plateau_ends_as_soon_as_it_is_judged(folder: RunFolder) -> None:
    conductor = conduct(folder)
    assert train(conductor, PLATEAU) == 20 and conductor.over and conductor.complete
    assert conductor.ending.startswith("another 20 trials should gain ")


def test_a_search_that_rises_has_all_its_trials(folder: RunFolder) -> None:
    conductor = conduct(folder)
    assert train(conductor, RISING) == 60 and conductor.over and conductor.ending == ""


def test_what_runs_is_trained_to_its_end(folder: RunFolder) -> None:
    conductor = conduct(folder)
    late = conductor.next()
    assert late is not None and train(conductor, PLATEAU) == 20 and not conductor.over
    train_on = {"epoch": 1, "val_accuracy": 0.9, "val_loss": 1.0, "train_loss": 1.0, "epoch_seconds": 0.5}
    assert conductor.hear(late.trial.id, train_on, host="here", pid=1) is False


def test_it_is_told_every_value_in_the_order_of_the_ends_and_what_is_not_known(folder: RunFolder) -> None:
    told: list[dict[str, Any]] = []

    def listen(values: Sequence[float], **rest: Any) -> str:
        told.append({"values": list(values), **rest})
        return ""

    conductor = conduct(folder, listen)
    slow = conductor.next()
    assert slow is not None
    train(conductor, [0.5] * 18)
    conductor.fail(slow.trial.id, "no")
    train(conductor, [0.7])
    assert len(told) == 1  # nothing is judged before 20 have ended
    assert told[0]["values"] == pytest.approx([0.5] * 18 + [math.nan, 0.7], nan_ok=True)
    assert (told[0]["more"], told[0]["metric"], told[0]["maximise"]) == (20, "val_accuracy", True)
    assert told[0]["curves"][0] == [0.7, 0.7] and len(told[0]["curves"]) == 5
    train(conductor, [0.5] * 39)
    assert [each["more"] for each in told] == list(range(20, 60))


@pytest.mark.parametrize("values", [PLATEAU, RISING[:30]])
def test_a_resumed_run_judges_again_as_it_would_have(values: list[float], tmp_path: Path) -> None:
    with writer.create(tmp_path, "u") as folder:
        folder.write_space(WANTED.text, WANTED.to_json())
        folder.write_run(status="running")
        before = conduct(folder)
        train(before, values)
    with RunFolder(tmp_path / "u") as folder:
        again = conduct(folder)
        replay(again, read_record(folder.path), WANTED, changed=False)
        assert (again.enough, again.complete) == (before.enough, before.complete)
        assert bool(again.enough) == (values is PLATEAU)


@pytest.mark.parametrize(
    ("search", "sampler", "why"),
    [
        ("{until: worth}", RandomSampler(), "judged when 20 trials have ended, and search.trials is 20"),
        ("{until: worth, trials: 40}", Tpe(startup_trials=30), "judged when 60 trials"),
        ("{until: worth, trials: 90, scheduler: {name: pbt, every: 1}}", RandomSampler(), "a population"),
    ],
)
def test_where_it_could_not_end_the_search_it_is_refused(search: str, sampler: Tpe, why: str) -> None:
    text = SPACE.replace("{until: worth, trials: 60, scheduler: none}", search)
    with pytest.raises(BadInput, match=why):
        check_until(parse_space(text, "u").fixed.search, sampler)


@pytest.mark.ray
def test_a_real_run_ends_early_with_its_reason_on_disk(tmp_path: Path) -> None:
    hypertune = Path(sys.executable).with_name("hypertune")
    (tmp_path / "u.yaml").write_text(
        "name: u\n"
        "data: {dataset: digits, subset: 150}\n"
        "model: {name: cnn, depth: 1, width: 4, dropout: {uniform: [0, 0.001]}}\n"
        "train: {epochs: 1, optimizer: {name: adam, lr: 1.0e-6}}\n"
        "search: {trials: 200, scheduler: none, sampler: random}\n"
        "resources: {trials_at_once: 1}\n"
    )

    def call(*words: str) -> dict[str, Any]:
        done = subprocess.run(
            [hypertune, *words, "--json"], cwd=tmp_path, capture_output=True, text=True, timeout=200,
            env={**os.environ, "HYPERTUNE_CACHE": str(tmp_path / "cache")},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "ended  another 20 trials should gain" in done.stderr
        said: dict[str, Any] = json.loads(done.stdout)
        return said

    said = call("run", "u.yaml", "--until", "worth")
    events = [json.loads(line) for line in (tmp_path / "results/u/events.jsonl").read_text().splitlines()]
    assert events[-1]["event"] == "run_ended" and events[-1]["status"] == "finished"
    assert events[-1]["reason"] == said["ending"] and "less than the noise" in said["ending"]
    assert said["counts"]["finished"] == 20 and sum(said["counts"].values()) == 20
