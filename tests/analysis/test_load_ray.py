"""Anybody's Ray Tune folders: three real ones, made by tests/fixtures/make_ray.py, and damage to them."""

from __future__ import annotations

import json
import math
import pickle
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import analysis

FIXTURES = Path(__file__).parents[1] / "fixtures"


@pytest.fixture
def grid(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FIXTURES / "ray_grid", tmp_path / "ray_grid"))


@pytest.fixture
def asha(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FIXTURES / "ray_asha", tmp_path / "ray_asha"))


@pytest.fixture
def long_ago(monkeypatch: pytest.MonkeyPatch) -> None:
    """No run wrote a moment ago."""
    monkeypatch.setattr("analysis.folders.ray_folder.time.time", lambda: 0.0)


def trial_folder(run: Path, part: str) -> Path:
    return next(folder for folder in run.iterdir() if part in folder.name)


def test_a_grid_search_with_a_failure() -> None:
    results = analysis.load(FIXTURES / "ray_grid")
    assert (results.kind, results.name, results.metric, results.mode) == ("ray", "ray_grid", "val_accuracy", "max")
    assert sorted(results.trials["state"]) == ["failed"] + ["finished"] * 5
    failed = results.trials[results.trials["state"] == "failed"].iloc[0]
    assert failed["reason"] == "RuntimeError: loss exploded <script>alert(1)</script>"
    assert (failed["epochs"], failed["full_epochs"], failed["lr"], failed["batch_size"]) == (1, 3, 0.1, 64)
    best = results.trials.loc[str(results.best())]
    assert (best["lr"], best["best_epoch"], best["val_accuracy"]) == (0.001, 3, pytest.approx(0.749))
    assert len(results.epochs) == 16


def test_settings_that_vary_are_the_parameters() -> None:
    parameters = {p.name: p for p in analysis.load(FIXTURES / "ray_grid").parameters}
    assert set(parameters) == {"batch_size", "lr"}
    assert (parameters["lr"].kind, parameters["lr"].log, parameters["lr"].low) == ("float", True, 0.001)
    assert (parameters["batch_size"].kind, parameters["batch_size"].log) == ("int", False)


def test_nested_metrics_and_settings_are_flat() -> None:
    results = analysis.load(FIXTURES / "ray_asha")
    assert results.metric == "val/accuracy"
    assert {"val/accuracy", "val/loss", "train/loss"} <= set(results.epochs.columns)
    assert {"optimizer.lr", "optimizer.name", "width", "layers"} <= {p.column for p in results.parameters}
    assert set(results.trials["layers"]) == {"32", "32-64"}
    assert {"hostname", "node_ip", "pid", "config"}.isdisjoint(results.epochs.columns)
    assert list(results.epochs["note"].unique()) == ["é"]


def test_stopped_finished_and_diverged_are_told_apart() -> None:
    results = analysis.load(FIXTURES / "ray_asha")
    diverged = results.trials[results.trials["width"] == 13].iloc[0]
    assert (diverged["state"], diverged["epochs"], diverged["best_epoch"]) == ("diverged", 9, 1)
    assert diverged["reason"] == "val/accuracy was nan at epoch 9"
    rest = results.trials[results.trials["width"] != 13]
    assert list(rest["state"]) == ["finished" if epochs == 9 else "stopped" for epochs in rest["epochs"]]
    assert {"finished", "stopped"} <= set(rest["state"])


@pytest.mark.usefixtures("long_ago")
def test_a_killed_run_is_interrupted() -> None:
    results = analysis.load(FIXTURES / "ray_killed")
    assert list(results.trials["state"]) == ["interrupted"] * 4
    assert (results.metric, results.mode, results.run["status"]) == ("val_loss", "min", "interrupted")
    assert sorted(results.trials["epochs"] > 0) == [False, False, True, True]
    assert results.trials["lr"].notna().all()
    assert results.problems == ("no direction of val_loss is recorded: min was taken by its name",)


def test_a_run_that_wrote_a_moment_ago_is_running(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [line for file in FIXTURES.glob("ray_killed/*/result.json") for line in file.read_text().splitlines()]
    last = max(json.loads(line)["timestamp"] for line in lines)
    monkeypatch.setattr("analysis.folders.ray_folder.time.time", lambda: last + 60.0)
    results = analysis.load(FIXTURES / "ray_killed")
    assert set(results.trials["state"]) == {"running"}
    assert results.trials["ended"].isna().all()


def test_fixtures_name_no_machine_and_hold_no_pickle() -> None:
    for file in FIXTURES.rglob("ray_*/**/*"):
        text = file.read_text() if file.is_file() else ""
        assert not re.search(r"/(tmp|root|home|work|Users)/|[0-9a-f]{40}|\b(?!127\.0\.0\.1)\d+\.\d+\.\d+\.\d+\b", text)
        assert file.suffix in (".json", ".csv", ".txt") or file.is_dir()


def test_trials_are_in_order_of_start(grid: Path) -> None:
    trials = analysis.load(grid).trials
    assert list(trials["number"]) == [1, 2, 3, 4, 5, 6]
    assert trials["started"].is_monotonic_increasing
    assert (trials["ended"] >= trials["started"]).all()


def test_an_asked_metric_wins_and_an_unknown_one_is_refused(grid: Path) -> None:
    results = analysis.load(grid, metric="val_loss")
    assert (results.metric, results.mode) == ("val_loss", "min")
    assert analysis.load(grid, metric="val_loss", mode="max").mode == "max"
    with pytest.raises(analysis.Unreadable, match=r"no trial reports foo; there are .*val_accuracy"):
        analysis.load(grid, metric="foo")


@pytest.mark.usefixtures("long_ago")
def test_without_a_state_file_the_trials_tell(grid: Path) -> None:
    whole = analysis.load(grid)
    next(grid.glob("experiment_state*")).unlink()
    results = analysis.load(grid)
    assert results.trials["state"].to_dict() == whole.trials["state"].to_dict()
    assert any("no readable experiment_state" in problem for problem in results.problems)


def test_a_state_file_cut_in_half_gives_way_to_the_one_before(grid: Path) -> None:
    state = next(grid.glob("experiment_state*"))
    text = state.read_text()
    (grid / "experiment_state-9999-01-01_00-00-00.json").write_text(text[: len(text) // 2])
    results = analysis.load(grid)
    assert "damaged files: 1 (experiment_state-9999-01-01_00-00-00.json)" in results.problems
    assert not any("no readable" in problem for problem in results.problems)
    assert len(results.trials) == 6


def test_progress_csv_stands_in_for_an_empty_result_json(asha: Path) -> None:
    whole = analysis.load(asha)
    for file in asha.glob("*/result.json"):
        file.write_text("")
    results = analysis.load(asha)
    assert results.epochs["val/accuracy"].equals(whole.epochs["val/accuracy"])
    assert results.trials["state"].equals(whole.trials["state"])
    assert any(problem.startswith("trials read from progress.csv") for problem in results.problems)


def test_settings_come_from_the_rows_or_the_state_where_params_json_is_missing(asha: Path) -> None:
    whole = analysis.load(asha)
    for file in asha.glob("*/params.json"):
        file.unlink()
    assert analysis.load(asha).trials[whole.trials.columns].equals(whole.trials)
    for file in asha.glob("*/result.json"):
        file.unlink()
    assert analysis.load(asha).trials["optimizer.lr"].equals(whole.trials["optimizer.lr"])


def test_a_trial_that_failed_at_once_leaves_no_epoch(grid: Path) -> None:
    folder = trial_folder(grid, "_00005_")
    (folder / "result.json").write_text("")
    (folder / "progress.csv").unlink()
    results = analysis.load(grid)
    failed = results.trials[results.trials["state"] == "failed"].iloc[0]
    assert failed["epochs"] == 0
    assert math.isnan(failed["val_accuracy"])


def test_a_damaged_progress_csv_is_read_up_to_the_damage(grid: Path) -> None:
    folder = trial_folder(grid, "_00000_")
    (folder / "result.json").unlink()
    with (folder / "progress.csv").open("a") as file:
        file.write("9" * 200_000)
    results = analysis.load(grid)
    assert len(results.epochs) == 16
    assert any(problem.startswith("damaged files, read up to the damage: 1") for problem in results.problems)


def test_the_state_file_of_older_versions_is_read(asha: Path) -> None:
    whole = analysis.load(asha)
    place = next(asha.glob("experiment_state*"))
    state = json.loads(place.read_text())
    old = [json.dumps(json.loads(one) | json.loads(two)) for one, two in state.pop("trial_data")]
    place.write_text(json.dumps(state | {"checkpoints": old}))
    assert analysis.load(asha).trials.equals(whole.trials)


def test_a_damaged_trial_in_the_state_file_leaves_the_others(grid: Path) -> None:
    place = next(grid.glob("experiment_state*"))
    state = json.loads(place.read_text())
    state["trial_data"][0][0] = state["trial_data"][0][0][:99]
    place.write_text(json.dumps(state | {"runner_data": {"_metric": "val_loss"}}))
    results = analysis.load(grid)
    assert (results.metric, len(results.trials)) == ("val_loss", 6)
    assert f"damaged trial entries skipped: 1 ({place.name})" in results.problems


def test_a_torn_line_that_ray_wrote_on_costs_one_line(grid: Path) -> None:
    file = trial_folder(grid, "_00000_") / "result.json"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text(lines[0][:50] + lines[1] + lines[2])
    results = analysis.load(grid)
    assert len(results.epochs) == 14
    assert any(problem.startswith("damaged lines skipped: 1 (") for problem in results.problems)


def test_an_epoch_repeated_after_a_restore_counts_once(grid: Path) -> None:
    file = trial_folder(grid, "_00000_") / "result.json"
    line = json.loads(file.read_text().splitlines()[1]) | {"val_accuracy": 0.99}
    with file.open("a") as out:
        out.write(json.dumps(line) + "\n")
    results = analysis.load(grid)
    assert len(results.epochs) == 16
    assert results.trials.loc[str(results.best()), "val_accuracy"] == 0.99


def test_empty_trial_folders_are_said(tmp_path: Path) -> None:
    (tmp_path / "tuner.pkl").touch()
    (tmp_path / "train_00000_0_lr=1_2026-01-01_00-00-00").mkdir()
    results = analysis.load(tmp_path)
    assert len(results.trials) == 0
    assert results.metric is None
    assert any(problem.startswith("trial folders with nothing to read: 1") for problem in results.problems)


def test_one_trial_has_nothing_that_varies(grid: Path) -> None:
    for folder in [*grid.glob("train_grid*")][1:]:
        shutil.rmtree(folder)
    next(grid.glob("experiment_state*")).unlink()
    results = analysis.load(grid)
    assert len(results.trials) == 1
    assert results.parameters == ()


def write_trial(run: Path, name: str, config: dict[str, Any], *rows: dict[str, Any]) -> None:
    (run / name).mkdir(parents=True)
    (run / name / "params.json").write_text(json.dumps(config))
    lines = [{"training_iteration": n, **row} for n, row in enumerate(rows, 1)]
    (run / name / "result.json").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_a_metric_never_hides_a_column_or_a_setting(tmp_path: Path) -> None:
    for name, lr in (("a", 0.1), ("b", 0.2)):
        write_trial(tmp_path, name, {"lr": lr, "state": name}, {"lr": lr / 2, "epoch": 7, "seconds": 3, "loss": lr})
    results = analysis.load(tmp_path)
    assert [p.column for p in results.parameters] == ["config/lr", "config/state"]
    assert list(results.trials["config/lr"]) == [0.1, 0.2]
    assert list(results.trials["lr"]) == [0.05, 0.1]
    assert list(results.epochs["metric/epoch"]) == [7, 7]
    assert list(results.epochs["epoch"]) == [1, 1]


@pytest.mark.parametrize(
    ("values", "kind", "log", "ordered"),
    [
        ([1, 2], "int", False, True),
        ([1, 50], "int", True, True),
        ([0.1, 1], "float", False, True),
        ([0, 1000.0], "float", False, True),
        ([True, False], "choice", False, False),
        (["a", "b"], "choice", False, False),
        ([1, "a"], "choice", False, False),
        ([None, 1], "choice", False, False),
        ([[1], [2, 3]], "choice", False, False),
    ],
)
def test_kinds_are_inferred(tmp_path: Path, values: list[Any], kind: str, log: bool, ordered: bool) -> None:
    for name, value in zip("ab", values, strict=True):
        write_trial(tmp_path, name, {"x": {"y": value, "same": 1}}, {"loss": 1.0})
    (parameter,) = analysis.load(tmp_path).parameters
    assert (parameter.name, parameter.kind, parameter.log, parameter.ordered) == ("x.y", kind, log, ordered)


@pytest.mark.parametrize(
    ("row", "metric", "mode"),
    [
        ({"val_loss": 1, "mean_accuracy": 1}, "mean_accuracy", "max"),
        ({"train/accuracy": 1, "eval": {"loss": 1}}, "eval/loss", "min"),
        ({"train": {"loss": 1}}, "train/loss", "min"),
        ({"rmse": 1, "foo": 2}, "rmse", "min"),
        ({"foo": 1}, "foo", "max"),
        ({"foo": 1, "bar": 1}, None, "max"),
    ],
)
def test_the_metric_is_guessed_by_preference(
    tmp_path: Path, row: dict[str, Any], metric: str | None, mode: str
) -> None:
    write_trial(tmp_path, "a", {}, row)
    results = analysis.load(tmp_path)
    assert (results.metric, results.mode) == (metric, mode)
    assert any("guessed" in problem for problem in results.problems)


def test_hostile_names_survive(tmp_path: Path) -> None:
    name = "=cmd<script>\n'é😀"
    write_trial(tmp_path, name, {name: "<b>"}, {name: 1.0})
    write_trial(tmp_path, "other", {name: "=1+1"}, {name: 2.0, "trial_id": "\ud800"})
    results = analysis.load(tmp_path)
    assert set(results.trials.index) == {name, "\\ud800"}
    assert list(results.trials[f"config/{name}"]) == ["<b>", "=1+1"]
    assert list(results.epochs[name]) == [1.0, 2.0]


def test_two_trials_of_one_id_stay_two(tmp_path: Path) -> None:
    for folder in ("a", "b", "c"):
        write_trial(tmp_path, folder, {}, {"loss": 1.0, "trial_id": "b"})
    assert sorted(analysis.load(tmp_path).trials.index) == ["b", "b'", "c"]


def test_nothing_is_unpickled(grid: Path, tmp_path: Path) -> None:
    trap = pickle.dumps(Trap(str(tmp_path / "sprung")))
    for name in ("tuner.pkl", "searcher-state-1.pkl", "search_gen_state-1.json"):
        (grid / name).write_bytes(trap)
    folder = trial_folder(grid, "_00000_")
    (folder / "params.pkl").write_bytes(trap)
    (folder / "params.json").write_text(
        json.dumps({"lr": 0.5, "net": {"_type": "CLOUDPICKLE_FALLBACK", "value": trap.hex()}})
    )
    results = analysis.load(grid)
    assert not (tmp_path / "sprung").exists()
    assert {p.name for p in results.parameters} == {"batch_size", "lr"}


class Trap:
    """Touches a file when unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (Path(self.path),)


def test_a_state_file_cannot_name_a_folder_outside(tmp_path: Path) -> None:
    run = tmp_path / "run"
    write_trial(tmp_path, "secret", {"key": 1}, {"loss": 1.0})
    run.mkdir()
    entry = json.dumps({"trial_id": "x", "relative_logdir": "../secret", "status": "TERMINATED"})
    (run / "experiment_state-1.json").write_text(json.dumps({"trial_data": [[entry, "{}"]]}))
    assert len(analysis.load(run).epochs) == 0


def test_links_out_of_the_folder_are_not_followed(grid: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    write_trial(outside, "a", {}, {"val_accuracy": 2.0})
    (grid / "linked").symlink_to(outside / "a")
    file = trial_folder(grid, "_00000_") / "result.json"
    file.unlink()
    file.symlink_to(outside / "a/result.json")
    results = analysis.load(grid)
    assert results.epochs["val_accuracy"].max() < 1
    assert "links not followed: 1 (linked)" in results.problems


def test_a_cut_anywhere_loses_the_last_line_at_most(grid: Path) -> None:
    folder = trial_folder(grid, "_00000_")
    (folder / "progress.csv").unlink()
    data = (folder / "result.json").read_bytes()
    for end in range(0, len(data), 13):
        (folder / "result.json").write_bytes(data[:end])
        kept = len(analysis.load(grid).epochs) - 13
        assert kept in {data[:end].count(b"\n"), data[: end + 1].count(b"\n")}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(at=st.floats(0, 1, exclude_max=True), byte=st.integers(0, 255), file=st.integers(0, 99))
def test_any_byte_anywhere_may_be_wrong(grid: Path, at: float, byte: int, file: int) -> None:
    files = sorted(path for path in grid.rglob("*") if path.is_file())
    place = files[file % len(files)]
    data = place.read_bytes()
    where = int(at * len(data))
    place.write_bytes(data[:where] + bytes([byte]) + data[where + 1 :])
    results = analysis.load(grid)
    place.write_bytes(data)
    assert len(results.trials) >= 6


@pytest.mark.parametrize("make", ["missing", "file", "empty", "foreign", "trial", "above"])
def test_a_folder_that_is_no_run_is_refused_in_plain_words(grid: Path, tmp_path: Path, make: str) -> None:
    path = tmp_path / make
    words = {
        "missing": "no such folder",
        "file": "a file, not a folder",
        "empty": "is empty",
        "foreign": "nothing in this folder",
        "trial": "one trial",
        "above": "holds runs, name one of them .ray_grid",
    }
    if make == "file":
        path.touch()
    elif make in ("empty", "foreign"):
        path.mkdir()
    if make == "foreign":
        (path / "thesis.txt").touch()
    path = {"trial": trial_folder(grid, "_00000_"), "above": tmp_path}.get(make, path)
    with pytest.raises(analysis.Unreadable, match=words[make]) as error:
        analysis.load(path)
    assert "expected a run folder" in str(error.value)
