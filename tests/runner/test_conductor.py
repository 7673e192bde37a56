"""The search without Ray: what is decided, and what is on disk when it is."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tuner.records import writer
from tuner.records.writer import RunFolder
from tuner.runner.conductor import Conductor
from tuner.search.preflight import Size
from tuner.search.sampler import Sampler
from tuner.spec.space import Space, parse_space

SPACE = """
name: c
data: {dataset: digits}
model: {name: cnn, depth: {int: [1, 3]}}
train: {epochs: 4}
"""


def space(search: str) -> Space:
    return parse_space(f"{SPACE}search: {search}\n", "c")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[RunFolder]:
    with writer.create(tmp_path, "c") as folder:
        yield folder


def conduct(folder: RunFolder, search: str, trials: int = 5, seconds: float | None = None) -> Conductor:
    wanted = space(search)
    sampler = Sampler(wanted, lambda config: Size(1, 1))
    return Conductor(wanted, sampler, folder, trials=trials, full=4, seconds=seconds)


def row(epoch: int, value: float, loss: float = 1.0) -> dict[str, Any]:
    return {
        "epoch": epoch, "val_accuracy": value, "val_loss": loss, "train_loss": loss, "val_macro_f1": value,
        "epoch_seconds": 0.5, "params": 10,
    }  # fmt: skip


def hear(conductor: Conductor, trial: str, *rows: dict[str, Any]) -> list[bool]:
    return [conductor.hear(trial, r, host="here", pid=1) for r in rows]


def start(conductor: Conductor) -> str:
    trial = conductor.next()
    assert trial is not None
    return trial.id


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def events(folder: RunFolder, kind: str) -> list[dict[str, Any]]:
    return [line for line in lines(folder.path / "events.jsonl") if line["event"] == kind]


def test_a_trial_ends_with_its_last_epoch_and_best_is_not_last(folder: RunFolder) -> None:
    conductor = conduct(folder, "{scheduler: none}")
    trial = start(conductor)
    assert hear(conductor, trial, row(1, 0.2), row(2, 0.9), row(3, 0.5), row(4, 0.6)) == [False, False, False, True]
    best = conductor.best()
    assert best is not None and (best.best["epoch"], best.best["val_accuracy"], best.state) == (2, 0.9, "finished")


def test_a_minimised_metric_has_its_lowest_epoch_as_best(folder: RunFolder) -> None:
    conductor = conduct(folder, "{scheduler: none, metric: val_loss}")
    hear(conductor, start(conductor), row(1, 0.2, 2.0), row(2, 0.1, 0.5), row(3, 0.9, 1.0))
    best = conductor.best()
    assert best is not None and best.best["epoch"] == 2


def test_the_line_carries_the_decision_and_the_event_follows_it(folder: RunFolder) -> None:
    conductor = conduct(folder, "{scheduler: {name: asha, grace: 1, factor: 2}}")
    first, second = start(conductor), start(conductor)
    hear(conductor, first, row(1, 0.9))
    assert hear(conductor, second, row(1, 0.1)) == [True]
    last = lines(folder.trial(second) / "result.json")[-1]
    assert (last["decision"], last["reason"]) == ("stop", "rung at epoch 1: 1 of 2 were better, the best went on")
    ended = events(folder, "ended")[0]
    assert (ended["trial"], ended["state"], ended["epoch"]) == (second, "stopped", 1)
    assert ended["seq"] == last["seq"] + 1


def test_a_trial_to_the_end_is_not_stopped_early(folder: RunFolder) -> None:
    conductor = conduct(folder, "{scheduler: asha, start_from: [{label: mine, to_the_end: true, model.depth: 2}]}")
    mine, other = start(conductor), start(conductor)
    hear(conductor, other, row(1, 0.9))
    assert hear(conductor, mine, row(1, 0.1), row(2, 0.1), row(3, 0.1), row(4, 0.1)) == [False, False, False, True]
    asked = events(folder, "asked")[0]
    assert (asked["label"], asked["to_the_end"], asked["parameters"]) == ("mine", True, {"model.depth": 2})


def test_a_loss_that_is_no_number_ends_the_trial_as_diverged(folder: RunFolder) -> None:
    conductor = conduct(folder, "{scheduler: none}")
    trial = start(conductor)
    assert hear(conductor, trial, row(1, 0.3), row(2, 0.1, math.nan)) == [False, True]
    assert events(folder, "ended")[0]["state"] == "diverged"
    last = lines(folder.trial(trial) / "result.json")[-1]
    assert last["val_loss"] is None and last["reason"] == "train_loss is not a number"
    best = conductor.best()
    assert best is not None and best.best["epoch"] == 1


def test_a_failed_trial_leaves_its_trace_and_the_search_goes_on(folder: RunFolder) -> None:
    conductor = conduct(folder, "{scheduler: none}")
    trial = start(conductor)
    conductor.fail(trial, "Traceback ...\nValueError: no\n")
    assert (folder.trial(trial) / "error.txt").read_text().startswith("Traceback")
    assert events(folder, "ended")[0]["reason"] == "ValueError: no"
    assert conductor.next() is not None and conductor.counts()["failed"] == 1


def test_time_ends_running_trials_and_starts_no_more(folder: RunFolder) -> None:
    conductor = conduct(folder, "{scheduler: none}", seconds=0.0)
    assert conductor.next() is None
    conductor = conduct(folder, "{scheduler: none}", seconds=3600)
    trial = start(conductor)
    conductor._deadline = 0.0
    assert hear(conductor, trial, row(1, 0.5)) == [True]
    assert events(folder, "ended")[0]["reason"] == "the time budget is spent"


def test_no_more_trials_than_wanted(folder: RunFolder) -> None:
    conductor = conduct(folder, "{scheduler: none}", trials=2)
    assert [start(conductor), start(conductor), conductor.next()] == ["001", "002", None]


def test_interrupted_trials_are_told_apart(folder: RunFolder) -> None:
    conductor = conduct(folder, "{scheduler: none}")
    trial = start(conductor)
    hear(conductor, trial, row(1, 0.5))
    conductor.interrupt("SIGINT")
    assert conductor.counts()["interrupted"] == 1 and not conductor.running
    assert conductor._sampler.study.trials[0].state.is_finished()


def test_params_json_is_the_whole_resolved_configuration(folder: RunFolder) -> None:
    conductor = conduct(folder, "{scheduler: none}")
    trial = conductor.next()
    assert trial is not None
    written = json.loads((folder.trial(trial.id) / "params.json").read_text())
    assert written == trial.proposal.config.model_dump(mode="json")
    assert written["train"]["optimizer"]["name"] == "adam"


def test_an_epoch_that_diverged_is_never_the_best(folder: RunFolder) -> None:
    conductor = conduct(folder, "{scheduler: none}")
    hear(conductor, start(conductor), row(1, 0.3), row(2, 0.9, math.inf))
    best = conductor.best()
    assert best is not None and best.best["epoch"] == 1
