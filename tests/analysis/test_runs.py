"""Lists of runs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

import analysis

MakeRun = Callable[..., Path]
FIXTURES = Path(__file__).parents[1] / "fixtures"


@pytest.fixture
def results(make_run: MakeRun, tmp_path: Path) -> Path:
    """Two runs of ours, one of Ray's, an empty folder, a stray file, a link."""
    make_run([{"values": [0.2, 0.6], "state": "finished"}, {"values": [0.9]}], status="interrupted", trials=5)
    make_run([{"values": [0.3], "state": "finished"}], name="later", created="2026-01-02T03:04:06+01:00")
    shutil.copytree(FIXTURES / "ray_asha", tmp_path / "ray_asha")
    os.utime(tmp_path / "ray_asha", (1, 1))
    (tmp_path / "empty").mkdir()
    (tmp_path / "README.md").write_text("words")
    (tmp_path / "linked").symlink_to(tmp_path / "run")
    return tmp_path


def test_every_run_is_listed_oldest_first(results: Path) -> None:
    assert [run.name for run in analysis.index(results)] == ["ray_asha", "run", "later"]
    assert analysis.newest(results) == results / "later"


def test_a_run_is_summed_up(results: Path) -> None:
    run = next(run for run in analysis.index(results) if run.name == "run")
    assert (run.kind, run.status, run.created) == ("hypertune", "interrupted", "2026-01-02T03:04:05+01:00")
    assert (run.done, run.asked, run.epochs, run.seconds) == (1, 5, 3, 12.5)
    assert (run.metric, run.mode, run.best, run.best_trial, run.problems) == ("val_accuracy", "max", 0.9, "002", 0)


def test_a_foreign_run_is_summed_up(results: Path) -> None:
    run = analysis.index(results)[0]
    assert (run.kind, run.status, run.done, run.asked, run.metric) == ("ray", "finished", 8, 8, "val/accuracy")
    assert run.best == analysis.load(run.path).trials["val/accuracy"].max()
    assert run.best_trial == analysis.load(run.path).best()
    assert run.comparable is None


def test_runs_are_comparable_where_data_split_and_metric_agree(make_run: MakeRun, tmp_path: Path) -> None:
    make_run([], name="a")
    make_run([], name="b")
    make_run([], name="c", seeds={"split": 1})
    make_run([], name="d", objectives=[{"metric": "val_loss", "mode": "min"}])
    make_run([], name="e", data={"fingerprint": "other", "train": 80, "validation": 20})
    keys = {run.name: run.comparable for run in analysis.index(tmp_path)}
    assert keys["a"] == keys["b"]
    assert len(set(keys.values())) == 4


def test_a_run_is_running_only_while_its_lock_is_held(make_run: MakeRun, tmp_path: Path) -> None:
    path = make_run([{"values": [0.1]}], status="running")
    with FileLock(path / "run.lock"):
        assert [run.status for run in analysis.index(tmp_path)] == ["running"]
    assert [run.status for run in analysis.index(tmp_path)] == ["dead"]
    with FileLock(path / "run.lock").acquire(timeout=0):
        """Looking did not keep the lock."""


def test_the_least_loss_is_best(make_run: MakeRun, tmp_path: Path) -> None:
    make_run([{"values": [0.1, 0.3]}, {"values": [0.2]}], objectives=[{"metric": "val_loss", "mode": "min"}])
    assert [(run.best, run.best_trial) for run in analysis.index(tmp_path)] == [(0.7, "001")]


def test_a_run_without_a_value_has_no_best(make_run: MakeRun, tmp_path: Path) -> None:
    make_run([{"state": "failed"}])
    assert [(run.best, run.best_trial, run.done) for run in analysis.index(tmp_path)] == [(None, None, 1)]


def test_no_run_is_said_plainly(tmp_path: Path) -> None:
    assert analysis.index(tmp_path) == []
    with pytest.raises(analysis.Unreadable, match="no run in this folder"):
        analysis.newest(tmp_path)
    with pytest.raises(analysis.Unreadable, match="no such folder"):
        analysis.index(tmp_path / "nowhere")


def run_python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def test_listing_runs_imports_nothing_heavy() -> None:
    heavy = {"torch", "ray", "optuna", "pandas", "numpy", "tuner", "filelock"}
    code = "import sys, analysis; analysis.index('tests'); print(*sorted(set(sys.modules) & %r))"
    assert run_python(code % heavy) == ""


def test_load_is_the_function_after_every_import() -> None:
    code = "import analysis; from analysis.results import Results; import analysis.folders.runs as r; "
    code += "print(analysis.load.__module__)"
    assert run_python(code) == "analysis.results"


def test_every_public_name_is_there() -> None:
    assert all(hasattr(analysis, name) for name in analysis.__all__)
    assert not hasattr(analysis, "nonsense")
