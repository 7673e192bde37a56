"""What was acknowledged stays, whatever happens: torn lines, a full disk, kills, and all of it in any order."""

from __future__ import annotations

import errno
import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tuner.errors import HypertuneError, NoSpace
from tuner.records import holder
from tuner.records.reader import Record, read_record
from tuner.records.writer import RunFolder

pytestmark = pytest.mark.slow

Tell = Callable[[Record], list[tuple[Any, ...]]]


def write_anew(path: Path, data: bytes) -> None:
    path.unlink()  # some file systems wait for the disk when a file is emptied and written again
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["events.jsonl", "trials/002/result.json"])
def test_a_file_cut_at_any_byte_loses_at_most_its_last_line(small: Path, told: Tell, name: str) -> None:
    whole = read_record(small).lines
    data, events = (small / name).read_bytes(), (small / "events.jsonl").read_bytes()
    numbers = [json.loads(line)["seq"] for line in data.splitlines()]
    with patch("os.fsync"):
        for size in range(len(data) + 1):
            write_anew(small / name, data[:size])
            lost = set(numbers[data[:size].count(b"\n") :])
            asked = {line.trial for line in whole if line.event == "asked" and line.seq not in lost}
            kept = [line for line in whole if line.seq not in lost and line.trial in {None, *asked}]
            read = read_record(small)
            assert list(read.lines) == kept
            assert any("torn last line" in p for p in read.problems) == (size > 0 and data[size - 1] != 10)
            with RunFolder(small) as folder:
                folder.write_event("resumed", unfinished=[])
            again = read_record(small)
            assert again.lines[:-1] == read.lines and again.lines[-1].seq > max((line.seq for line in kept), default=0)
            assert not any("torn" in problem for problem in again.problems)
            write_anew(small / "events.jsonl", events)


def test_a_session_goes_on_where_the_last_one_ended(small: Path) -> None:
    line = read_record(small).lines[-1]
    with (small / "trials/002/result.json").open("a") as file:
        file.write(json.dumps({"seq": 40, "elapsed": 1000.5, "epoch": 3}) + "\n")
    with RunFolder(small) as folder:
        assert folder.elapsed >= 1000.5
        folder.write_event("resumed", unfinished=["002"])
        folder.write_run(status="running")
    last = read_record(small)
    assert last.lines[-1].seq == 41 and last.lines[-1].fields["elapsed"] >= 1000.5 > line.fields["elapsed"]
    assert last.run["name"] == "small" and last.run["trials"] == 4


def test_a_trial_folder_that_a_crash_left_is_used_again_but_not_one_with_epochs(small: Path) -> None:
    (small / "trials/003").mkdir()
    (small / "trials/003/params.json.tmp").write_text("{")
    with RunFolder(small) as folder:
        folder.start_trial("003", {"seed": 3})
        with pytest.raises(HypertuneError, match="holds epochs"):
            folder.start_trial("002", {})
    assert read_record(small).config("003") == {"seed": 3}


# ---------------------------------------------------------------- the N-th call to the system fails

CALLS = ("open", "write", "fsync", "replace", "mkdir", "unlink", "ftruncate")
Act = Callable[[RunFolder], None]

SESSION: dict[tuple[str, int], Act] = {
    ("space", 0): lambda folder: folder.write_space("a: 1\n", []),
    ("run", 1): lambda folder: folder.write_run(n=1),
    ("trials/001/params.json", 2): lambda folder: folder.start_trial("001", {"n": 2}),
    ("events.jsonl", 3): lambda folder: folder.write_event("asked", n=3),
    ("trials/001/result.json", 4): lambda folder: folder.write_row("001", {"n": 4}),
    ("trials/001/result.json", 5): lambda folder: folder.write_row("001", {"n": 5, "text": "x" * 5000}),
    ("trials/001/error.txt", 6): lambda folder: folder.write_error("001", "no"),
    ("events.jsonl", 7): lambda folder: folder.write_event("ended", n=7),
    ("run", 8): lambda folder: folder.write_run(n=8),
}


@contextmanager
def failing(number: int, code: int, *, for_good: bool) -> Iterator[list[str]]:
    """The number-th call fails, or it and all after it; a write after it has done half. Gives the calls so far."""
    calls: list[str] = []

    def broken(name: str) -> Callable[..., Any]:
        real = getattr(os, name)

        def call(*args: Any, **options: Any) -> Any:
            calls.append(name)
            if len(calls) == number or (for_good and len(calls) > number):
                if name == "write":
                    real(args[0], args[1][: len(args[1]) // 2])
                raise OSError(code, os.strerror(code))
            return None if name == "fsync" else real(*args, **options)

        return call

    with ExitStack() as stack:
        for name in CALLS:
            stack.enter_context(patch(f"os.{name}", broken(name)))
        yield calls


def perform(path: Path) -> tuple[list[tuple[str, int]], list[BaseException]]:
    """All of the session, over every error; what was acknowledged, and the errors."""
    done: list[tuple[str, int]] = []
    errors: list[BaseException] = []
    try:
        with RunFolder(path) as folder:
            for key, act in SESSION.items():
                try:
                    act(folder)
                    done.append(key)
                except Exception as error:
                    errors.append(error)
    except Exception as error:
        errors.append(error)
    return done, errors


@pytest.mark.parametrize("for_good", [False, True])
@pytest.mark.parametrize(("code", "kind"), [(errno.ENOSPC, NoSpace), (errno.EIO, HypertuneError)])
def test_nothing_acknowledged_is_lost_whichever_call_fails(
    tmp_path: Path, code: int, kind: type[HypertuneError], for_good: bool
) -> None:
    for number in itertools.count(1):
        path = tmp_path / str(number)
        path.mkdir()
        with failing(number, code, for_good=for_good) as calls:
            done, errors = perform(path)
        assert all(isinstance(error, HypertuneError) for error in errors) and isinstance((errors or [kind()])[0], kind)
        RunFolder(path).close()
        for name in ("events.jsonl", "trials/001/result.json"):
            text = (path / name).read_text() if (path / name).exists() else ""
            assert text[-1:] in ("", "\n")
            lines = [json.loads(line) for line in text.splitlines()]
            assert {n for place, n in done if place == name} <= {line["n"] for line in lines}
            assert sorted({line["seq"] for line in lines}) == [line["seq"] for line in lines]
        if kept := [n for place, n in done if place == "run"]:
            assert json.loads((path / "run.json").read_text())["n"] >= kept[-1]
        for place in ("space.yaml", "trials/001/params.json", "trials/001/error.txt"):
            name = place.replace(".yaml", "")
            assert name not in {place for place, _ in done} or (path / place).read_text()
        if len(calls) < number:
            break
    assert number > 40 and not errors and len(done) == len(SESSION)


# ---------------------------------------------------------------- kills, leftovers and resumes in any order


class Life(RuleBasedStateMachine):
    """A run folder through sessions that end in every way; `lines` and `run` are what was acknowledged."""

    def __init__(self) -> None:
        super().__init__()
        self.quiet = patch("os.fsync")  # a kill loses nothing that was written; the machine stays up
        self.quiet.start()
        self.home = tempfile.TemporaryDirectory()
        self.path = Path(self.home.name)
        self.folder: RunFolder | None = RunFolder(self.path)
        self.folder.write_run(count=0)
        self.lines: list[tuple[str, str | None, int]] = []
        self.trials = 0
        self.count = 0

    def teardown(self) -> None:
        self.end()
        self.home.cleanup()
        self.quiet.stop()

    @property
    def open(self) -> RunFolder:
        assert self.folder is not None
        return self.folder

    def is_open(self) -> bool:
        return self.folder is not None

    def is_shut(self) -> bool:
        return self.folder is None

    @precondition(is_open)
    @rule()
    def begin(self) -> None:
        self.trials += 1
        trial = f"{self.trials:03d}"
        self.open.start_trial(trial, {"n": self.trials})
        self.open.write_event("asked", trial=trial, parameters={}, n=self.trials)
        self.lines.append(("asked", trial, self.trials))

    @precondition(lambda self: self.folder is not None and self.trials)
    @rule(chance=st.randoms())
    def row(self, chance: random.Random) -> None:
        trial = f"{chance.randint(1, self.trials):03d}"
        epoch = 1 + sum(line[:2] == ("row", trial) for line in self.lines)
        self.open.write_row(trial, {"epoch": epoch, "n": epoch})
        self.lines.append(("row", trial, epoch))

    @precondition(is_open)
    @rule(text=st.text())
    def event(self, text: str) -> None:
        self.open.write_event("said", n=len(self.lines), text=text)
        self.lines.append(("said", None, len(self.lines)))

    @precondition(is_open)
    @rule()
    def replace(self) -> None:
        self.count += 1
        self.open.write_run(count=self.count)

    @precondition(is_open)
    @rule()
    def end(self) -> None:
        if self.folder:
            self.folder.close()
        self.folder = None

    @precondition(is_open)
    @rule(part=st.floats(0, 0.999), where=st.sampled_from(["event", "row", "run", "begin"]))
    def kill(self, part: float, where: str) -> None:
        """The process dies in the middle of a write that was not acknowledged."""
        stale = (self.path / holder.NAME).read_text().replace(f'"pid": {os.getpid()}', '"pid": 4194303')
        self.end()
        (self.path / holder.NAME).write_text(stale)
        line = b'{"seq": 999999, "elapsed": 1.0, "event": "said", "epoch": 77, "n": 77}\n'
        line = line[: int(part * len(line))]
        if where == "begin":
            (self.path / f"trials/{self.trials + 1:03d}").mkdir(parents=True, exist_ok=True)
        elif where == "run":
            (self.path / "run.json.tmp").write_bytes(line)
        elif where == "event" or not self.trials:
            with (self.path / "events.jsonl").open("ab") as file:
                file.write(line)
        else:
            with (self.path / f"trials/{self.trials:03d}/result.json").open("ab") as file:
                file.write(line)

    @precondition(is_shut)
    @rule()
    def resume(self) -> None:
        assert not holder.held(self.path)
        self.folder = RunFolder(self.path)

    @invariant()
    def all_is_there(self) -> None:
        record = read_record(self.path) if self.count or self.lines else None
        if record is None:
            return
        assert [(line.event, line.trial, line.fields["n"]) for line in record.lines] == self.lines
        numbers = [line.seq for line in record.lines]
        assert numbers == sorted(set(numbers)) and max(numbers, default=0) < 999999
        moments = [line.fields["elapsed"] for line in record.lines]
        assert moments == sorted(moments) and record.run["count"] == self.count
        assert self.folder is None or not any("torn" in problem for problem in record.problems)


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)


# ---------------------------------------------------------------- a real process, killed

WRITE = """
import sys
from pathlib import Path
from tuner.records.writer import RunFolder
with RunFolder(Path(sys.argv[1])) as folder:
    for n in range(10**9):
        folder.write_row("001", {"epoch": int(sys.argv[2]) + n})
        print(int(sys.argv[2]) + n, flush=True)
"""


def test_a_writer_that_is_killed_again_and_again_has_written_all_that_it_said(tmp_path: Path) -> None:
    with RunFolder(tmp_path) as folder:
        folder.write_space("name: killed", [])
        folder.write_run(name="killed")
        folder.start_trial("001", {})
        folder.write_event("asked", trial="001", parameters={})
    chance, said, first = random.Random(0), set[int](), 1
    for _ in range(10):
        command = [sys.executable, "-c", WRITE, str(tmp_path), str(first)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            said |= {int(process.stdout.readline()) for _ in range(chance.randint(1, 40))}
            process.kill()
            said |= {int(line) for line in process.stdout if line.endswith(b"\n")}
        RunFolder(tmp_path).close()
        record = read_record(tmp_path)
        epochs = [line.fields["epoch"] for line in record.lines if line.event == "row"]
        assert said <= set(epochs) and epochs == list(range(1, len(epochs) + 1)) and record.problems == ()
        first = len(epochs) + 1
