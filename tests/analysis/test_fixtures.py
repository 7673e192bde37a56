"""Every figure on every fixture folder; each was left by a real search (tests/fixtures/make_*.py)."""

from __future__ import annotations

from pathlib import Path

import pytest
from plotly.graph_objects import Figure

import analysis
from analysis.plots import FIGURES

FOLDERS = sorted(
    p for p in (Path(__file__).parents[1] / "fixtures").iterdir() if p.is_dir() and p.name != "__pycache__"
)


@pytest.mark.parametrize("figure", FIGURES)
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda p: p.name)
def test_every_figure_draws_every_fixture(folder: Path, figure: str) -> None:
    results = analysis.load(folder)
    _, reading, compute, draw, draw_static = FIGURES[figure]
    computed = compute(results)
    assert isinstance(draw(computed), Figure) and reading.endswith(".")
    axes = draw_static(computed).axes
    assert computed.note or any(a.has_data() or a.get_children() for a in axes)


def test_a_finished_search_of_ours() -> None:
    results = analysis.load(FOLDERS[0].parent / "hypertune_digits")
    assert results.best() == "005" and (results.metric, results.mode) == ("val_accuracy", "max")
    assert results.trials["state"].value_counts().to_dict() == {"finished": 7, "stopped": 3, "failed": 1, "diverged": 1}
    assert len(results.epochs) == int(results.trials["epochs"].sum()) == 46
    assert list(results.trials["label"].dropna()) == ["exploding", "mine"]
    assert (
        results.trials.loc["003", "model.width.1":].isna().sum() == 3
    )  # depth 1 has no second block; wild no lr, momentum
    assert not results.problems


def test_a_killed_search_of_ours_is_read_and_said_to_be_dead() -> None:
    results = analysis.load(FOLDERS[0].parent / "hypertune_killed")
    assert results.run["status"] == "dead" and any("dead" in p or "no process" in p for p in results.problems)
    assert "interrupted" in set(results.trials["state"]) and results.best() is not None


def test_fixtures_of_ours_name_no_machine() -> None:
    for path in (p for folder in FOLDERS for p in folder.rglob("*") if p.is_file()):
        assert "/tmp/" not in path.read_text() or "ray" in path.parts[-3], path


# state -> trials, best trial's metric, direction, problems
REAL = {
    "ray_random": ({"finished": 8}, "val_accuracy", "max", 1),
    "ray_optuna": ({"finished": 8}, "val_accuracy", "max", 2),
    "ray_pbt": ({"finished": 5, "failed": 1}, "mean_accuracy", "max", 3),
}


@pytest.mark.parametrize("name", REAL)
def test_searches_of_ray(name: str) -> None:
    results = analysis.load(FOLDERS[0].parent / name)
    states, metric, mode, problems = REAL[name]
    assert results.trials["state"].value_counts().to_dict() == states and len(results.problems) == problems
    assert (results.metric, results.mode) == (metric, mode)
    assert results.trials.loc[str(results.best()), metric] == results.epochs[metric].max()


def test_a_population_of_ray_takes_over_the_settings_of_others() -> None:
    results = analysis.load(FOLDERS[0].parent / "ray_pbt")
    assert results.epochs.groupby("trial")["rate"].nunique().max() == 2
    assert results.trials["reason"].dropna().tolist() == ["RuntimeError: loss exploded"]


def test_an_interrupted_search_of_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("analysis.folders.ray_folder.time.time", lambda: 0.0)
    results = analysis.load(FOLDERS[0].parent / "ray_interrupted")
    assert set(results.trials["state"]) == {"interrupted"} and results.best() is not None


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda p: p.name)
def test_fixtures_are_small(folder: Path) -> None:
    assert sum(path.stat().st_size for path in folder.rglob("*")) < 150_000
