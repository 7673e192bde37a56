"""Where a run stands, on runs whose answers are known by hand."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tuner.records import holder
from tuner.records.status import TIME_SPENT, Best, Noise, Status, read_status
from tuner.records.writer import RunFolder

RUN: dict[str, Any] = {
    "name": "r",
    "status": "finished",
    "objectives": [{"metric": "val_accuracy", "mode": "max"}],
    "epochs": 3,
    "trials": 4,
    "expected_epochs": 12,
}


class Made:
    """A run folder written line by line, with moments of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.number = count(1)
        (path / "space.yaml").write_text("")
        (path / "space.json").write_text("[]")
        (path / "events.jsonl").touch()
        self.run()

    def run(self, **changes: Any) -> Made:
        (self.path / "run.json").write_text(json.dumps({**RUN, **changes}))
        return self

    def event(self, event: str, trial: str | None = None, **fields: Any) -> Made:
        line = {"seq": next(self.number), "event": event, **({"trial": trial} if trial else {}), **fields}
        return self._append("events.jsonl", line)

    def ask(self, trial: str, **fields: Any) -> Made:
        return self.event("asked", trial, parameters={}, **fields)

    def end(self, trial: str, state: str, reason: str = "") -> Made:
        return self.event("ended", trial, state=state, epoch=1, reason=reason)

    def rows(self, trial: str, *values: float | None, start: int = 1, **fields: Any) -> Made:
        (self.path / "trials" / trial).mkdir(parents=True, exist_ok=True)
        for epoch, value in enumerate(values, start=start):
            row = {"seq": next(self.number), "epoch": epoch, "val_accuracy": value, "val_loss": 1.0, **fields}
            self._append(f"trials/{trial}/result.json", row)
        return self

    def _append(self, name: str, line: dict[str, Any]) -> Made:
        with (self.path / name).open("a") as file:
            file.write(json.dumps(line) + "\n")
        return self

    @property
    def status(self) -> Status:
        return read_status(self.path)


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return Made(tmp_path)


@pytest.fixture
def running(made: Made) -> Iterator[Made]:
    with RunFolder(made.path):
        yield made.run(status="running")


def test_trials_are_counted_by_state(running: Made) -> None:
    for number, state in enumerate(["finished", "stopped", "diverged", "failed", "out_of_memory"]):
        running.ask(f"00{number}").rows(f"00{number}", 0.5).end(f"00{number}", state)
    running.ask("006").rows("006", 0.5, 0.6).ask("007").event("started", "007", host="h", pid=1).ask("008")
    done = dict.fromkeys(["finished", "stopped", "diverged", "failed", "out_of_memory", "queued"], 1)
    assert running.status.states == {**done, "running": 2}
    assert (running.status.status, running.status.trials, running.status.epochs) == ("running", 4, 7)
    assert running.status.expected_epochs == 12


@pytest.mark.parametrize("said", ["finished", "interrupted", "failed"])
def test_what_an_ended_run_left_open_is_interrupted(made: Made, said: str) -> None:
    made.run(status=said).ask("001").rows("001", 0.5).ask("002")
    assert (made.status.status, made.status.states) == (said, {"interrupted": 2})


def test_a_run_whose_process_is_gone_is_dead(running: Made) -> None:
    (running.ask("001").path / holder.NAME).unlink()
    assert (running.status.status, running.status.states) == ("dead", {"interrupted": 1})
    assert running.status.seconds_left == 0


def test_a_run_on_another_machine_runs_for_all_that_is_known(running: Made) -> None:
    name = running.path / holder.NAME
    name.write_text(json.dumps({**json.loads(name.read_text()), "host": "gpu7"}))
    assert running.status.status == "running" and "on gpu7: whether" in running.status.note


def test_a_trial_that_goes_on_forgets_its_interruption(running: Made) -> None:
    for trial in ("001", "002"):
        running.ask(trial).rows(trial, 0.1).end(trial, "interrupted")
    running.event("resumed", unfinished=["001", "002"])
    assert running.status.states == {"queued": 2}
    assert running.rows("001", 0.2, start=2).status.states == {"running": 1, "queued": 1}


def test_epochs_after_an_interruption_undo_it_even_where_the_resume_left_no_line(running: Made) -> None:
    running.ask("001").rows("001", 0.1).end("001", "interrupted").rows("001", 0.2, start=2)
    assert running.status.states == {"running": 1}


def test_the_last_line_tells_the_end_that_a_kill_kept_from_the_events(made: Made) -> None:
    made.ask("001").rows("001", 0.1, decision="stop").ask("002").rows("002", 0.1, 0.2, 0.3, decision="stop")
    assert made.status.states == {"stopped": 1, "finished": 1}


def test_a_last_line_that_is_no_number_or_came_too_late_is_told_as_what_it_is(made: Made) -> None:
    made.ask("001").rows("001", None, decision="stop", reason="val_loss is not a number")
    made.ask("002").rows("002", 0.5, decision="stop", reason=TIME_SPENT)
    assert made.status.states == {"diverged": 1, "interrupted": 1}


def test_the_best_epoch_of_any_trial_is_best_and_the_earlier_of_two_equals(made: Made) -> None:
    made.ask("001").rows("001", 0.3, 0.8, 0.8).ask("002").rows("002", 0.8, 0.1)
    assert made.status.best == Best("001", 0.8, 2, "val_accuracy")
    made.run(objectives=[{"metric": "val_accuracy", "mode": "min"}])
    assert made.status.best == Best("002", 0.1, 2, "val_accuracy")


def test_an_epoch_that_is_no_number_or_breaks_a_measured_rule_is_not_best(made: Made) -> None:
    made.run(constraints=["latency_ms <= 5", "params <= 10"])
    made.ask("001").rows("001", None, 0.2).rows("001", 0.9, start=3, val_loss=None)
    assert made.status.best == Best("001", 0.2, 2, "val_accuracy")
    made.ask("002").rows("002", 0.8, latency_ms=5.1).rows("002", 0.7, start=2, latency_ms=5.0, params=99)
    assert made.status.best == Best("002", 0.7, 2, "val_accuracy")


def test_without_an_objective_there_is_no_best_and_it_is_said(made: Made) -> None:
    made.ask("001").rows("001", 0.3)
    strange: list[Any] = [[], "x", [{"metric": "charm", "mode": "max"}], [[]], None]
    for objectives in strange:
        status = made.run(objectives=objectives, constraints=["beauty >= 1"]).status
        assert status.best is None and any("which trial is best" in problem for problem in status.problems)
        assert any("beauty" in problem for problem in status.problems)


def test_a_repeat_is_counted_apart_and_never_best(made: Made) -> None:
    made.ask("001").rows("001", 0.5, 0.8).end("001", "finished")
    assert made.status.noise is None
    for trial, value in (("002", 0.9), ("003", 0.7)):
        made.ask(trial, repeat_of="001", seed=1).rows(trial, value).end(trial, "finished")
    values = (0.8, 0.9, 0.7)
    assert made.status.noise == Noise("001", values, statistics.mean(values), statistics.stdev(values))
    assert (made.status.best, made.status.repeats) == (Best("001", 0.8, 2, "val_accuracy"), 2)
    assert made.status.states == {"finished": 1}


def test_a_single_value_has_no_deviation_and_a_repeat_under_way_no_value(made: Made) -> None:
    made.ask("001").rows("001", 0.8).end("001", "finished").ask("002", repeat_of="001").rows("002", 0.1)
    assert made.status.noise == Noise("001", (0.8,), None, None)


def test_the_front_of_two_objectives_holds_what_nothing_beats(made: Made) -> None:
    assert made.status.front is None
    made.run(objectives=[{"metric": "val_accuracy", "mode": "max"}, {"metric": "params", "mode": "min"}])
    points = [(0.9, 100), (0.8, 50), (0.8, 60), (0.7, 50), (0.5, 10), (0.9, 100), (0.4, 10)]
    for number, (value, params) in enumerate(points):
        made.ask(f"{number}").rows(f"{number}", value, params=params)
    beaten = [any(o != p and o[0] >= p[0] and o[1] <= p[1] for o in points) for p in points]
    assert made.status.front == beaten.count(False) == 4


def at(made: Made, trial: str, moments: list[float]) -> Made:
    for epoch, moment in enumerate(moments, start=1):
        made.rows(trial, 0.1, start=epoch, elapsed=moment)
    return made


def test_the_rate_is_that_of_the_last_ten_minutes(running: Made) -> None:
    slow, fast = [100.0 * n for n in range(10)], [2000.0 + 10 * n for n in range(61)]
    at(running.ask("001"), "001", slow + fast)
    assert running.status.rate == pytest.approx(6) and running.status.seconds == 2600


def test_the_rate_of_few_epochs_is_that_of_the_last_twenty_of_this_session(running: Made) -> None:
    at(running.ask("001"), "001", [1000.0 * n for n in range(30)])
    assert running.status.rate == pytest.approx(0.06)
    running.event("resumed", unfinished=[], elapsed=30_000.0)
    assert running.status.rate is None
    at(running.ask("002"), "002", [30_010.0, 30_020.0])
    assert running.status.rate == pytest.approx(6)


def test_the_time_left_is_that_of_the_epochs_expected_or_of_the_budget(running: Made) -> None:
    assert running.status.seconds_left is None
    at(running.ask("001"), "001", [10.0, 20.0, 30.0])
    assert running.status.seconds_left == pytest.approx(90)
    assert running.run(status="running", time_budget=100).status.seconds_left == 70
    assert running.run(status="running", expected_epochs=2).status.seconds_left is None
    assert running.run(status="finished").status.seconds_left == 0


def test_retries_errors_and_lack_of_memory_are_told(made: Made) -> None:
    made.ask("001", size={"memory_mb": 900.0}).ask("002").ask("003", size={"memory_mb": 5.0})
    assert (made.status.retries, made.status.last_error, made.status.out_of_memory) == (0, "", {})
    made.event("retried", "001", epoch=1, deaths=0, alone=True, reason="out of memory: again, alone")
    made.event("retried", "003", epoch=1, deaths=1, alone=False, reason="its process died")
    made.end("002", "out_of_memory", "CUDA\n out\x1b[31m of memory")
    assert made.status.retries == 2 and made.status.out_of_memory == {"001": 900.0, "002": None}
    assert made.status.last_error == "trial 002: CUDA out [31m of memory"
    made.event("run_ended", status="failed", reason="x" * 999)
    assert made.status.last_error.startswith("xxx") and len(made.status.last_error) == 200


def test_it_goes_into_json_and_back(made: Made) -> None:
    made.ask("001").rows("001", 0.5).end("001", "finished")
    told = json.loads(json.dumps(made.status.as_dict(), allow_nan=False))
    assert told["best"] == {"trial": "001", "value": 0.5, "epoch": 1, "metric": "val_accuracy"}
    assert told["path"] == str(made.path) and set(told) == set(vars(made.status))


STRANGE = [{}, {"trials": "many", "seconds": -1, "time_budget": "1h", "epochs": None}, {"status": 5, "name": [1]}]


@pytest.mark.parametrize("run", STRANGE)
def test_a_strange_run_json_is_survived(made: Made, run: dict[str, Any]) -> None:
    made.ask("001").rows("001", 0.5)
    (made.path / "run.json").write_text(json.dumps(run))
    assert made.status.status == "dead" and made.status.trials is None and made.status.epochs == 1


def test_a_run_that_has_just_begun_is_running(tmp_path: Path) -> None:
    with RunFolder(tmp_path) as folder:
        folder.write_space("", [])
        assert read_status(tmp_path).status == "running"


def test_it_is_the_same_whoever_asks_and_imports_nothing_heavy(made: Made) -> None:
    at(made.ask("001"), "001", [1.0, 2.0])
    code = "import sys; from pathlib import Path; from tuner.records.status import TIME_SPENT, read_status; "
    code += "print(read_status(Path(sys.argv[1]))); print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code, str(made.path)], capture_output=True, text=True, check=True)
    said, modules = done.stdout.splitlines()
    assert said == str(replace(made.status))
    assert not {"torch", "ray", "optuna", "pandas", "numpy", "pydantic", "filelock"} & set(modules.split())
