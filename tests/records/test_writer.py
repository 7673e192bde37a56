"""The run folder's writer: whole lines, strict JSON, one writer."""

from __future__ import annotations

import fcntl
import json
import math
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tuner.errors import BadInput, HypertuneError, NoSpace
from tuner.records import reader, writer
from tuner.records.writer import RunFolder


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    imports = "from pathlib import Path; from tuner.records.writer import RunFolder, status; "
    return subprocess.run([sys.executable, "-c", imports + code], capture_output=True, text=True)


def test_lines_are_numbered_over_all_files(tmp_path: Path) -> None:
    with writer.create(tmp_path, "r") as folder:
        folder.start_trial("001", {"a": 1})
        folder.write_event("asked", trial="001")
        folder.write_row("001", {"epoch": 1})
        folder.write_event("ended", trial="001")
    assert [line["seq"] for line in lines(tmp_path / "r/events.jsonl")] == [1, 3]
    assert lines(tmp_path / "r/trials/001/result.json")[0]["seq"] == 2


def test_what_is_not_finite_is_null(tmp_path: Path) -> None:
    with writer.create(tmp_path, "r") as folder:
        folder.start_trial("001", {})
        folder.write_row("001", {"val_loss": math.nan, "deep": {"x": [math.inf, 1.0]}})
    row = lines(tmp_path / "r/trials/001/result.json")[0]
    assert row["val_loss"] is None and row["deep"] == {"x": [None, 1.0]}


def test_a_taken_name_gets_a_number_and_the_old_run_stays(tmp_path: Path) -> None:
    for _ in range(3):
        with writer.create(tmp_path, "r") as folder:
            folder.write_run(name="r")
    (tmp_path / "r/mine.txt").write_text("mine")
    writer.create(tmp_path, "r").close()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["r", "r-2", "r-3", "r-4"]
    assert (tmp_path / "r/mine.txt").read_text() == "mine"


def test_a_folder_whose_run_was_killed_before_it_began_is_taken_over(tmp_path: Path) -> None:
    with writer.create(tmp_path, "r") as folder:
        folder.write_events("learned", [{"state": "finished"}] * 2)
        (tmp_path / "r/space.yaml").write_text("half of it")
    with writer.create(tmp_path, "r") as again:
        assert again.path.name == "r" and not (tmp_path / "r/events.jsonl").exists()
        writer.create(tmp_path, "r").close()
        assert (tmp_path / "r-2").exists()  # the first one is held
        again.write_run(name="r", status="running")
    (tmp_path / "r-2/photo.png").touch()
    with writer.create(tmp_path, "r") as third:
        assert third.path.name == "r-3"


def test_a_second_writer_is_refused_and_told_who_holds_it(tmp_path: Path) -> None:
    with writer.create(tmp_path, "r") as folder:  # no run.json yet
        done = run_python(f"RunFolder(Path({str(folder.path)!r}))")
        assert "Locked" in done.stderr and f"process {os.getpid()} on {os.uname().nodename}" in done.stderr
    RunFolder(tmp_path / "r").close()


def test_a_look_at_the_lock_does_not_keep_a_resume_away(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path / "run.lock", os.O_RDONLY | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    look = threading.Timer(0.05, os.close, [descriptor])
    look.start()
    RunFolder(tmp_path).close()
    look.join()


def test_a_run_whose_writer_is_gone_is_dead(tmp_path: Path) -> None:
    assert writer.status(tmp_path / "r") is None
    with writer.create(tmp_path, "r") as folder:
        folder.write_run(status="running")
        done = run_python(f"print(status(Path({str(folder.path)!r})))")
        assert done.stdout.strip() == "running"
    assert writer.status(tmp_path / "r") == "dead"


def test_run_json_keeps_what_was_said_before(tmp_path: Path) -> None:
    with writer.create(tmp_path, "r") as folder:
        folder.write_run(status="running", trials=3)
        folder.write_run(status="finished")
    said = json.loads((tmp_path / "r/run.json").read_text())
    assert (said["status"], said["trials"], said["format"]) == ("finished", 3, reader.FORMAT)


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="choose another folder with --out"):
        writer.create(tmp_path / "file" / "results", "r")


@pytest.mark.parametrize("name", ["x" * 300, "é" * 200, "a\0b", "\ud800", "no/such/folder"])
def test_a_name_that_the_system_refuses_is_said(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadInput, match="choose another name with --name"):
        writer.create(tmp_path, name)


def test_text_that_is_no_unicode_is_written_and_read_back(tmp_path: Path) -> None:
    with RunFolder(tmp_path) as folder:
        folder.start_trial("001", {})
        folder.write_event("asked", trial="001", parameters={})
        folder.write_error("001", "no such file: \udcff.png")
        folder.write_event("ended", trial="001", state="failed", epoch=0, reason="no such file: \udcff.png")
    ended = lines(tmp_path / "events.jsonl")[-1]
    assert ended["reason"] == "no such file: \udcff.png"


def test_a_failed_replacement_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer.write_whole(tmp_path / "a", "old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(NoSpace, match="No space left"):
        writer.write_whole(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "old" and not (tmp_path / "a.tmp").exists()


def test_a_line_that_does_not_fit_is_not_left_torn(tmp_path: Path) -> None:
    code = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        f"folder = RunFolder(Path({str(tmp_path)!r})); folder.write_event('a', text='x' * 100); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200)); folder.write_event('b', text='y' * 100)"
    )
    done = run_python(code)
    assert "NoSpace" in done.stderr
    assert [line["event"] for line in lines(tmp_path / "events.jsonl")] == ["a"]


def test_a_trial_folder_that_cannot_be_made_is_an_error_of_ours_but_not_a_full_disk(tmp_path: Path) -> None:
    with RunFolder(tmp_path) as folder:
        (tmp_path / "trials").write_text("a file in the way")
        with pytest.raises(HypertuneError, match="cannot write") as caught:
            folder.start_trial("001", {})
    assert not isinstance(caught.value, NoSpace)


def test_a_folder_that_is_not_there_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="nowhere"):
        RunFolder(tmp_path / "nowhere")
    assert not any(tmp_path.iterdir())


def test_links_are_not_written_through(tmp_path: Path) -> None:
    mine = tmp_path / "mine.txt"
    mine.write_text("mine")
    (tmp_path / "r").mkdir()
    with RunFolder(tmp_path / "r") as folder:
        (tmp_path / "r/events.jsonl").symlink_to(mine)
        (tmp_path / "r/run.json.tmp").symlink_to(mine)
        folder.write_run(status="running")
        with pytest.raises(HypertuneError):
            folder.write_event("a")
    assert mine.read_text() == "mine"


def test_what_is_acknowledged_is_on_disk_and_so_are_its_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, synced = os.fsync, set[str]()

    def note(descriptor: int) -> None:
        name = str(Path(f"/proc/self/fd/{descriptor}").readlink())
        synced.add(name.removeprefix(str(tmp_path)).removesuffix(".tmp"))
        real(descriptor)

    monkeypatch.setattr("os.fsync", note)
    with RunFolder(tmp_path) as folder:
        acts: dict[Callable[[], None], set[str]] = {
            lambda: folder.write_run(): {"/run.json", ""},
            lambda: folder.start_trial("001", {}): {"/trials/001/params.json", "/trials/001", "/trials", ""},
            lambda: folder.write_event("a"): {"/events.jsonl", ""},
            lambda: folder.write_event("b"): {"/events.jsonl"},
            lambda: folder.write_row("001", {}): {"/trials/001/result.json", "/trials/001"},
        }
        for act, names in acts.items():
            synced.clear()
            act()
            assert synced == names


def test_threads_write_whole_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = sys.getswitchinterval()
    monkeypatch.setattr("os.fsync", lambda descriptor: sys.setswitchinterval(1e-6))

    def write() -> None:
        for _ in range(100):
            folder.write_event("a")

    with RunFolder(tmp_path) as folder:
        threads = [threading.Thread(target=write) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    sys.setswitchinterval(before)
    assert [line["seq"] for line in lines(tmp_path / "events.jsonl")] == list(range(1, 201))


def test_another_thread_can_close_it(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    thread = threading.Thread(target=folder.close)
    thread.start()
    thread.join()
    assert run_python(f"RunFolder(Path({str(tmp_path)!r})).close()").returncode == 0


def test_a_signal_handler_may_write_the_last_line_in_the_middle_of_another(tmp_path: Path) -> None:
    code = (
        "import os, sys; real = os.write\n"
        f"folder = RunFolder(Path({str(tmp_path)!r})); folder.write_event('a')\n"
        "def torn(descriptor, data):\n"
        "    os.write = real; real(descriptor, data[:9]); folder.write_event('last'); os._exit(0)\n"
        "os.write = torn; folder.write_event('b')"
    )
    assert run_python(code).returncode == 0
    assert [(line["seq"], line["event"]) for line in lines(tmp_path / "events.jsonl")] == [(1, "a"), (3, "last")]
