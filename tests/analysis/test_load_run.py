"""Our own run folders: whole, torn, damaged, hostile."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import analysis

MakeRun = Callable[..., Path]
SGD = {"train.lr": 0.1, "train.optimizer": "sgd", "train.optimizer[sgd].depth": 2}
ADAM = {"train.lr": 0.001, "train.optimizer": "adam"}
SAME_DAMAGE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)


@pytest.fixture
def three(make_run: MakeRun) -> Path:
    """Finished, stopped, failed."""
    return make_run(
        [
            {"values": [0.2, 0.6, 0.5], "state": "finished", "parameters": SGD, "label": "=cmd()"},
            {"values": [0.7], "state": "stopped", "reason": "below the upper third", "parameters": ADAM},
            {"state": "failed", "error": "Traceback:\n  File x\nValueError: no\n", "parameters": ADAM},
        ]
    )


def test_a_whole_run_has_no_problems(three: Path) -> None:
    results = analysis.load(three)
    assert (results.kind, results.name, results.metric, results.mode) == ("hypertune", "run", "val_accuracy", "max")
    assert results.problems == ()
    assert list(results.trials.index) == ["001", "002", "003"]
    assert list(results.trials["state"]) == ["finished", "stopped", "failed"]
    assert list(results.trials["reason"]) == [None, "below the upper third", "ValueError: no"]
    assert list(results.trials["label"]) == ["=cmd()", None, None]


def test_the_row_of_a_trial_is_its_best_epoch(three: Path) -> None:
    first = analysis.load(three).trials.loc["001"]
    assert (first["best_epoch"], first["val_accuracy"], first["val_loss"]) == (2, 0.6, 0.4)
    assert (first["epochs"], first["full_epochs"], first["seconds"]) == (3, 3, 3.0)


def test_a_trial_without_epochs_has_none_that_is_best(three: Path) -> None:
    last = analysis.load(three).trials.loc["003"]
    assert last["epochs"] == 0
    assert np.isnan(last["best_epoch"])
    assert np.isnan(last["val_accuracy"])


def test_best_counts_a_stopped_trial_as_the_search_does(three: Path) -> None:
    assert analysis.load(three).best() == "002"
    assert analysis.load(three, metric="val_loss").best() == "002"


def test_the_other_direction_than_the_run_recorded_is_refused(three: Path) -> None:
    assert analysis.load(three, mode="max").mode == "max"
    assert analysis.load(three, metric="val_loss", mode="max").best() == "001"  # of a metric that it did not record
    with pytest.raises(analysis.Unreadable, match="recorded val_accuracy with direction max, not min"):
        analysis.load(three, mode="min")


def test_columns_have_their_types_even_without_a_trial(three: Path, make_run: MakeRun) -> None:
    for path in (three, make_run([], name="empty")):
        results = analysis.load(path)
        trials = {name: str(dtype) for name, dtype in results.trials.dtypes.items()}
        assert {trials[name] for name in ("number", "epochs")} == {"int64"}
        assert {trials[name] for name in ("best_epoch", "full_epochs", "seconds", "started", "ended")} == {"float64"}
        assert {trials[name] for name in ("label", "reason")} == {"object"}
        assert str(results.trials.index.dtype) == trials["state"] == "str"
        assert results.trials.index.name == "trial"
        assert str(results.epochs["trial"].dtype) == "str"
        assert str(results.epochs["epoch"].dtype) == "int64"


def test_epochs_hold_every_line_with_metrics_as_floats(three: Path) -> None:
    epochs = analysis.load(three).epochs
    assert list(epochs["trial"]) == ["001", "001", "001", "002"]
    assert list(epochs["epoch"]) == [1, 2, 3, 1]
    assert {str(epochs[name].dtype) for name in ("val_accuracy", "val_loss", "time_total_s", "elapsed")} == {"float64"}
    assert "trial_id" not in epochs


def test_parameters_come_from_the_space_and_values_from_what_was_asked(three: Path) -> None:
    results = analysis.load(three)
    lr, optimizer, depth = results.parameters
    assert (lr.kind, lr.low, lr.high, lr.log, lr.ordered) == ("float", 1e-4, 0.1, True, True)
    assert optimizer.choices == ("adam", "sgd", "null")
    assert (depth.column, depth.kind) == ("train.optimizer.depth", "int")
    assert depth.active_when == ({"name": "train.optimizer", "values": ["sgd"]},)
    assert list(results.trials["train.lr"]) == [0.1, 0.001, 0.001]
    assert list(results.trials["train.optimizer.depth"].isna()) == [False, True, True]


def test_a_null_choice_differs_from_an_inactive_setting(make_run: MakeRun) -> None:
    path = make_run([{"parameters": {"train.optimizer": None}}, {"parameters": {}}])
    assert list(analysis.load(path).trials["train.optimizer"]) == ["null", None]


def test_without_events_states_and_settings_come_from_the_trials(three: Path) -> None:
    (three / "events.jsonl").unlink()
    results = analysis.load(three)
    assert list(results.trials["state"]) == ["finished", "interrupted", "failed"]
    assert list(results.trials["train.optimizer"]) == ["sgd"] * 3
    assert list(results.trials["train.optimizer.depth"]) == [2.0] * 3
    assert any("events.jsonl is missing" in problem for problem in results.problems)


def test_without_space_json_the_settings_are_those_that_vary(three: Path) -> None:
    (three / "space.json").unlink()
    results = analysis.load(three)
    assert [parameter.column for parameter in results.parameters] == ["train.lr", "train.optimizer"]
    assert results.parameters[0].log
    assert any("space.json is missing" in problem for problem in results.problems)


def test_without_run_json_the_metric_is_guessed_and_said(three: Path) -> None:
    (three / "run.json").unlink()
    results = analysis.load(three)
    assert (results.metric, results.mode, results.name) == ("val_accuracy", "max", "run")
    assert any("val_accuracy was guessed" in problem for problem in results.problems)


def test_without_params_json_the_run_tells_the_length(three: Path) -> None:
    (three / "trials/002/params.json").unlink()
    results = analysis.load(three)
    assert results.trials.loc["002", "full_epochs"] == 3
    assert results.problems == ("trials without a readable params.json: 1 (002)",)


def test_a_line_from_a_newer_format_is_said(make_run: MakeRun) -> None:
    assert "format 9" in analysis.load(make_run([], format=9)).problems[0]


def test_the_first_of_an_epoch_written_twice_is_kept_by_seq(make_run: MakeRun) -> None:
    path = make_run([{"values": [0.1, 0.2], "state": "finished"}])
    with (path / "trials/001/result.json").open("a") as file:
        file.write('{"seq": 99, "epoch": 1, "val_accuracy": 0.9}\n{"seq": 1, "epoch": 2, "val_accuracy": 0.0}\n')
    results = analysis.load(path)
    assert list(results.epochs["val_accuracy"]) == [0.1, 0.0]
    assert results.problems == ("epochs written twice, the first one kept: 2 (2 in trials/001/result.json)",)


def test_damaged_lines_are_skipped_and_counted_with_their_place(three: Path) -> None:
    place = three / "trials/001/result.json"
    lines = place.read_bytes().splitlines(keepends=True)
    place.write_bytes(lines[0][:40] + lines[1] + b"\xff\xfe\n[1]\n\0\0\0\n" + lines[2])
    results = analysis.load(three)
    assert list(results.epochs["epoch"]) == [3, 1]
    assert results.problems == ("damaged lines skipped: 4 (4 in trials/001/result.json)",)


def test_bare_nan_and_infinity_are_read_and_never_best(make_run: MakeRun) -> None:
    path = make_run([{"values": [0.1], "state": "diverged"}, {"state": "diverged"}])
    with (path / "trials/001/result.json").open("a") as file:
        file.write('{"epoch": 2, "val_accuracy": NaN}\n{"epoch": 3, "val_accuracy": Infinity}\n')
    with (path / "trials/002/result.json").open("a") as file:
        file.write('{"epoch": 1, "val_accuracy": null}\n')
    results = analysis.load(path)
    assert results.best() == "001"
    assert list(results.trials["val_accuracy"].fillna(-1)) == [0.1, -1]
    assert list(results.trials["epochs"]) == [3, 1]


def test_rows_of_different_metrics_leave_gaps(make_run: MakeRun) -> None:
    path = make_run([{"values": [0.1, 0.2], "state": "finished"}])
    with (path / "trials/001/result.json").open("a") as file:
        file.write('{"epoch": 3, "f1": 0.5, "note": "x", "list": [1], "val_accuracy": "high"}\n')
    results = analysis.load(path)
    assert list(results.epochs["f1"].isna()) == [True, True, False]
    assert list(results.epochs["note"]) == [None, None, "x"]
    assert "list" not in results.epochs
    assert results.problems == ("values that are no numbers, taken as missing: 1 (val_accuracy)",)


def test_numbers_that_no_table_holds_are_missing(make_run: MakeRun) -> None:
    path = make_run([{"values": [0.1], "state": "finished"}])
    with (path / "trials/001/result.json").open("a") as file:
        file.write(f'{{"epoch": 2, "val_accuracy": {10**400}}}\n{{"epoch": 1e300}}\n{{"epoch": true}}\n{"[" * 5000}\n')
    results = analysis.load(path)
    assert list(results.epochs["epoch"]) == [1, 2]
    assert results.best() == "001"
    assert "lines without an epoch, skipped: 2 (2 in trials/001/result.json)" in results.problems


def test_all_trials_failed(make_run: MakeRun) -> None:
    results = analysis.load(make_run([{"state": "failed", "error": ""}, {"state": "failed"}], status="failed"))
    assert results.best() is None
    assert list(results.trials["state"]) == ["failed", "failed"]
    assert len(results.epochs) == 0


@pytest.mark.parametrize(("held", "state", "status"), [(True, "running", "running"), (False, "interrupted", "dead")])
def test_a_trial_without_an_end_runs_only_while_the_lock_is_held(
    make_run: MakeRun, held: bool, state: str, status: str
) -> None:
    path = make_run([{"values": [0.1]}], status="running")
    lock = FileLock(path / "run.lock")
    lock.acquire()
    if not held:
        lock.release()
    results = analysis.load(path)
    lock.release()
    assert (results.trials.loc["001", "state"], results.run["status"]) == (state, status)
    assert bool(results.problems) is not held


def test_a_run_that_ended_while_its_lock_is_held_has_no_running_trial(make_run: MakeRun) -> None:
    path = make_run([{"values": [0.1]}], status="finished")
    with FileLock(path / "run.lock"):
        assert analysis.load(path).trials.loc["001", "state"] == "interrupted"


def test_a_resumed_trial_forgets_its_first_end(make_run: MakeRun) -> None:
    path = make_run([{"values": [0.1], "state": "interrupted"}])
    with (path / "events.jsonl").open("a") as file:
        file.write('{"seq": 90, "event": "started", "trial": "001", "elapsed": 9}\n')
        file.write('{"seq": 91, "event": "ended", "trial": "001", "state": "stopped", "elapsed": 11}\n')
    trial = analysis.load(path).trials.loc["001"]
    assert (trial["state"], trial["started"], trial["ended"]) == ("stopped", 0.2, 11)


def test_an_end_that_epochs_follow_is_not_the_last(make_run: MakeRun) -> None:
    path = make_run([{"values": [0.1], "state": "interrupted"}, {"values": [0.2], "state": "interrupted"}])
    with (path / "trials/001/result.json").open("a") as file:
        file.write('{"seq": 90, "epoch": 2, "val_accuracy": 0.9}\n')
    with FileLock(path / "run.lock"):
        run = json.loads((path / "run.json").read_text())
        (path / "run.json").write_text(json.dumps(run | {"status": "running"}))
        assert list(analysis.load(path).trials["state"]) == ["running", "interrupted"]
    with (path / "events.jsonl").open("a") as file:
        file.write('{"seq": 91, "event": "ended", "trial": "001", "state": "out_of_memory", "elapsed": 11}\n')
    trials = analysis.load(path).trials
    assert list(trials["state"]) == ["out_of_memory", "interrupted"]
    assert list(trials["ended"]) == [11, trials["ended"].iloc[1]]


def test_a_changed_trial_has_the_settings_that_it_went_on_with(make_run: MakeRun) -> None:
    path = make_run([{"values": [0.1], "state": "finished", "parameters": ADAM}])
    event = {"seq": 90, "event": "mutated", "trial": "001", "epoch": 1, "parameters": {**ADAM, "train.lr": 0.01}}
    with (path / "events.jsonl").open("a") as file:
        file.write(json.dumps(event) + "\n")
    assert analysis.load(path).trials.loc["001", "train.lr"] == 0.01


def test_a_repeat_is_marked_and_never_best(make_run: MakeRun) -> None:
    path = make_run([{"values": [0.5], "state": "finished"}, {"values": [0.9], "state": "finished"}])
    events = (path / "events.jsonl").read_text().replace('"trial": "002",', '"trial": "002", "repeat_of": "001",', 1)
    (path / "events.jsonl").write_text(events)
    results = analysis.load(path)
    assert list(results.trials["repeat_of"]) == [None, "001"]
    assert results.best() == "001"
    assert analysis.index(path.parent)[0].best == 0.5


def test_a_trial_that_breaks_a_constraint_is_marked_and_never_best(make_run: MakeRun) -> None:
    path = make_run(
        [{"values": [0.9, 0.8], "state": "finished"}, {"values": [0.3, 0.4], "state": "finished"}],
        constraints=["val_loss >= 0.15", "latency_ms <= 5", "nonsense"],
    )
    results = analysis.load(path)
    assert list(results.trials["breaks"]) == [None, None]  # latency is not known, the worse epoch keeps to the other
    assert (results.best(), results.trials.loc["001", "best_epoch"]) == ("001", 2)
    run = json.loads((path / "run.json").read_text())
    (path / "run.json").write_text(json.dumps(run | {"constraints": ["val_loss >= 0.55"]}))
    results = analysis.load(path)
    assert list(results.trials["breaks"]) == ["val_loss >= 0.55", None]
    assert (results.best(), analysis.index(path.parent)[0].best_trial) == ("002", "002")
    assert results.trials.loc["001", "val_accuracy"] == 0.9


def test_an_epoch_without_a_loss_is_no_result(make_run: MakeRun) -> None:
    path = make_run([{"values": [0.5, 0.4], "state": "diverged"}])
    row = path / "trials/001/result.json"
    row.write_text(row.read_text().replace('"val_loss": 0.5', '"val_loss": null'))
    assert analysis.load(path).trials.loc["001", "best_epoch"] == 2


def test_trials_alone_are_a_run(make_run: MakeRun, tmp_path: Path) -> None:
    path = make_run([{"values": [0.5, 0.6, 0.7], "state": "finished"}])
    for name in ("run.json", "space.json", "events.jsonl"):
        (path / name).unlink()
    assert analysis.is_run(path) and analysis.load(path).best() == "001"
    assert [run.path for run in analysis.index(tmp_path)] == [path]


def test_the_last_row_tells_the_end_that_a_kill_kept_from_the_events(make_run: MakeRun) -> None:
    path = make_run([{}, {}, {}])
    ends = ('"decision": "stop", "reason": "slow"', '"diverged": "val_loss is nan"', '"val_accuracy": 1')
    for trial, epoch, end in zip(("001", "002", "003"), (1, 1, 3), ends, strict=True):
        (path / f"trials/{trial}/result.json").write_text(f'{{"epoch": {epoch}, {end}}}\n')
    trials = analysis.load(path).trials
    assert list(trials["state"]) == ["stopped", "diverged", "finished"]
    assert list(trials["reason"]) == ["slow", "val_loss is nan", None]


def test_hostile_names_survive(make_run: MakeRun) -> None:
    name = "<script>alert('é😀')</script>\n=cmd\x00\\"
    path = make_run(
        [{"values": [0.1], "state": "failed", "label": name, "reason": name, "parameters": ADAM}], name="évil=1"
    )
    (path / "trials/001/result.json").write_text(json.dumps({"epoch": 1, name: 1, "val_accuracy": 1, "bad": "\ud800"}))
    results = analysis.load(path)
    assert results.name == "évil=1"
    assert (results.trials.loc["001", "label"], results.trials.loc["001", "reason"]) == (name, name)
    assert results.trials.loc["001", name] == 1
    assert list(results.epochs["bad"]) == ["\\ud800"]


def test_events_cannot_name_a_trial_outside(make_run: MakeRun, tmp_path: Path) -> None:
    path = make_run([])
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/result.json").write_text('{"epoch": 1, "val_accuracy": 0.5}\n')
    (path / "events.jsonl").write_text('{"event": "asked", "trial": "../../secret", "parameters": {}}\n')
    assert len(analysis.load(path).epochs) == 0


def test_links_out_of_the_folder_are_not_followed(make_run: MakeRun, tmp_path: Path) -> None:
    path = make_run([{"values": [0.1], "state": "finished"}])
    secret = tmp_path / "secret"
    shutil.copytree(path / "trials/001", secret)
    (path / "trials/002").symlink_to(secret)
    (path / "trials/001/result.json").unlink()
    (path / "trials/001/result.json").symlink_to(secret / "result.json")
    results = analysis.load(path)
    assert len(results.epochs) == 0
    assert "links not followed: 1 (trials/002)" in results.problems
    assert "files that are links or cannot be opened: 1 (trials/001/result.json)" in results.problems


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_in_a_file_s_place_is_not_waited_for(make_run: MakeRun) -> None:
    path = make_run([{"state": "failed"}])
    (path / "trials/001/result.json").unlink()
    os.mkfifo(path / "trials/001/result.json")
    assert len(analysis.load(path).epochs) == 0


def test_nothing_is_written(three: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in [three, *three.rglob("*")]}
    analysis.load(three)
    assert {file: file.stat().st_mtime_ns for file in [three, *three.rglob("*")]} == before


def test_a_cut_anywhere_loses_the_last_line_at_most(three: Path) -> None:
    place = three / "trials/001/result.json"
    data = place.read_bytes()
    for end in range(0, len(data), 7):
        place.write_bytes(data[:end])
        epochs = analysis.load(three).epochs
        kept = int((epochs["trial"] == "001").sum()) if len(epochs) else 0
        assert kept in {data[:end].count(b"\n"), data[: end + 1].count(b"\n")}


@SAME_DAMAGE
@given(cut=st.floats(0, 1), name=st.sampled_from(["events.jsonl", "run.json", "space.json", "trials/001/params.json"]))
def test_a_cut_in_any_file_loses_no_epoch(three: Path, cut: float, name: str) -> None:
    data = (three / name).read_bytes()
    (three / name).write_bytes(data[: int(cut * len(data))])
    results = analysis.load(three)
    (three / name).write_bytes(data)
    assert len(results.epochs) == 4
    assert list(results.trials.index) == ["001", "002", "003"]


@SAME_DAMAGE
@given(at=st.floats(0, 1, exclude_max=True), byte=st.integers(0, 255), file=st.integers(0, 9))
def test_any_byte_anywhere_may_be_wrong(three: Path, at: float, byte: int, file: int) -> None:
    files = sorted(path for path in three.rglob("*") if path.is_file() and path.stat().st_size)
    place = files[file % len(files)]
    data = place.read_bytes()
    where = int(at * len(data))
    place.write_bytes(data[:where] + bytes([byte]) + data[where + 1 :])
    results = analysis.load(three)
    place.write_bytes(data)
    assert len(results.trials) >= 3


JSON: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
KEYS = ("seq", "epoch", "event", "trial", "state", "parameters", "elapsed", "val_accuracy", "train", "name", "path")


@SAME_DAMAGE
@given(
    line=st.dictionaries(st.sampled_from(KEYS), JSON), name=st.sampled_from(["events.jsonl", "trials/001/result.json"])
)
def test_any_line_may_hold_anything(three: Path, line: dict[str, Any], name: str) -> None:
    data = (three / name).read_bytes()
    (three / name).write_bytes(data + json.dumps(line).encode())
    results = analysis.load(three)
    (three / name).write_bytes(data)
    assert {"001", "002", "003"} <= set(results.trials.index)


@SAME_DAMAGE
@given(value=JSON, name=st.sampled_from(["run.json", "space.json", "trials/001/params.json"]), key=st.text(max_size=4))
def test_any_file_may_hold_anything(three: Path, value: Any, name: str, key: str) -> None:
    data = (three / name).read_bytes()
    whole = json.loads(data)
    for damaged in (value, {**whole, key: value} if isinstance(whole, dict) else [value, *whole]):
        (three / name).write_text(json.dumps(damaged))
        assert len(analysis.load(three).trials) == 3
    (three / name).write_bytes(data)


@pytest.mark.parametrize(
    "key", ["name", "status", "created", "objectives", "epochs", "format", "trials", "data", "seeds"]
)
@pytest.mark.parametrize("value", [None, 3, "x", [], [None], {"a": 1}])
def test_run_json_may_hold_anything_under_any_key(make_run: MakeRun, key: str, value: Any) -> None:
    path = make_run([{"values": [0.5], "state": "finished"}])
    run = json.loads((path / "run.json").read_text())
    (path / "run.json").write_text(json.dumps(run | {key: value}))
    assert analysis.load(path).best() == "001"
    assert len(analysis.index(path.parent)) == 1
