"""The run folder's writer: whole lines, strict JSON, one writer."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from tuner.errors import BadInput, HypertuneError, NoSpace
from tuner.records import writer
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
        writer.create(tmp_path, "r").close()
    (tmp_path / "r/mine.txt").write_text("mine")
    writer.create(tmp_path, "r").close()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["r", "r-2", "r-3", "r-4"]
    assert (tmp_path / "r/mine.txt").read_text() == "mine"


def test_a_second_writer_is_refused_and_told_who_holds_it(tmp_path: Path) -> None:
    with writer.create(tmp_path, "r") as folder:
        folder.write_run(status="running")
        done = run_python(f"RunFolder(Path({str(folder.path)!r}))")
        holder = json.loads((folder.path / "run.json").read_text())["writer"]["pid"]
        assert "Locked" in done.stderr and f"process {holder}" in done.stderr
    RunFolder(tmp_path / "r").close()


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
    assert (said["status"], said["trials"], said["format"]) == ("finished", 3, writer.FORMAT)


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="choose another folder with --out"):
        writer.create(tmp_path / "file" / "results", "r")


def test_a_failed_replacement_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer.write_whole(tmp_path / "a", "old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(NoSpace, match="No space left"):
        writer.write_whole(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "old"


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
