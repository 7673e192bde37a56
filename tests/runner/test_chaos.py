"""A search that cannot be lost: its processes are killed, and what is there afterwards is held against a side record.

The side record is written by the workers, not by the code under test: a worker that has trained epoch e + 1 in the
same process was told to go on after epoch e, so e must be in the run folder, whatever died then.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import uuid
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from tuner.spec.trial_config import TrialConfig

pytestmark = pytest.mark.ray

HYPERTUNE = str(Path(sys.executable).with_name("hypertune"))
SPACE = """
name: chaos
data: {dataset: digits, subset: 600, augment: flip_crop}
model: {name: cnn, depth: {int: [1, 2]}, width: {choice: [8, 16]}, dropout: {uniform: [0, 0.3]}}
train:
  epochs: 6
  optimizer: {name: sgd, lr: {loguniform: [1.0e-3, 0.3]}}
  schedule: onecycle
search: {trials: 7, sampler: {name: tpe, startup_trials: 3}, scheduler: {name: asha, grace: 2, factor: 2}}
resources: {trials_at_once: 1}
"""
SLOW = "0.3"
"""Seconds that an epoch takes where something is to happen during the search; without it all is over in one."""
TIMES = {"seq", "time", "elapsed", "epoch_seconds", "images_per_second", "time_total_s", "peak_memory_mb",
         "checkpoint_epoch"}  # fmt: skip
Rows = dict[str, list[dict[str, Any]]]


@dataclass
class Search:
    """One search under attack, in a folder of its own."""

    home: Path
    cache: Path
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)
    folder: Path | None = None
    trials: int = 7

    @property
    def path(self) -> Path:
        return self.folder or self.home / "results" / "chaos"

    @property
    def side(self) -> Path:
        return self.home / "side.txt"

    def start(self, *command: str, **extra: str) -> subprocess.Popen[str]:
        """`hypertune` with these arguments; every process of it carries our mark."""
        (self.home / "chaos.yaml").write_text(SPACE)
        path = os.pathsep.join([str(Path(__file__).parent / "killing"), os.environ.get("PYTHONPATH", "")])
        environment = {
            **os.environ, "HYPERTUNE_CACHE": str(self.cache), "SIDE": str(self.side), "CHAOS_MARK": self.mark,
            "PYTHONPATH": path, **extra,
        }  # fmt: skip
        return subprocess.Popen(
            [HYPERTUNE, *(command or self.command), "--json"],
            cwd=self.home, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # whatever shell ignores it for us
        )  # fmt: skip

    @property
    def command(self) -> tuple[str, ...]:
        return "run", "chaos.yaml", "--resume-if-exists", "--trials", str(self.trials)

    def processes(self) -> list[psutil.Process]:
        """All living processes that the search started."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("CHAOS_MARK") == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def one(self, name: str) -> psutil.Process:
        """Its process of this name."""
        return next(p for p in self.processes() if name in " ".join(p.cmdline()))

    def rows(self) -> Rows:
        """Every whole line of every trial, read by nothing of ours."""
        found: Rows = {}
        for path in sorted(self.path.glob("trials/*/result.json")):
            whole = [line for line in path.read_bytes().split(b"\n")[:-1] if line]
            found[path.parent.name] = [json.loads(line) for line in whole]
        return found

    def events(self, kind: str) -> list[dict[str, Any]]:
        lines = (self.path / "events.jsonl").read_bytes().split(b"\n")[:-1]
        return [event for event in map(json.loads, lines) if event["event"] == kind]

    def trained(self) -> list[tuple[str, str, int]]:
        """The side record: process, trial, epoch, in the order trained."""
        names = self.names()
        return [(pid, names[name], int(epoch)) for pid, name, epoch in self.lines() if name in names]

    def names(self) -> dict[str, str]:
        """Trials by the mark of their configuration."""
        names = {}
        for path in self.path.glob("trials/*/params.json"):
            config = TrialConfig.model_validate_json(path.read_text())
            names[str(zlib.crc32(config.model_dump_json().encode()))] = path.parent.name
        return names

    def lines(self) -> list[list[str]]:
        return [line.split() for line in self.side.read_text().splitlines()] if self.side.exists() else []

    def check_nothing_saved_is_trained_again(self) -> None:
        """A checkpoint is written while that takes 1.5% of the time; what one holds is not trained again."""
        names, saved = self.names(), dict[str, int]()
        for what, name, epoch in self.lines():
            if what == "saved":
                saved[name] = int(epoch)
            elif name in names:
                assert int(epoch) > saved.get(names[name], 0)

    def check_nothing_lost(self) -> None:
        rows = {name: {row["epoch"] for row in found} for name, found in self.rows().items()}
        heard = [(t, e) for (p, t, e), (q, u, f) in zip(self.trained(), self.trained()[1:], strict=False)
                 if (p, t, e + 1) == (q, u, f)]  # fmt: skip
        lost = [(trial, epoch) for trial, epoch in heard if epoch not in rows.get(trial, set())]
        assert not lost

    def check_nobody_else_can_reach_it(self) -> None:
        """Its servers listen on this machine alone, and none of its secrets lies in a file or in a command line."""
        processes = self.processes()
        listening = [c.laddr.ip for p in processes for c in p.net_connections("tcp") if c.status == psutil.CONN_LISTEN]
        assert listening and {ip.removeprefix("::ffff:") for ip in listening} <= {"127.0.0.1", "::1"}
        environments = [process.environ() for process in processes]
        (secret,) = {e["RAY_AUTH_TOKEN"] for e in environments if "RAY_AUTH_TOKEN" in e}
        assert not any(secret in " ".join(process.cmdline()) for process in processes)
        assert not any(secret.encode() in path.read_bytes() for path in self.path.rglob("*") if path.is_file())

    def check_nothing_left(self) -> None:
        """No process that it started lives ten seconds later."""
        clock = threading.Event()
        for _ in range(100):
            if not (left := self.processes()):
                return
            clock.wait(0.1)
        raise AssertionError(f"still alive: {[' '.join(p.cmdline())[:80] for p in left]}")

    def wait_for_rows(self, count: int, process: subprocess.Popen[str]) -> None:
        clock = threading.Event()
        while sum(map(len, self.rows().values())) < count and process.poll() is None:
            clock.wait(0.02)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def search(tmp_path: Path, cache: Path) -> Iterator[Search]:
    attacked = Search(tmp_path, cache)
    yield attacked
    for process in attacked.processes():
        process.kill()


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Rows:
    """The same search with nobody killed."""
    calm = Search(tmp_path_factory.mktemp("quiet"), cache)
    process = calm.start()
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    return calm.rows()


def without_times(rows: Rows) -> Rows:
    return {name: [{k: v for k, v in row.items() if k not in TIMES} for row in found] for name, found in rows.items()}


def survive(search: Search, quiet: Rows, deaths: list[str | int], chance: random.Random) -> None:
    """Kill the driver at each of `deaths` (a marked point, or after so many further rows), then let it end."""
    for death in deaths:
        before = search.rows()
        process = search.start(**({"KILL_DRIVER": death} if isinstance(death, str) else {"SLOW": SLOW}))
        if isinstance(death, int):
            search.wait_for_rows(sum(map(len, before.values())) + death, process)
            threading.Event().wait(chance.random() * 0.3)  # anywhere within an epoch
            process.kill()
        process.communicate(timeout=120)
        assert process.returncode == -signal.SIGKILL
        search.check_nothing_left()
        search.check_nothing_lost()
        after = search.rows()
        assert all(after[name][: len(rows)] == rows for name, rows in before.items())  # history is not rewritten
    process = search.start()
    _, said = process.communicate(timeout=180)
    assert process.returncode == 0, said
    check_end(search, quiet, kills=len(deaths))


def check_end(search: Search, quiet: Rows, kills: int) -> None:
    rows = search.rows()
    for found in rows.values():
        assert [row["epoch"] for row in found] == list(range(1, len(found) + 1))
    numbers = [row["seq"] for found in rows.values() for row in found]
    assert len(set(numbers)) == len(numbers)
    trained = Counter((trial, epoch) for _, trial, epoch in search.trained())
    again = {key for key, count in trained.items() if count > 1}
    search.check_nothing_saved_is_trained_again()
    assert len({trial for trial, _ in again}) <= kills  # one trial at a time
    assert without_times(rows) == without_times(quiet)  # the same trials, the same curves, bit for bit


def test_a_driver_killed_at_marked_points_loses_nothing(search: Search, quiet: Rows) -> None:
    survive(search, quiet, ["append-before:9", "append-after:8", "whole-before:6"], random.Random(0))


LONG = pytest.mark.chaos


@pytest.mark.parametrize("point", [pytest.param("checkpoint-before:4", marks=LONG), "checkpoint-after:5"])
def test_a_killed_worker_goes_on_from_its_checkpoint(search: Search, quiet: Rows, point: str) -> None:
    process = search.start(KILL_WORKER=point, KILLED=str(search.home / "killed"))
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0 and (search.home / "killed").exists(), said
    retried = search.events("retried")
    assert len(retried) == 1 and retried[0]["deaths"] == 1
    check_end(search, quiet, kills=1)


def test_a_trial_whose_worker_dies_again_and_again_is_failed_with_the_reason(search: Search) -> None:
    few = ("--trials", "2", "--set", "search.retries=1")
    process = search.start("run", "chaos.yaml", *few, KILL_WORKER="epoch-before:1")
    said, _ = process.communicate(timeout=180)
    assert process.returncode == 1 and json.loads(said)["counts"]["failed"] == 2
    assert {e["reason"] for e in search.events("ended")} == {"its process died 2 times"}
    assert [e["deaths"] for e in search.events("retried")] == [1, 1]


@pytest.mark.parametrize("server", ["raylet/raylet", pytest.param("gcs_server", marks=LONG)])
def test_a_lost_ray_is_noticed_and_leads_to_exit_4(search: Search, server: str) -> None:
    process = search.start(SLOW=SLOW)
    search.wait_for_rows(2, process)
    search.check_nobody_else_can_reach_it()
    search.one(server).kill()
    said = "".join(process.communicate(timeout=60))
    assert process.returncode == 4, said
    assert "hypertune resume results/chaos" in said
    search.check_nothing_left()
    search.check_nothing_lost()


def test_two_signals_end_it_at_once_with_whole_files(search: Search, quiet: Rows) -> None:
    process = search.start(SLOW=SLOW)
    search.wait_for_rows(2, process)
    process.send_signal(signal.SIGINT)
    threading.Event().wait(0.3)  # a person's second press
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130
    search.check_nothing_left()
    search.check_nothing_lost()
    assert json.loads((search.path / "run.json").read_text())["status"] == "interrupted"


@pytest.mark.chaos
def test_a_trial_that_hangs_is_ended_and_the_search_goes_on(search: Search) -> None:
    stop = {"KILL_WORKER": "epoch-before:3", "KILL_WITH": str(int(signal.SIGSTOP)), "KILLED": str(search.home / "hung")}
    few = ("--trials", "3", "--set", "search.hang_after=45s", "--set", "search.max_failed=0.5")
    process = search.start("run", "chaos.yaml", *few, **stop)
    said, _ = process.communicate(timeout=200)
    counts = json.loads(said)["counts"]
    assert process.returncode == 0 and counts["failed"] == 1 and counts["finished"] + counts["stopped"] == 2
    assert "search.hang_after" in next(e["reason"] for e in search.events("ended") if e["state"] == "failed")
    search.check_nothing_left()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 100 MB of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100m", "tmpfs", place], capture_output=True).returncode:
        pytest.skip("a disk of its own cannot be mounted here")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def test_a_full_disk_ends_the_run_with_5_and_keeps_what_is_there(search: Search, small_disk: Path, quiet: Rows) -> None:
    (search.home / "results").symlink_to(small_disk)
    process = search.start(SLOW=SLOW)
    search.wait_for_rows(3, process)
    with (small_disk / "filler").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(1 << 16))
    said = "".join(process.communicate(timeout=60))
    assert process.returncode == 5 and "hypertune resume" in said, said
    search.check_nothing_left()
    search.check_nothing_lost()
    (small_disk / "filler").unlink()
    process = search.start("resume", "results/chaos")
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    check_end(search, quiet, kills=1)


def test_a_run_that_is_written_is_left_alone_by_a_second_process(search: Search) -> None:
    process = search.start("run", "chaos.yaml", "--trials", "500")
    search.wait_for_rows(1, process)
    second = search.start("resume", "results/chaos")
    said = "".join(second.communicate(timeout=60))
    assert second.returncode == 3 and f"process {process.pid}" in said
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 143
    search.check_nothing_left()


@pytest.mark.chaos
def test_a_moved_folder_goes_on_elsewhere(search: Search, quiet: Rows) -> None:
    process = search.start(SLOW=SLOW)
    search.wait_for_rows(4, process)
    process.kill()
    process.communicate(timeout=30)
    search.check_nothing_left()
    (search.home / "results").rename(search.home / "moved")
    process = search.start("resume", "moved/chaos")
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    (search.home / "moved").rename(search.home / "results")
    check_end(search, quiet, kills=1)


@pytest.mark.chaos
def test_a_population_killed_in_mid_search_goes_on_as_if_it_had_not_been(search: Search) -> None:
    population = (
        "--set",
        "search.scheduler={name: pbt, every: 2}",
        "--trials",
        "4",
        "--set",
        "train.schedule=constant",
    )
    process = search.start("run", "chaos.yaml", *population, "--name", "calm")
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    (search.path.parent / "calm").rename(search.home / "calm")
    search.side.unlink()
    process = search.start("run", "chaos.yaml", *population, SLOW=SLOW)
    search.wait_for_rows(13, process)  # past the second round
    process.kill()
    process.communicate(timeout=30)
    search.check_nothing_left()
    process = search.start("resume", "results/chaos")
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    calm = Search(search.home, search.cache, folder=search.home / "calm")
    assert without_times(search.rows()) == without_times(calm.rows())
    changed = [{k: e[k] for k in ("trial", "epoch", "source", "parameters")} for e in search.events("mutated")]
    assert changed and changed == [
        {k: e[k] for k in ("trial", "epoch", "source", "parameters")} for e in calm.events("mutated")
    ]


@pytest.mark.chaos
@pytest.mark.timeout(1200)
def test_a_driver_killed_at_random_until_the_search_ends(search: Search, tmp_path: Path) -> None:
    calm = Search(tmp_path / "calm", search.cache, trials=24)
    calm.home.mkdir()
    search.trials = calm.trials
    process = calm.start()
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    chance = random.Random(0)
    points = ("append-before", "append-after", "whole-before", "whole-after")
    deaths: list[str | int] = [
        f"{chance.choice(points)}:{chance.randint(4, 9)}" if chance.random() < 0.5 else chance.randint(1, 4)
        for _ in range(14)
    ]
    survive(search, calm.rows(), deaths, chance)
