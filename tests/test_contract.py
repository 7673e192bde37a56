"""The run folder's writer and its reader for analysis are held together: what one writes, the other reads."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

import analysis
from tuner.records import writer
from tuner.runner.conductor import Conductor
from tuner.search.preflight import Size
from tuner.search.sampler import Sampler
from tuner.spec.search import RandomSampler
from tuner.spec.space import parse_space

TEXT = """
name: both
data: {dataset: digits}
model: {name: cnn, depth: {int: [1, 3]}, width: [{choice: [8, 16]}, 16, {choice: [32, 64]}]}
train:
  epochs: 2
  optimizer:
    choice:
      adam: {lr: {loguniform: [1.0e-4, 1.0e-2]}}
      sgd: {lr: {uniform: [0.01, 0.1]}, nesterov: {choice: [true, false]}}
search: {trials: 8, scheduler: none, sampler: random}
"""


@pytest.fixture
def written(tmp_path: Path) -> tuple[Conductor, analysis.Results]:
    """A search over synthetic epochs, then read: two trials finished, one diverged, one failed, one running."""
    space = parse_space(TEXT, "both.yaml")
    with writer.create(tmp_path, "both") as folder:
        folder.write_space(space.text, space.to_json())
        folder.write_run(
            name="both", status="running", objectives=[{"metric": "val_accuracy", "mode": "max"}], epochs=2, trials=8
        )
        sampler = Sampler(space, lambda config: Size(1, 1), RandomSampler())
        conductor = Conductor(space, sampler, folder, trials=8, full=2, seconds=None)
        for _ in range(5):
            conductor.next()
        curves = {"001": [(0.5, 1.0), (0.4, 1.1)], "002": [(0.3, 1.5), (0.6, 0.9)], "003": [(0.1, math.nan)]}
        for trial, curve in {**curves, "005": [(0.2, 2.0)]}.items():
            for epoch, (accuracy, loss) in enumerate(curve, start=1):
                conductor.hear(trial, make_row(epoch, accuracy, loss), host="here", pid=1)
        conductor.fail("004", "Traceback\nRuntimeError: no")
        return conductor, analysis.load(folder.path)


def make_row(epoch: int, accuracy: float, loss: float) -> dict[str, Any]:
    return {
        "epoch": epoch, "train_loss": loss, "train_accuracy": accuracy, "val_loss": loss, "val_accuracy": accuracy,
        "val_macro_f1": accuracy, "accuracy_gap": 0.0, "lr": 0.1, "epoch_seconds": 1.5, "images_per_second": 10.0,
        "peak_memory_mb": 1.0, "params": 10,
    }  # fmt: skip


def test_states_epochs_and_reasons_are_the_same(written: tuple[Conductor, analysis.Results]) -> None:
    conductor, results = written
    for trial in conductor.trials.values():
        row = results.trials.loc[trial.id]
        assert (row["state"], row["epochs"]) == (trial.state or "running", trial.epochs)
        assert (row["reason"] or "") == trial.reason
        assert row["seconds"] == trial.seconds


def test_the_best_trial_and_its_epoch_are_the_same(written: tuple[Conductor, analysis.Results]) -> None:
    conductor, results = written
    best = conductor.best()
    assert best is not None and results.best() == best.id == "002"
    assert results.trials.loc["002", "best_epoch"] == best.best["epoch"] == 2


def test_parameters_are_the_same_under_their_paths_and_missing_where_they_do_not_exist(
    written: tuple[Conductor, analysis.Results],
) -> None:
    conductor, results = written
    columns = {p.name: p.column for p in results.parameters}
    for trial in conductor.trials.values():
        row = results.trials.loc[trial.id].dropna()
        read = {c: v for c, v in row.items() if c in columns.values()}
        chosen = {columns[name]: value for name, value in trial.parameters.items()}
        assert {c: str(v).lower().removesuffix(".0") for c, v in read.items()} == {
            c: str(v).lower().removesuffix(".0") for c, v in chosen.items()
        }


def test_every_metric_of_every_epoch_arrives(written: tuple[Conductor, analysis.Results]) -> None:
    _, results = written
    assert len(results.epochs) == 6
    rows = [
        json.loads(x) for p in sorted(results.path.glob("trials/*/result.json")) for x in p.read_text().splitlines()
    ]
    for name in make_row(1, 0.0, 0.0):
        assert results.epochs[name].fillna(-1).tolist() == [-1 if r[name] is None else r[name] for r in rows]


def test_nothing_is_wrong_with_a_run_that_is_under_way(written: tuple[Conductor, analysis.Results]) -> None:
    _, results = written
    assert results.problems == () and results.run["status"] == "running"
