"""A run's copy in a store: every line once, at most five seconds late, whatever is killed or cannot be reached."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tuner.errors import BadInput, HypertuneError, Locked
from tuner.records import writer
from tuner.records.bring import bring, local_log, standing
from tuner.records.claim import Claim
from tuner.records.copying import free_name
from tuner.records.reader import Record, read_record
from tuner.records.segments import LARGE, MANY, MOST, Segments, segment_name
from tuner.records.store import Store, StoreError, open_store
from tuner.records.writer import RunFolder

Tell = Callable[[Record], list[tuple[Any, ...]]]


class Flaky(Store):
    """A store that can be made to fail; counts what is asked of it."""

    fault: HypertuneError | None = None
    puts = 0

    def _try(self, act: Callable[[], Any]) -> Any:
        if self.fault:
            raise self.fault
        return super()._try(act)

    def put(self, name: str, data: bytes) -> None:
        super().put(name, data)
        self.puts += name.startswith("log/")


@pytest.fixture
def store(tmp_path: Path) -> Flaky:
    opened = open_store((tmp_path / "store").as_uri())
    return Flaky(opened.url, opened._system, opened._root)


@pytest.fixture
def now() -> list[float]:
    return [0.0]


@pytest.fixture
def segments(store: Flaky, now: list[float]) -> Segments:
    """Without its thread: a turn is what a test takes."""
    return Segments(store, Claim(store, lambda: now[0]), clock=lambda: now[0])


def line(seq: int, size: int = 0) -> bytes:
    return json.dumps({"seq": seq, "event": "x" * size}).encode() + b"\n"


def log(store: Store) -> list[int]:
    """The numbers of all lines in the order of the objects."""
    names = [name for name in store.names() if name.startswith("log/")]
    return [json.loads(text)["seq"] for name in names for text in (store.get(name) or b"").splitlines()]


def unreachable() -> StoreError:
    return StoreError("file:///x: it cannot be reached", passing=True)


# ---------------------------------------------------------------- what goes up


def test_an_object_of_the_log_grows_until_it_is_large(segments: Segments, store: Flaky) -> None:
    for seq in range(1, 7):
        segments.add(seq, line(seq, LARGE // 3))
        segments.turn()
    names = [name for name in store.names() if name.startswith("log/")]
    assert names == [segment_name(1), segment_name(4)] == ["log/000000000001.jsonl", "log/000000000004.jsonl"]
    assert log(store) == [1, 2, 3, 4, 5, 6]


def test_a_turn_with_nothing_to_write_asks_nothing_of_the_store(segments: Segments, store: Flaky) -> None:
    store.fault = unreachable()
    segments.turn()
    segments.check()


def test_of_a_file_the_last_state_goes_up_and_run_json_goes_last(
    segments: Segments, store: Flaky, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    real = store.put

    def put(name: str, data: bytes) -> None:
        order.append(name)
        real(name, data)

    monkeypatch.setattr(store, "put", put)
    segments.replace("run.json", b"old")
    segments.add(1, line(1))
    segments.replace("trials/001/params.json", b"{}")
    segments.replace("run.json", b"new")
    segments.turn()
    assert order == ["trials/001/params.json", segment_name(1), "run.json"]
    assert store.get("run.json") == b"new"


@pytest.mark.parametrize("trials", [1, MANY + 1])
def test_weights_go_when_the_lines_before_are_there(segments: Segments, store: Flaky, trials: int) -> None:
    for trial in range(trials):
        for name in ("checkpoint_000003/a", "checkpoint_best/a", "params.json"):
            store.put(f"trials/{trial:03d}/{name}", b"x")
    segments.add(1, line(1))
    for trial in range(trials):
        segments.forget(f"{trial:03d}", "checkpoint_000003".__eq__)
    store.fault = unreachable()
    segments.turn()
    store.fault = None
    assert len(store.names("trials")) == 3 * trials
    segments.turn()
    left = [name.partition("/")[2].partition("/")[2] for name in store.names("trials")]
    assert left == ["checkpoint_best/a", "params.json"] * trials


# ---------------------------------------------------------------- what fails


def test_a_store_that_fails_for_a_while_loses_nothing(segments: Segments, store: Flaky, now: list[float]) -> None:
    said: list[str] = []
    segments.note = said.append
    for seq in range(1, 200):
        now[0] += 1.0
        segments.check()
        segments.add(seq, line(seq))
        segments.replace("run.json", str(seq).encode())
        store.fault = unreachable() if 20 < seq < 180 else None
        segments.turn()
    assert log(store) == list(range(1, 200))
    assert store.get("run.json") == b"199"
    assert len(said) == 2 and "waits: file:///x: it cannot be reached" in said[0] and "up to date again" in said[1]


def test_after_five_minutes_the_next_write_says_so_once(segments: Segments, store: Flaky, now: list[float]) -> None:
    store.fault = unreachable()
    segments.add(1, line(1))
    segments.turn()
    now[0] = 299.0
    segments.check()
    now[0] = 300.0
    with pytest.raises(HypertuneError, match=r"five minutes: .*cannot be reached; the run folder.* is whole"):
        segments.check()
    segments.check()  # so that the end can be written
    segments.add(2, line(2))
    assert segments.waiting == 0


def test_what_waits_is_bounded(segments: Segments) -> None:
    segments.add(1, b"x" * MOST)
    segments.check()
    segments.add(2, b"x")
    with pytest.raises(HypertuneError, match="64 MiB wait"):
        segments.check()


def test_a_writer_that_lost_its_claim_ends(segments: Segments, store: Flaky, now: list[float]) -> None:
    store.put("holder.json", b'{"pid": 1, "host": "elsewhere", "started": 1.0}')
    segments.add(1, line(1))
    now[0] = 10.0
    segments.turn()
    assert log(store) == []
    with pytest.raises(Locked, match="taken over by process 1 on elsewhere"):
        segments.check()
    segments.close()
    assert store.get("holder.json") is not None


def test_what_a_close_could_not_write_is_said(segments: Segments, store: Flaky) -> None:
    said: list[str] = []
    segments.note = said.append
    segments.add(1, line(1) + line(2))
    store.fault = unreachable()
    segments.close(0.0)
    assert "2 lines have not gone up" in said[-1] and "cannot be reached" in said[-1]


# ---------------------------------------------------------------- a run folder and its copy


def write_some(folder: RunFolder, trials: int = 2, epochs: int = 3) -> None:
    folder.write_space("name: small\n", [])
    folder.write_run(name="small", status="running")
    folder.write_event("run_started", command_line="x")
    for trial in range(1, trials + 1):
        folder.start_trial(f"{trial:03d}", {"seed": 0})
        folder.write_event("asked", trial=f"{trial:03d}", parameters={"a": 1})
        for epoch in range(1, epochs + 1):
            folder.write_row(f"{trial:03d}", {"epoch": epoch, "val_accuracy": 0.5})
    folder.write_error("001", "it broke")


def contents(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


def test_a_run_that_is_brought_is_the_run(tmp_path: Path, store: Flaky) -> None:
    with writer.create(tmp_path, "r") as folder:
        folder.copy_to(store)
        write_some(folder)
        folder.write_run(status="finished")
    assert "holder.json" not in store.names()
    done: list[tuple[str, int, int]] = []
    assert bring(store, tmp_path / "b", tell=lambda *what: done.append(what)) == ()
    assert contents(tmp_path / "b") == contents(tmp_path / "r")
    assert json.loads((tmp_path / "b/run.json").read_text())["store"] == store.url
    assert ("bringing settings", 5, 5) in done


def test_lines_go_up_by_themselves_while_the_run_goes_on(tmp_path: Path, store: Flaky) -> None:
    with writer.create(tmp_path, "r") as folder:
        folder.copy_to(store)
        write_some(folder)
        assert folder.copy and folder.copy.flush(60.0)
        assert len(log(store)) == 9
        assert "holder.json" in store.names()


def test_a_copy_begun_later_or_left_behind_gets_what_it_lacks(tmp_path: Path, store: Flaky) -> None:
    with writer.create(tmp_path, "r") as folder:
        write_some(folder)  # no copy yet
    for session in range(3):
        with RunFolder(tmp_path / "r") as folder:
            folder.copy_to(store)
            folder.write_event("resumed", unfinished=[])
            if session == 1:  # as if the driver had been killed here
                assert folder.copy
                folder.copy._closed.set()
                folder.copy._forget_all()
                folder.copy._over = True
                store.delete("holder.json")
    assert log(store) == sorted(local_log(tmp_path / "r"))
    bring(store, tmp_path / "b")
    assert contents(tmp_path / "b") == contents(tmp_path / "r")


def test_a_second_driver_is_refused(tmp_path: Path, store: Flaky) -> None:
    with writer.create(tmp_path, "r") as folder, writer.create(tmp_path, "other") as other:
        folder.copy_to(store)
        with pytest.raises(Locked):
            other.copy_to(store)


def test_a_folder_that_knows_less_than_the_copy_must_bring_it_first(tmp_path: Path, store: Flaky) -> None:
    assert standing(store, tmp_path / "r") == "none"
    with writer.create(tmp_path, "r") as folder:
        folder.copy_to(store)
        write_some(folder)
    assert standing(store, tmp_path / "r") == "here"
    assert standing(store, tmp_path / "none") == "there"
    bring(store, tmp_path / "elsewhere")
    with RunFolder(tmp_path / "r") as folder:
        folder.write_event("resumed", unfinished=[])  # the copy does not get it
    assert standing(store, tmp_path / "r") == "here"
    with RunFolder(tmp_path / "elsewhere") as folder:
        folder.copy_to(store)
        folder.write_event("extended", trials=3)
    with RunFolder(tmp_path / "r") as folder, pytest.raises(BadInput, match="it went on elsewhere"):
        folder.copy_to(store)
    assert standing(store, tmp_path / "r") == "there"
    weights = [tmp_path / "r/trials" / trial / "checkpoint_000003" for trial in ("001", "002")]
    for each in weights:
        each.mkdir()
    with RunFolder(tmp_path / "r") as folder:
        folder.write_row("002", {"epoch": 4})
    (said,) = bring(store, tmp_path / "r")
    assert said == "2 lines of the folder that was here were left out: the copy goes on without them"
    assert [each.exists() for each in weights] == [True, False]
    assert contents(tmp_path / "r").keys() == contents(tmp_path / "elsewhere").keys()
    assert local_log(tmp_path / "r") == local_log(tmp_path / "elsewhere")
    assert standing(store, tmp_path / "r") == "here"


def test_a_name_is_free_that_is_taken_neither_here_nor_there(tmp_path: Path, store: Flaky) -> None:
    assert free_name(tmp_path, store, "r") == "r"
    store.put("r/run.json", b"{}")
    store.put(f"r-2/{segment_name(1)}", line(1))
    (tmp_path / "r-3").mkdir()
    assert free_name(tmp_path, store, "r") == "r-4"


def test_a_bringing_that_broke_off_is_done_again(tmp_path: Path, store: Flaky) -> None:
    with writer.create(tmp_path, "r") as folder:
        folder.copy_to(store)
        write_some(folder)
    bring(store, tmp_path / "b")
    (tmp_path / "b/run.json").unlink()
    assert standing(store, tmp_path / "b") == "there"


def test_damage_in_the_copy_is_said_and_the_rest_is_brought(tmp_path: Path, store: Flaky) -> None:
    for _ in range(3):
        with writer.create(tmp_path, "r") if not (tmp_path / "r").exists() else RunFolder(tmp_path / "r") as folder:
            folder.copy_to(store)
            folder.write_run(name="r", status="running")
            assert folder.copy
            folder.copy._written = b""  # each session begins an object
            for _ in range(4):
                folder.write_event("run_started", command_line="x")
    assert list(store.names("log")) == [segment_name(seq) for seq in (1, 5, 9)]
    store.delete(segment_name(5))
    store.put(segment_name(9), (store.get(segment_name(9)) or b"")[:-20])
    store.put("log/notes.jsonl", b"{}")
    gaps, damaged = sorted(bring(store, tmp_path / "b"), key=lambda text: "damaged" in text)
    assert "5 to 8" in gaps and segment_name(9) in damaged
    assert [line.seq for line in read_record(tmp_path / "b").lines] == [1, 2, 3, 4, 9, 10, 11]
    with RunFolder(tmp_path / "b") as folder:
        folder.copy_to(store)
        folder.write_event("resumed", unfinished=[])
    assert max(local_log(tmp_path / "b")) > 12  # above everything that the store has
    assert bring(store, tmp_path / "c")
    assert local_log(tmp_path / "c") == local_log(tmp_path / "b")


def test_no_run_and_no_place(tmp_path: Path, store: Flaky) -> None:
    with pytest.raises(BadInput, match="there is no run"):
        bring(store, tmp_path / "b")
    store.put("run.json", b'{"format": 99}')
    with pytest.raises(BadInput, match="another version"):
        bring(store, tmp_path / "b")
    store.put("run.json", b"{}")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.jpg").touch()
    with pytest.raises(BadInput, match="holds something else"):
        bring(store, tmp_path / "photos")


def test_names_that_lead_elsewhere_are_left_there(tmp_path: Path, store: Flaky) -> None:
    with writer.create(tmp_path, "r") as folder:
        folder.copy_to(store)
        write_some(folder)
    for name in (
        "trials/001/evil.sh",
        "trials/.hidden/params.json",
        "evil/params.json",
        "trials/001/checkpoint_best/x",
    ):
        store.put(name, b"x")
    assert bring(store, tmp_path / "b", weights=True) == ()
    assert contents(tmp_path / "b").keys() == contents(tmp_path / "r").keys()


def test_weights_are_brought_whole_and_anew_where_they_changed(tmp_path: Path, store: Flaky) -> None:
    with writer.create(tmp_path, "r") as folder:
        folder.copy_to(store)
        write_some(folder)
    for state in (b"one", b"two"):
        store.put("trials/001/checkpoint_best/weights.safetensors", state * 2)
        store.put("trials/001/checkpoint_best/state.json", state)
        store.put("trials/002/checkpoint_000003/weights.safetensors", b"its state is not there yet")
        bring(store, tmp_path / "b", weights=True)
        assert (tmp_path / "b/trials/001/checkpoint_best/weights.safetensors").read_bytes() == state * 2
    assert not list((tmp_path / "b/trials/002").glob("*checkpoint*"))


# ---------------------------------------------------------------- kills


def test_at_every_moment_the_copy_is_a_beginning_of_the_log_and_at_most_five_seconds_short(
    segments: Segments, store: Flaky, now: list[float]
) -> None:
    """By the clock that it is given: a line every 0.1 s, a turn every 2 s that takes one."""
    born: list[float] = []
    turn_at = 2.0
    for seq in range(1, 600):
        now[0] = seq / 10
        segments.add(seq, line(seq))
        born.append(now[0])
        if now[0] >= turn_at:
            segments.turn()
            turn_at = now[0] + 3.0  # 2 s of waiting after one that took 1 s
        if seq % 7 == 0:
            there = log(store)
            assert there == list(range(1, len(there) + 1))
            assert all(now[0] - when <= 5.0 for when in born[len(there) :])


WRITER = """
import sys, itertools
from pathlib import Path
from tuner.records import writer
from tuner.records.claim import Claim
from tuner.records.segments import Segments
from tuner.records.store import open_store
clock = [0.0]  # 0.1 s a line, 3 s a turn and what it waits for
store = open_store(sys.argv[2])
folder = writer.RunFolder(Path(sys.argv[1]))
folder.copy_to(store)
folder.copy._closed.set()  # its thread ends: turns are taken here
folder.copy._wake.set()
folder.copy._thread.join()
print("ready", flush=True)
for n in itertools.count(1):
    folder.write_event("extended", trials=n, clock=round(clock[0], 1))
    clock[0] += 0.1
    print(flush=True)
    if n % 30 == 0:
        folder.copy.turn()
"""


@pytest.mark.slow
def test_a_driver_killed_in_the_middle_of_a_write_leaves_a_beginning_of_its_log(tmp_path: Path, store: Flaky) -> None:
    chance = random.Random(0)
    with writer.create(tmp_path, "r") as folder:
        folder.write_run(name="r", status="running")
    for kill in range(3):
        command = [sys.executable, "-c", WRITER, str(tmp_path / "r"), store.url]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout and child.stdout.readline() == "ready\n"
            for _ in range(40 + chance.randrange(120)):
                child.stdout.readline()
            os.kill(child.pid, signal.SIGKILL)
        here = local_log(tmp_path / "r")
        assert bring(store, tmp_path / f"b{kill}") == ()
        there = local_log(tmp_path / f"b{kill}")
        assert there == {seq: here[seq] for seq in sorted(here)[: len(there)]}
        assert len(log(store)) == len(there)  # each once
        clocks = [json.loads(text)["clock"] for text in here.values() if b"clock" in text]
        lost = [json.loads(here[seq])["clock"] for seq in here.keys() - there.keys() if b"clock" in here[seq]]
        assert all(clocks[-1] - clock <= 5.0 for clock in lost)
