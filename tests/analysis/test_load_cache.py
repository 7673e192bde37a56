"""What load keeps beside the report: the same results without reading, and never those of a folder that changed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pandas.testing import assert_frame_equal

import analysis
from analysis import Results, results
from analysis.folders import folder
from analysis.folders.read import read

FIXTURES = Path(__file__).parents[1] / "fixtures"
FOLDERS = sorted(path for path in FIXTURES.iterdir() if path.is_dir() and path.name != "__pycache__")


def assert_same(one: Results, other: Results) -> None:
    for name, value in vars(one).items():
        if name in results.TABLES and value is not None:
            assert_frame_equal(value, getattr(other, name), check_exact=True)
        else:
            assert value == getattr(other, name), name


def age(folder: Path, seconds: float = 60.0) -> None:
    """Makes all of it this much older: what has just been written is never kept."""
    for path in (folder, *folder.rglob("*")):
        os.utime(
            path, ns=(path.stat().st_mtime_ns, path.stat().st_mtime_ns - int(seconds * 1e9)), follow_symlinks=False
        )


@pytest.fixture
def unread(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """After unread() whoever reads a run fails."""

    def refuse(*_: Any) -> None:
        raise AssertionError("the folder was read")

    return lambda: monkeypatch.setattr(results, "read", refuse)


@pytest.fixture(params=FOLDERS, ids=lambda path: path.name)
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(request.param, tmp_path / "run"))
    age(folder)
    return folder


@pytest.fixture
def grid(tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(FIXTURES / "ray_grid", tmp_path / "run"))
    age(folder)
    return folder


@pytest.mark.parametrize("where", ["run/report/cache", "elsewhere"])
def test_what_was_kept_is_what_was_read(run: Path, where: str, unread: Callable[[], None]) -> None:
    first = analysis.load(run, cache=run.parent / where)
    unread()
    assert_same(first, analysis.load(run, cache=run.parent / where))


def test_every_metric_is_kept_for_itself(grid: Path, tmp_path: Path, unread: Callable[[], None]) -> None:
    asked: list[dict[str, Any]] = [{}, {"metric": "val_loss"}, {"metric": "val_loss", "mode": "max"}]
    first = [analysis.load(grid, cache=tmp_path / "c", **wish) for wish in asked]
    unread()
    for wish, made in zip(asked, first, strict=True):
        assert_same(made, analysis.load(grid, cache=tmp_path / "c", **wish))


def change_row(run: Path) -> None:
    file = next(run.glob("*/result.json"))
    file.write_text(file.read_text().replace("0.", "1.", 1))


def append(file: Path, text: str) -> None:
    file.write_text(file.read_text() + text)


def become_link(trial: Path) -> None:
    away = trial.rename(trial.parents[1] / "away")
    trial.symlink_to(away)


CHANGES: dict[str, Callable[[Path], Any]] = {
    "a row, of the same length": change_row,
    "another row": lambda run: append(next(run.glob("*/result.json")), "{}\n"),
    "a new trial": lambda run: shutil.copytree(next(run.glob("train*")), run / "train_new"),
    "a trial gone": lambda run: shutil.rmtree(next(run.glob("train*"))),
    "a file gone": lambda run: next(run.glob("*/result.json")).unlink(),
    "an error": lambda run: (next(run.glob("train*")) / "error.txt").write_text("ValueError: no"),
    "another state": lambda run: shutil.copy(next(run.glob("exp*")), run / "experiment_state-9999.json"),
    "a trial renamed": lambda run: next(run.glob("train*")).rename(run / "train_moved"),
    "a trial that became a link": lambda run: become_link(next(run.glob("train*"))),
}


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_changes_is_read_again(grid: Path, tmp_path: Path, change: str) -> None:
    analysis.load(grid, cache=tmp_path / "c")
    CHANGES[change](grid)
    assert_same(analysis.load(grid, cache=tmp_path / "c"), analysis.load(grid))


def test_a_change_of_size_and_time_kept_is_seen_by_its_inode(grid: Path, tmp_path: Path) -> None:
    analysis.load(grid, cache=tmp_path / "c")
    file = next(grid.glob("*/result.json"))
    times = (file.stat().st_atime_ns, file.stat().st_mtime_ns)
    other = file.with_name("other")
    other.write_text(file.read_text().replace("0.", "1.", 1))
    os.utime(other, ns=times)
    folder = (file.parent.stat().st_atime_ns, file.parent.stat().st_mtime_ns)
    other.replace(file)
    os.utime(file.parent, ns=folder)
    assert_same(analysis.load(grid, cache=tmp_path / "c"), analysis.load(grid))


def test_a_folder_that_was_just_written_to_is_not_kept(grid: Path, tmp_path: Path) -> None:
    change_row(grid)
    analysis.load(grid, cache=tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_a_run_that_fell_silent_is_no_longer_running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Path(shutil.copytree(FIXTURES / "ray_killed", tmp_path / "run"))
    age(run)
    newest = analysis.load(run).epochs["elapsed"].max()
    began = read(folder.Folder(run)).newest - newest
    monkeypatch.setattr("analysis.folders.ray_folder.time.time", lambda: began + newest + 60.0)
    assert set(analysis.load(run, cache=tmp_path / "c").trials["state"]) == {"running"}
    monkeypatch.setattr("analysis.folders.ray_folder.time.time", lambda: began + newest + 6000.0)
    assert set(analysis.load(run, cache=tmp_path / "c").trials["state"]) == {"interrupted"}


def test_a_damaged_cache_is_passed_over_and_replaced(grid: Path, tmp_path: Path) -> None:
    first = analysis.load(grid, cache=tmp_path / "c")
    file = next((tmp_path / "c").iterdir())
    whole = file.read_bytes()
    for place in (0, 20, 200, len(whole) // 2, len(whole) - 9):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert_same(first, analysis.load(grid, cache=tmp_path / "c"))
        assert file.read_bytes() == whole
    file.write_bytes(whole[: len(whole) // 2])
    assert_same(first, analysis.load(grid, cache=tmp_path / "c"))


def test_what_other_code_kept_is_not_taken(grid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    analysis.load(grid, cache=tmp_path / "c")
    monkeypatch.setattr("analysis.folders.cache._code", lambda: "00000000")
    monkeypatch.setattr(results, "read", lambda *_: (_ for _ in ()).throw(KeyError("read")))
    with pytest.raises(KeyError, match="read"):
        analysis.load(grid, cache=tmp_path / "c")


def test_where_nothing_can_be_kept_all_is_read(grid: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "away").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "away")
    for place in (tmp_path / "file", tmp_path / "file" / "c", tmp_path / "link"):
        assert len(analysis.load(grid, cache=place).trials) == 6
    assert not list((tmp_path / "away").iterdir())


def test_without_a_place_nothing_is_kept(grid: Path) -> None:
    before = sorted(grid.parent.rglob("*"))
    analysis.load(grid)
    assert sorted(grid.parent.rglob("*")) == before


def test_no_pickle_is_kept(run: Path, tmp_path: Path) -> None:
    analysis.load(run, cache=tmp_path / "c")
    data = next((tmp_path / "c").iterdir()).read_bytes()
    assert data.startswith(b"hypertune ") and b"cloudpickle" not in data and b"\x80\x04\x95" not in data
