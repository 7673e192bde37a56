"""The two readers of run folders, ours and the one that analysis has of its own, say the same of every fixture."""

from __future__ import annotations

from pathlib import Path

import pytest

import analysis
from tuner.records.reader import read_record
from tuner.records.status import read_status
from tuner.spec.objective import number

FIXTURES = sorted((Path(__file__).parents[1] / "fixtures").glob("hypertune_*"))


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.name)
def test_trials_epochs_and_their_values_are_the_same(path: Path) -> None:
    record, results = read_record(path), analysis.load(path)
    rows = [line for line in record.lines if line.event == "row"]
    assert [line.trial for line in record.lines if line.event == "asked"] == list(results.trials.index)
    ours = {(line.trial, line.fields["epoch"], str(number(line.fields["val_accuracy"]))) for line in rows}
    columns = results.epochs[["trial", "epoch", "val_accuracy"]]
    theirs = {(trial, epoch, str(value)) for trial, epoch, value in columns.itertuples(index=False)}
    assert ours == theirs and len(ours) == len(rows) == len(columns)
    assert record.problems == ()


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.name)
def test_states_status_and_the_best_trial_are_the_same(path: Path) -> None:
    status, results = read_status(path), analysis.load(path)
    assert status.states == results.trials["state"].value_counts().to_dict()
    assert status.status == results.run["status"]
    assert status.best is not None and status.best.trial == results.best()
    assert status.best.epoch == results.trials.loc[status.best.trial, "best_epoch"]


def test_there_are_fixtures() -> None:
    assert len(FIXTURES) >= 2
