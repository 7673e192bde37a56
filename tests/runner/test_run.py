"""Real searches with real processes: what a user gets from `hypertune run`, and that nothing is lost on the way."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.ray

HYPERTUNE = str(Path(sys.executable).with_name("hypertune"))
SPACE = """
name: small   # the user's own comment
data: {dataset: digits, subset: 400, augment: flip_crop}
model: {name: cnn, depth: {int: [1, 4]}, width: {choice: [4, 8]}, dropout: {uniform: [0, 0.3]}}
train:
  epochs: 3
  optimizer:
    choice:
      adam: {lr: {loguniform: [1.0e-3, 1.0e-1]}}
      sgd: {lr: {loguniform: [1.0e-2, 0.5]}, momentum: {uniform: [0.5, 0.95]}}
search: {trials: 6, scheduler: asha, start_from: [{label: mine, to_the_end: true, model.depth: 1}]}
resources: {trials_at_once: 1}
"""


@dataclass(frozen=True)
class Done:
    """A search that has ended: its folder, what it printed for programs, what it printed for people."""

    path: Path
    said: dict[str, Any]
    lines: str

    def rows(self, trial: str) -> list[dict[str, Any]]:
        return read_lines(self.path / "trials" / trial / "result.json")

    @property
    def events(self) -> list[dict[str, Any]]:
        return read_lines(self.path / "events.jsonl")

    @property
    def run(self) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads((self.path / "run.json").read_text())
        return loaded


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def environment(cache: Path) -> dict[str, str]:
    return {**os.environ, "HYPERTUNE_CACHE": str(cache)}


def search(home: Path, cache: Path, *options: str) -> Done:
    (home / "small.yaml").write_text(SPACE)
    done = subprocess.run(
        [HYPERTUNE, "run", "small.yaml", "--json", *options],
        cwd=home, env=environment(cache), capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    return Done(Path(said["run"]), said, done.stderr)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Done:
    return search(tmp_path_factory.mktemp("first"), cache)


@pytest.fixture(scope="module")
def second(first: Done, tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Done:
    """The same search again, from a folder with packages named like ours, while the test images are no images."""
    home = tmp_path_factory.mktemp("second")
    for name in ("tuner", "analysis", "optuna", "ray"):
        (home / name).mkdir()
        (home / name / "__init__.py").write_text("raise ImportError('this is the user\\'s own package')\n")
    tests = list(cache.glob("*/test_*.npy"))
    assert tests
    for path in tests:
        path.write_bytes(b"\0" * path.stat().st_size)  # of the same length: else the cache is built anew
    done = search(home, cache)
    assert not any(any(path.read_bytes()) for path in tests)
    return done


def test_every_file_of_the_contract_is_there(first: Done) -> None:
    found = {str(p.relative_to(first.path)) for p in first.path.rglob("*") if p.is_file()}
    top = {"space.yaml", "space.json", "run.json", "events.jsonl", "run.lock", "ray.log"}
    trial = {"params.json", "result.json"}
    best = sorted(range(1, 7), key=lambda n: max(row["val_accuracy"] for row in first.rows(f"00{n}")))[-3:]
    weights = {f"trials/00{n}/checkpoint_best/{name}" for n in best for name in ("weights.safetensors", "state.json")}
    assert found == top | weights | {f"trials/00{n}/{name}" for n in range(1, 7) for name in trial}
    assert "# the user's own comment" in (first.path / "space.yaml").read_text()


def test_run_json_says_what_the_run_is(first: Done) -> None:
    run = first.run
    assert (run["status"], run["trials"], run["epochs"]) == ("finished", 6, 3)
    assert run["objectives"] == [{"metric": "val_accuracy", "mode": "max"}]
    assert (run["data"]["train"], run["data"]["validation"], len(run["data"]["classes"])) == (320, 80, 10)
    assert sum(run["counts"].values()) == 6 and run["seconds"] > 0 and run["ended"] > run["created"]
    assert "small.yaml" in run["command_line"] and run["versions"]["ray"]


def test_numbers_run_through_all_files_without_a_gap(first: Done) -> None:
    numbers = [e["seq"] for e in first.events] + [r["seq"] for n in range(1, 7) for r in first.rows(f"00{n}")]
    assert sorted(numbers) == list(range(1, len(numbers) + 1))


def test_every_trial_is_asked_started_and_ended_once(first: Done) -> None:
    for kind in ("asked", "started", "ended"):
        assert [e["trial"] for e in first.events if e["event"] == kind] == [f"00{n}" for n in range(1, 7)]


def test_epochs_are_complete_and_only_the_last_one_stops(first: Done) -> None:
    for event in (e for e in first.events if e["event"] == "ended"):
        rows = first.rows(event["trial"])
        assert [r["epoch"] for r in rows] == list(range(1, event["epoch"] + 1))
        assert [r["decision"] for r in rows] == ["continue"] * (len(rows) - 1) + ["stop"]
        assert rows[-1]["reason"] == event["reason"]
    assert {e["state"] for e in first.events if e["event"] == "ended"} == {"finished", "stopped"}


def test_the_starting_point_comes_first_and_is_not_stopped(first: Done) -> None:
    asked = next(e for e in first.events if e["event"] == "asked")
    assert asked["label"] == "mine" and asked["parameters"]["model.depth"] == 1
    assert len(first.rows("001")) == 3


def test_a_depth_that_pools_the_image_away_is_never_trained(first: Done) -> None:
    depths = {e["parameters"]["model.depth"] for e in first.events if e["event"] == "asked"}
    assert depths <= {1, 2, 3} and "leaves no pixel of 8x8 images" in " ".join(first.lines.split())


def test_the_best_is_the_best_epoch_of_all(first: Done) -> None:
    values = {(f"00{n}", r["epoch"]): r["val_accuracy"] for n in range(1, 7) for r in first.rows(f"00{n}")}
    best = first.said["best"]
    assert best["value"] == max(values.values()) == values[best["trial"], best["epoch"]]


def test_the_checkpoint_gives_the_accuracy_that_was_reported(first: Done, cache: Path) -> None:
    from tuner.spec.trial_config import TrialConfig
    from tuner.training import checkpoint
    from tuner.training.datasets import open_dataset
    from tuner.training.trainer import Trainer

    best = first.said["best"]
    config = TrialConfig.model_validate_json(json.dumps(best["config"]))
    folder = next(cache.glob("digits-*/meta.json")).parent
    trainer = Trainer(config, open_dataset(folder, config.data, 0))
    tensors, state = checkpoint.load(Path(best["checkpoint"]))
    trainer.model.load_state_dict({name.removeprefix("model."): t for name, t in tensors.items()})
    assert trainer.validate()[1] == pytest.approx(best["value"], abs=1e-9)
    assert state["metrics"]["epoch"] == best["epoch"]


def test_trials_share_one_long_lived_worker(first: Done) -> None:
    assert len({e["pid"] for e in first.events if e["event"] == "started"}) == 1


def test_lines_for_logs_and_nothing_of_rays_own_output(first: Done) -> None:
    lines = [line for line in first.lines.splitlines() if line[:3].isdigit()]
    assert sorted(line[:3] for line in lines) == [f"00{n}" for n in range(1, 7)]
    assert all("val_accuracy" in line and "model.depth" in line for line in lines)
    assert "Started a local Ray instance" not in first.lines
    assert "Started a local Ray instance" in (first.path / "ray.log").read_text()


TIMES = {"seq", "time", "elapsed", "epoch_seconds", "images_per_second", "time_total_s", "peak_memory_mb"}


def test_the_same_seed_repeats_exactly_whatever_lies_in_the_current_directory(first: Done, second: Done) -> None:
    for number in range(1, 7):
        ours, again = first.rows(f"00{number}"), second.rows(f"00{number}")
        assert [{k: v for k, v in r.items() if k not in TIMES} for r in ours] == [
            {k: v for k, v in r.items() if k not in TIMES} for r in again
        ]
    assert [e["parameters"] for e in first.events if e["event"] == "asked"] == [
        e["parameters"] for e in second.events if e["event"] == "asked"
    ]


def test_no_process_of_a_search_reads_the_test_images(second: Done) -> None:
    assert second.run["status"] == "finished"  # its test files held no images


class Terminal:
    """A search on a terminal of its own, 120 columns wide; `screen` is all that it has shown."""

    def __init__(self, command: list[str], home: Path, cache: Path) -> None:
        self._ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            command,
            cwd=home,
            stdout=theirs,
            stderr=theirs,
            env={**environment(cache), "COLUMNS": "120", "TERM": "xterm"},
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # whatever shell ignores it for us
        )
        os.close(theirs)
        self.screen = ""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        with os.fdopen(self._ours, "rb", buffering=0) as file:
            while True:
                try:
                    self.screen += file.read(65536).decode(errors="replace")
                except OSError:  # the other end is closed
                    return

    def wait_for(self, seen: Callable[[], bool], seconds: float = 90) -> None:
        """Looks every 50 ms, gives up when the process ends."""
        clock = threading.Event()
        for _ in range(int(seconds / 0.05)):
            if seen():
                return
            assert self.process.poll() is None, self.screen
            clock.wait(0.05)
        raise AssertionError(f"not seen in {seconds} s; the screen holds {self.screen[-2000:]}")

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join()


@pytest.fixture
def endless(tmp_path: Path, cache: Path) -> Iterator[Terminal]:
    (tmp_path / "long.yaml").write_text(
        "name: long\ndata: {dataset: digits}\nmodel: {name: cnn, depth: 1, width: 2, dropout: {uniform: [0, 0.1]}}\n"
        "train: {epochs: 100000}\nsearch: {trials: 50, scheduler: none}\n"
    )
    terminal = Terminal([HYPERTUNE, "run", "long.yaml"], tmp_path, cache)
    yield terminal
    terminal.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_run_tidily_with_what_was_done_kept(
    endless: Terminal, tmp_path: Path, number: signal.Signals
) -> None:
    run = tmp_path / "results" / "long"
    endless.wait_for(lambda: "0 of 50 done" in endless.screen and "best" in endless.screen)
    started = next(e for e in read_lines(run / "events.jsonl") if e["event"] == "started")
    endless.process.send_signal(number)
    assert endless.process.wait(timeout=60) == 128 + number
    said = json.loads((run / "run.json").read_text())
    assert said["status"] == "interrupted" and said["counts"]["interrupted"] >= 1
    last = read_lines(run / "events.jsonl")[-1]
    assert (last["event"], last["reason"]) == ("run_ended", number.name)
    assert read_lines(run / "trials" / started["trial"] / "result.json")
    endless.close()
    assert "hypertune analyze results/long" in endless.screen and "Ray instance" not in endless.screen
    worker = Path(f"/proc/{started['pid']}")
    assert not worker.exists() or (worker / "stat").read_text().split()[2] == "Z"


def test_a_time_budget_ends_the_run_as_finished(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "long.yaml").write_text(
        "name: timed\ndata: {dataset: digits}\nmodel: {name: cnn, depth: 1, width: 2}\n"
        "train: {epochs: 100000, batch_size: {int: [32, 128]}}\nsearch: {trials: 50, scheduler: none, time: 12s}\n"
    )
    done = subprocess.run(
        [HYPERTUNE, "run", "long.yaml", "--json"],
        cwd=tmp_path, env=environment(cache), capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    said = json.loads(done.stdout)
    assert done.returncode == 0 and said["counts"]["interrupted"] == len(
        list((tmp_path / "results/timed/trials").iterdir())
    )
    ended = [e for e in read_lines(tmp_path / "results/timed/events.jsonl") if e["event"] == "ended"]
    assert {e["reason"] for e in ended} == {"the time budget is spent"}


def test_a_broken_trial_leaves_its_trace_and_a_taken_name_its_run(first: Done, cache: Path) -> None:
    """The checkpoint of trial 002 cannot be written (breaking/sitecustomize.py); the run's name is that of `first`."""
    home = first.path.parent.parent
    before = {p: p.stat().st_mtime_ns for p in first.path.rglob("*")}
    (home / "two.yaml").write_text(
        "name: small\ndata: {dataset: digits, subset: 200}\nmodel: {name: cnn, depth: 1, width: {choice: [2, 3, 4]}}\n"
        "train: {epochs: 2}\nsearch: {trials: 3, scheduler: none}\nresources: {trials_at_once: 1}\n"
    )
    done = subprocess.run(
        [HYPERTUNE, "run", "two.yaml", "--json"], cwd=home, capture_output=True, text=True, timeout=120,
        env={**environment(cache), "PYTHONPATH": str(Path(__file__).parent / "breaking")},
    )  # fmt: skip
    said = json.loads(done.stdout)
    run = Done(Path(said["run"]), said, done.stderr)
    assert run.path.name == "small-2" and {p: p.stat().st_mtime_ns for p in first.path.rglob("*")} == before
    assert {state: count for state, count in said["counts"].items() if count} == {"finished": 2, "failed": 1}
    assert "the disk of trial 002 is broken" in (run.path / "trials/002/error.txt").read_text()
    assert len({e["pid"] for e in run.events if e["event"] == "started"}) == 1  # the worker lived on
