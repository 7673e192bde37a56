"""When each trial ran on which worker, and what each class's accuracy was at a trial's best epoch."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import analysis

MakeRun = Callable[..., Path]
FIXTURES = Path(__file__).parents[1] / "fixtures"


def stamp_rows(run: Path, trial: str, *rows: dict[str, Any]) -> None:
    text = "".join(json.dumps({"epoch": epoch, "seq": epoch, **row}) + "\n" for epoch, row in enumerate(rows, 1))
    (run / "trials" / trial / "result.json").write_text(text)


def write_events(run: Path, *events: dict[str, Any]) -> None:
    (run / "events.jsonl").write_text("".join(json.dumps({"trial": "001", **event}) + "\n" for event in events))


def stretches(run: Path) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in analysis.load(run).stretches.itertuples(index=False)]


def started(elapsed: float, pid: int, **more: Any) -> dict[str, Any]:
    return {"event": "started", "elapsed": elapsed, "host": "a", "pid": pid, **more}


def test_a_stretch_begins_an_epoch_before_it_is_heard_of(make_run: MakeRun) -> None:
    run = make_run([{}])
    stamp_rows(run, "001", {"elapsed": 5.0, "epoch_seconds": 3.0}, {"elapsed": 8.0, "epoch_seconds": 3.0})
    write_events(run, started(5.0, 7), {"event": "ended", "elapsed": 9.0, "state": "finished"})
    assert stretches(run) == [("001", 1, 2.0, 9.0)]


def test_a_retry_begins_another_stretch_on_another_worker(make_run: MakeRun) -> None:
    run = make_run([{}])
    stamp_rows(run, "001", {"elapsed": 5.0, "epoch_seconds": 3.0}, {"elapsed": 20.0, "epoch_seconds": 4.0})
    write_events(run, started(5.0, 7), {"event": "retried", "elapsed": 9.0}, started(20.0, 8))
    assert stretches(run) == [("001", 1, 2.0, 9.0), ("001", 2, 16.0, 20.0)]


def test_after_a_kill_a_stretch_ends_with_its_last_row(make_run: MakeRun) -> None:
    run = make_run([{}])
    stamp_rows(run, "001", {"elapsed": 5.0}, {"elapsed": 8.0}, {"elapsed": 30.0})
    write_events(run, started(5.0, 7), started(30.0, 7), {"event": "ended", "elapsed": 31.0, "state": "finished"})
    assert [row[1:] for row in stretches(run)] == [(1, 5.0, 8.0), (1, 30.0, 31.0)]


def test_workers_are_numbered_by_first_appearance(make_run: MakeRun) -> None:
    run = make_run([{}, {}, {}])
    write_events(run, started(9.0, 7), started(4.0, 8, trial="002"), started(12.0, 8, trial="003"))
    assert [row[:2] for row in stretches(run)] == [("001", 2), ("002", 1), ("003", 1)]


@pytest.mark.parametrize("name", ["ray_pbt", "ray_random", "hypertune_digits"])
def test_real_stretches_follow_one_another(name: str) -> None:
    results = analysis.load(FIXTURES / name)
    found = results.stretches
    assert set(found["trial"]) == set(results.trials.index[results.trials["epochs"] > 0])
    assert (found["ended"] >= found["began"]).all() and set(found["worker"]) == set(range(1, found["worker"].max() + 1))
    for _, own in found.groupby("trial"):
        assert own["began"].is_monotonic_increasing
    assert not found["trial"].is_unique if name == "ray_pbt" else found["trial"].is_unique


def test_classes_are_those_of_the_best_epoch(make_run: MakeRun) -> None:
    run = make_run([{}, {}, {}], data={"classes": ["cat", "dog"]})
    for trial, low in (("001", [0.1, None]), ("002", [0.2])):
        best = {"val_accuracy": 0.9, "val_class_accuracy": low}
        stamp_rows(run, trial, {"val_accuracy": 0.5, "val_class_accuracy": [0.7, 0.7]}, best)
    classes = analysis.load(run).classes
    assert classes is not None and list(classes.columns) == ["cat", "dog"] and list(classes["cat"][:2]) == [0.1, 0.2]
    assert classes["dog"].isna().all() and list(classes["cat"].isna()) == [False, False, True]


def test_without_them_there_are_no_classes(make_run: MakeRun) -> None:
    assert analysis.load(make_run([{"values": [0.5]}])).classes is None
