"""Watching: when the report is written again, and when it ends. The folder is real, the waiting is not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import analysis
from analysis.page import watch
from analysis.results import Results

MakeRun = Callable[..., Path]


class Watching:
    """Takes one step of the run each time that the watcher sleeps; notes what was written of it."""

    def __init__(self, run: Path, steps: Sequence[Callable[[], object]]) -> None:
        self.run, self.steps, self.said = run, list(steps), list[str]()
        self.epochs: list[int] = []
        self.alive = True

    def sleep(self, _: float) -> None:
        assert self.steps, "the watcher goes on after the last step"
        self.steps.pop(0)()

    def read(self, path: Path) -> Results:
        """As it is read while its process lives."""
        results = analysis.load(path)
        assert isinstance(results.run, dict)
        if self.alive and json.loads((path / "run.json").read_text())["status"] == "running":
            results.run["status"] = "running"
        return results

    def write(self, results: Results) -> Path:
        self.epochs.append(int(results.trials["epochs"].sum()))
        page = self.run / "report" / "report.html"
        page.parent.mkdir(exist_ok=True)
        page.write_text("page")
        (page.parent / "trials.csv").write_text("tables are no news" * len(self.epochs))
        return page

    def watch(self) -> int:
        return watch.watch(self.run, self.write, 5, read=self.read, sleep=self.sleep, say=self.said.append)


@pytest.fixture
def run(make_run: MakeRun) -> Path:
    return make_run([{"values": (0.2, 0.5, 0.4)}], status="running")


def more(run: Path) -> None:
    """One more epoch."""
    path = run / "trials" / "001" / "result.json"
    rows = path.read_text().splitlines()
    last = json.loads(rows[-1])
    with path.open("a") as file:
        file.write(json.dumps(last | {"epoch": last["epoch"] + 1, "seq": last["seq"] + 1}) + "\n")


def end(run: Path, status: str = "finished") -> None:
    (run / "run.json").write_text((run / "run.json").read_text().replace('"running"', f'"{status}"'))


def nothing() -> None:
    """A look at which nothing has changed."""


def test_a_run_that_has_ended_is_written_once(run: Path) -> None:
    end(run)
    watching = Watching(run, [])
    assert watching.watch() == 1 and "best 50.0% (trial 001)" in watching.said[0]


def test_it_writes_where_something_changed_and_a_last_time_at_the_end(run: Path) -> None:
    steps = [nothing, lambda: more(run), nothing, nothing, lambda: more(run), lambda: end(run)]
    watching = Watching(run, steps)
    assert watching.watch() == 4 and watching.epochs == [3, 4, 5, 5] and not watching.steps
    assert len(watching.said) == 4 and "1 trials, 4 epochs" in watching.said[1]


def test_a_run_that_was_killed_is_noticed_though_no_file_changes(run: Path) -> None:
    watching = Watching(run, [lambda: setattr(watching, "alive", False), *[nothing] * (watch.AGAIN - 1)])
    assert watching.watch() == 2 and not watching.steps


def test_it_waits_for_a_run_that_is_no_run_yet(run: Path) -> None:
    later = run.with_name("later")
    shutil.move(run, later)
    run.mkdir()
    watching = Watching(run, [nothing, lambda: shutil.copytree(later, run, dirs_exist_ok=True), lambda: end(run)])
    assert watching.watch() == 2 and watching.epochs == [3, 3]
    assert "not yet" in watching.said[0] and len(watching.said) == 3


def test_ctrl_c_ends_it_quietly_after_what_was_written(run: Path) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    watching = Watching(run, [interrupt])
    assert watching.watch() == 1


def test_a_stamp_changes_with_rows_and_not_with_reports_or_weights(run: Path) -> None:
    before = watch.stamp(run, run / "report")
    (run / "report").mkdir()
    (run / "report" / "findings.json").write_text("{}")
    (run / "trials" / "001" / "checkpoint_000001").mkdir()
    (run / "trials" / "001" / "checkpoint_000001" / "state.json").write_text("{}")
    assert watch.stamp(run, run / "report") == before
    more(run)
    assert watch.stamp(run, run / "report") != before
