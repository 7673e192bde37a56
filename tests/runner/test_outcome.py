"""What run.json says of a run that did not end by itself; Ray's part is played by a function."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tuner.errors import ClusterLost
from tuner.records import writer
from tuner.runner import local, run
from tuner.runner.drive import Stage
from tuner.runner.plan import make_plan
from tuner.spec.space import parse_space

TEXT = "name: o\ndata: {dataset: digits}\nmodel: {name: cnn, depth: 1, width: {choice: [2, 4]}}\n"


class Blind:
    """Shows nothing."""

    def watch(self, conductor: Any) -> None: ...

    def note(self, text: str) -> None: ...

    def leave(self, text: str) -> None: ...


def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: Any) -> dict[str, Any]:
    """run.json after a run whose search is `part`; an error of the run is let pass."""
    monkeypatch.setattr(local, "search", part)
    plan = make_plan(parse_space(TEXT, "o"), tmp_path / "cache")
    with writer.create(tmp_path, "o") as folder, contextlib.suppress(ClusterLost):
        run.run(plan, folder, Blind())
    said: dict[str, Any] = json.loads((tmp_path / "o/run.json").read_text())
    return said


def test_an_error_makes_the_run_failed_whatever_its_trials_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def search(stage: Stage) -> None:
        stage.conductor.next()
        raise ClusterLost("Ray is gone")

    said = play(tmp_path, monkeypatch, search)
    assert (said["status"], said["counts"]["interrupted"]) == ("failed", 1)
    assert '"reason": "Ray is gone"' in (tmp_path / "o/events.jsonl").read_text().splitlines()[-1]


@pytest.mark.parametrize(("cut", "status"), [(True, "interrupted"), (False, "failed")])
def test_a_signal_counts_only_where_it_cut_the_search_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: bool, status: str
) -> None:
    def search(stage: Stage) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stage.signals.caught == [signal.SIGTERM]
        while not cut and (job := stage.conductor.next()):
            stage.conductor.fail(job.trial.id, "no")

    assert play(tmp_path, monkeypatch, search)["status"] == status  # no trial was begun, so nothing was found
