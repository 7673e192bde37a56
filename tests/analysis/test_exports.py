"""Runs in other tools: each is read back with that tool's own reader."""

from __future__ import annotations

import importlib.util
import math
import sqlite3
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import pytest
from optuna.trial import TrialState

import analysis
from analysis.exports import plain, to_optuna
from analysis.exports.targets import Target, export, parse_target
from analysis.folders.goal import NO_GOAL, Constraint, Goal, Objective
from analysis.results import Results

FIXTURES = Path(__file__).parents[1] / "fixtures"
EVIL = "../../<b>`x`</b>\n=1+1"
TRIALS: list[dict[str, Any]] = [
    {"values": (0.2, 0.5, 0.4), "state": "finished", "parameters": {"train.lr": 0.01, "train.optimizer": "adam"}},
    {"values": (0.1,), "state": "stopped", "label": EVIL,
     "parameters": {"train.lr": 0.02, "train.optimizer": "sgd", "train.optimizer[sgd].depth": 2}},
    {"values": (0.3, None), "state": "diverged", "parameters": {"train.lr": 0.1, "train.optimizer": None}},
    {"values": (), "state": "failed", "reason": "oh", "parameters": {"train.lr": 0.03, "train.optimizer": "adam"}},
    {"values": (0.4,), "parameters": {"train.lr": 0.04, "train.optimizer": "adam"}},
]  # fmt: skip

MakeRun = Callable[..., Path]


@pytest.fixture
def results(make_run: MakeRun) -> Results:
    return analysis.load(make_run(TRIALS))


def study_of(path: Path, name: str = "run") -> optuna.Study:
    return optuna.load_study(study_name=name, storage=f"sqlite:///{path}")


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("optuna.db", ("optuna", "optuna.db")),
        ("a b/x.sqlite", ("optuna", "a b/x.sqlite")),
        ("sqlite:///x.db", ("optuna", "x.db")),
        ("sqlite:////tmp/x", ("optuna", "/tmp/x")),
        ("tensorboard:logs", ("tensorboard", "logs")),
        ("mlflow:runs", ("mlflow", "runs")),
        ("mlflow:sqlite:///m.db", ("mlflow", "sqlite:///m.db")),
        ("mlflow:http://host:5000", ("mlflow", "http://host:5000")),
    ],
)
def test_a_target_is_a_tool_and_a_place(text: str, target: tuple[str, str]) -> None:
    assert parse_target(text) == target


@pytest.mark.parametrize(
    "text", ["", "logs", "x.csv", "tensorboard:", "mlflow:", "sqlite:x.db", "sqlite:///", "wandb:x", "http://h/x.db"]
)
def test_what_is_no_target_is_told_the_forms(text: str) -> None:
    with pytest.raises(ValueError, match=r"sqlite:///|tensorboard|mlflow"):
        parse_target(text)


def test_a_place_on_the_network_is_none_for_tensorboard() -> None:
    with pytest.raises(ValueError, match="folder, not an address"):
        parse_target("tensorboard:gs://bucket")


# ---------------------------------------------------------------- plain


def test_plain_trials_hold_what_the_tables_hold(results: Results) -> None:
    for folder in ("hypertune_digits", "ray_asha", "ray_grid", "ray_killed"):
        loaded = analysis.load(FIXTURES / folder)
        made = list(plain.trials(loaded))
        assert [t.id for t in made] == list(loaded.trials.index)
        for trial in made:
            mine = loaded.epochs[loaded.epochs["trial"] == trial.id]
            assert [row.epoch for row in trial.epochs] == list(mine["epoch"])
            told = [row.metrics.get(str(loaded.metric), math.nan) for row in trial.epochs]
            assert told == pytest.approx(list(mine[str(loaded.metric)]), nan_ok=True)
            times = [trial.began, *(row.time for row in trial.epochs)]
            assert times == sorted(times)
            assert plain.settings(loaded, trial.id) == trial.settings


def test_settings_of_a_branch_are_there_where_it_was_taken(results: Results) -> None:
    settings = [trial.settings for trial in plain.trials(results)]
    assert settings[0] == {"train.lr": 0.01, "train.optimizer": "adam"}
    assert settings[1] == {"train.lr": 0.02, "train.optimizer": "sgd", "train.optimizer[sgd].depth": 2}
    assert isinstance(settings[1]["train.optimizer[sgd].depth"], int)


# ---------------------------------------------------------------- Optuna


def test_each_trial_has_the_state_that_optuna_understands(results: Results, tmp_path: Path) -> None:
    said = export(results, Target("optuna", str(tmp_path / "o.db")))
    assert said == f"optuna-dashboard sqlite:///{tmp_path / 'o.db'}"
    trials = study_of(tmp_path / "o.db").trials
    states = [trial.state for trial in trials]
    assert states[:4] == [TrialState.COMPLETE, TrialState.PRUNED, TrialState.PRUNED, TrialState.FAIL]
    assert [trial.value for trial in trials[:4]] == [0.5, 0.1, None, None]
    assert trials[0].intermediate_values == {1: 0.2, 2: 0.5, 3: 0.4} and trials[2].intermediate_values == {}
    assert trials[1].user_attrs["label"] == EVIL and trials[3].user_attrs["reason"] == "oh"
    assert trials[1].params == {"train.lr": 0.02, "train.optimizer": "sgd", "train.optimizer[sgd].depth": 2}
    assert trials[2].params["train.optimizer"] == "null"


@pytest.mark.filterwarnings("ignore:Some regimes for parameter")
def test_optunas_own_analysis_works_on_it(tmp_path: Path) -> None:
    loaded = analysis.load(FIXTURES / "hypertune_digits")
    to_optuna.to_optuna(loaded, f"sqlite:///{tmp_path / 'o.db'}")
    study = study_of(tmp_path / "o.db", loaded.name)
    assert study.best_trial.user_attrs["trial"] == loaded.best() == "005"
    assert study.metric_names == ["val_accuracy"]
    assert sum(optuna.importance.get_param_importances(study).values()) == pytest.approx(1)
    assert (
        len(optuna.visualization.plot_intermediate_values(study).data) == 10
    )  # not of the failed and the diverged one


def test_a_study_of_that_name_is_not_touched_and_another_one_stands_beside_it(results: Results, tmp_path: Path) -> None:
    path = tmp_path / "o.db"
    to_optuna.to_optuna(results, path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="not overwritten"):
        to_optuna.to_optuna(results, path)
    assert path.read_bytes() == before
    to_optuna.to_optuna(replace(results, name=EVIL), path)
    assert set(optuna.get_all_study_names(f"sqlite:///{path}")) == {"run", EVIL}


def test_an_export_that_breaks_leaves_no_study(
    results: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(optuna.Study, "add_trials", broken)
    with pytest.raises(KeyboardInterrupt):
        to_optuna.to_optuna(results, tmp_path / "o.db")
    assert optuna.get_all_study_names(f"sqlite:///{tmp_path / 'o.db'}") == []


def test_what_is_no_database_and_where_none_can_be_is_said(results: Results, tmp_path: Path) -> None:
    (tmp_path / "x.db").write_text("no database at all, but long enough to be looked at" * 50)
    with pytest.raises(ValueError, match="no database"):
        to_optuna.to_optuna(results, tmp_path / "x.db")
    with sqlite3.connect(tmp_path / "y.db") as other:
        other.execute("create table version_info (version_info_id int, schema_version int, library_version text)")
        other.execute("insert into version_info values (1, 3, '0')")
    with pytest.raises(ValueError, match="no database"):
        to_optuna.to_optuna(results, tmp_path / "y.db")
    with pytest.raises(ValueError, match="there is no folder"):
        to_optuna.to_optuna(results, tmp_path / "nowhere" / "x.db")
    with pytest.raises(ValueError, match="--metric"):
        to_optuna.to_optuna(replace(results, metric=None, goal=NO_GOAL), tmp_path / "z.db")


def test_repeats_are_left_out_and_broken_constraints_told(results: Results, tmp_path: Path) -> None:
    goal = Goal((Objective("val_accuracy", "max"),), (Constraint("val_loss <= 0.6", "val_loss", "<=", 0.6),))
    repeat = pd.Series([None, "001", None, None, None], results.trials.index, dtype=object)
    changed = replace(results, goal=goal, trials=results.trials.assign(repeat_of=repeat))
    to_optuna.to_optuna(changed, tmp_path / "o.db")
    study = study_of(tmp_path / "o.db")
    assert [trial.user_attrs["trial"] for trial in study.trials] == ["001", "003", "004", "005"]
    assert study.user_attrs["repeats of the best configuration, left out"] == {"002": 0.1}
    assert study.trials[1].constraints["val_loss <= 0.6"] == pytest.approx(0.1)
    assert study.trials[0].constraints["val_loss <= 0.6"] == 0


def test_several_objectives_make_a_study_of_several(results: Results, tmp_path: Path) -> None:
    goal = Goal((Objective("val_accuracy", "max"), Objective("val_loss", "min")))
    to_optuna.to_optuna(replace(results, goal=goal), tmp_path / "o.db")
    study = study_of(tmp_path / "o.db")
    assert [d.name for d in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert list(study.trials[0].values) == [0.5, 0.5]
    assert [t.user_attrs["trial"] for t in study.best_trials] == ["001"]


# ---------------------------------------------------------------- TensorBoard


def events_of(folder: Path) -> list[Any]:
    """The events of the one event file in a folder, by the record format: length, its checksum, data, its checksum."""
    from tensorboardX.proto.event_pb2 import Event

    (file,) = folder.glob("events.out.tfevents.*")
    data, found = file.read_bytes(), []
    while data:
        length = int.from_bytes(data[:8], "little")
        found.append(Event.FromString(data[12 : 12 + length]))
        data = data[16 + length :]
    return found


def hparams_of(folder: Path) -> dict[str, Any]:
    from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData

    values = [value for event in events_of(folder) for value in event.summary.value if value.HasField("metadata")]
    return {v.tag: HParamsPluginData.FromString(v.metadata.plugin_data.content) for v in values}


def test_event_files_hold_settings_and_every_epoch(results: Results, tmp_path: Path) -> None:
    assert export(results, Target("tensorboard", str(tmp_path / "tb"))) == f"tensorboard --logdir {tmp_path / 'tb'}"
    assert sorted(p.name for p in (tmp_path / "tb").iterdir() if p.is_dir()) == ["001", "002", "003", "004", "005"]
    rows = [(e.step, v.tag, v.simple_value) for e in events_of(tmp_path / "tb" / "001") for v in e.summary.value]
    curve = {step: value for step, tag, value in rows if tag == "val_accuracy"}
    assert curve == pytest.approx({1: 0.2, 2: 0.5, 3: 0.4})
    assert [(step, value) for step, tag, value in rows if tag == "best/val_accuracy"] == [(2, 0.5)]
    start = hparams_of(tmp_path / "tb" / "002")["_hparams_/session_start_info"].session_start_info
    assert start.hparams["train.optimizer"].string_value == "sgd"
    assert start.hparams["train.optimizer.depth"].number_value == 2


def test_the_experiment_names_settings_that_the_first_trial_did_not_use(results: Results, tmp_path: Path) -> None:
    export(results, Target("tensorboard", str(tmp_path)))
    experiment = hparams_of(tmp_path)["_hparams_/experiment"].experiment
    assert [info.name for info in experiment.hparam_infos] == ["train.lr", "train.optimizer", "train.optimizer.depth"]
    assert experiment.metric_infos[0].name.tag == "best/val_accuracy"
    assert hparams_of(tmp_path / "004")["_hparams_/session_end_info"].session_end_info.status == 2  # failure


def test_event_files_are_not_written_among_others(results: Results, tmp_path: Path) -> None:
    export(results, Target("tensorboard", str(tmp_path)))
    with pytest.raises(ValueError, match="not overwritten"):
        export(results, Target("tensorboard", str(tmp_path)))


def test_trials_with_hostile_names_stay_in_the_folder(results: Results, tmp_path: Path) -> None:
    trials = results.trials.rename(index={"001": "../../up", "002": "..", "003": "a/b", "004": "a_b"})
    epochs = results.epochs.assign(trial=results.epochs["trial"].replace({"001": "../../up", "002": ".."}))
    export(replace(results, trials=trials, epochs=epochs), Target("tensorboard", str(tmp_path / "in")))
    assert [p.name for p in tmp_path.iterdir() if p.name != "run"] == ["in"]
    assert len([p for p in (tmp_path / "in").iterdir() if p.is_dir()]) == 5


@pytest.mark.parametrize(("kind", "module"), [("tensorboard", "tensorboardX.event_file_writer"), ("mlflow", "mlflow")])
def test_a_tool_that_is_not_installed_is_named(
    results: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Any, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ValueError, match=rf"hypertune\[{kind}\]"):
        export(results, Target(kind, str(tmp_path / "x")))
    assert not (tmp_path / "x").exists()


def test_tensorboard_itself_reads_them(results: Results, tmp_path: Path) -> None:
    module = "tensorboard.backend.event_processing.event_accumulator"
    accumulator = pytest.importorskip(module, reason="needs tensorboard").EventAccumulator
    export(results, Target("tensorboard", str(tmp_path)))
    read = accumulator(str(tmp_path / "001")).Reload()
    assert [row.step for row in read.Scalars("val_accuracy")] == [1, 2, 3]


# ---------------------------------------------------------------- MLflow


@pytest.fixture
def mlflow(results: Results, tmp_path: Path) -> tuple[Any, dict[str, Any], str]:
    """A client of the store that the run was written to, its runs by name, the id of its experiment."""
    if importlib.util.find_spec("mlflow") is None:
        pytest.skip("needs mlflow-skinny")
    export(results, Target("mlflow", str(tmp_path / "ml")))
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path / 'ml' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("run").experiment_id
    return client, {run.info.run_name: run for run in client.search_runs([experiment])}, experiment


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::sqlalchemy.exc.SADeprecationWarning")
def test_mlflow_holds_a_run_a_trial_under_one_parent(
    mlflow: tuple[Any, dict[str, Any], str], results: Results, tmp_path: Path
) -> None:
    client, runs, _ = mlflow
    assert set(runs) == {"run", "001", "002", "003", "004", "005"}
    parent = runs["run"].info.run_id
    assert all(runs[t].data.tags["mlflow.parentRunId"] == parent for t in results.trials.index)
    assert runs["002"].data.params["train.optimizer.depth"] == "2" and runs["002"].data.tags["label"] == EVIL
    curve = client.get_metric_history(runs["001"].info.run_id, "val_accuracy")
    assert {point.step: point.value for point in curve} == {1: 0.2, 2: 0.5, 3: 0.4}
    assert runs["001"].data.metrics["best.val_accuracy"] == 0.5 == runs["run"].data.metrics["best.val_accuracy"]
    assert [runs[t].info.status for t in ("001", "002", "003", "004")] == ["FINISHED", "KILLED", "FAILED", "FAILED"]
    with pytest.raises(ValueError, match="not overwritten"):
        export(results, Target("mlflow", str(tmp_path / "ml")))
