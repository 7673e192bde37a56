"""Who holds a run folder is known without the lock."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tuner.records import holder, writer
from tuner.records.writer import RunFolder


def change(path: Path, **changes: Any) -> None:
    said = json.loads((path / holder.NAME).read_text())
    (path / holder.NAME).write_text(json.dumps({**said, **changes}))


@pytest.fixture
def killed(tmp_path: Path) -> Iterator[Path]:
    """A folder whose writer got SIGKILL; it is not waited for before the test ends."""
    code = (
        "from pathlib import Path; from tuner.records.writer import RunFolder; "
        f"folder = RunFolder(Path({str(tmp_path)!r})); folder.write_run(status='running'); "
        "print('ready', flush=True); input()"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdin is not None
    process.stdout.readline()
    assert writer.status(tmp_path) == "running"
    process.send_signal(signal.SIGKILL)
    process.stdout.read()  # its end of the pipe is closed
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # dead, and still in the table of processes
    yield tmp_path
    process.wait()
    process.stdin.close()
    process.stdout.close()


def test_a_killed_process_holds_nothing_even_while_it_is_a_zombie(killed: Path) -> None:
    assert writer.status(killed) == "dead" and not holder.held(killed)


def test_a_process_id_that_is_used_again_is_another_process(tmp_path: Path) -> None:
    with RunFolder(tmp_path):
        assert holder.held(tmp_path)
        change(tmp_path, started=1.0)
        assert not holder.held(tmp_path)


def test_a_process_on_another_machine_counts_as_there(tmp_path: Path) -> None:
    with RunFolder(tmp_path):
        change(tmp_path, host="far-away", pid=2**30)
        assert holder.held(tmp_path) and writer.read_holder(tmp_path) == f"process {2**30} on far-away"


def test_a_closed_folder_is_held_by_nobody(tmp_path: Path) -> None:
    RunFolder(tmp_path).close()
    assert not holder.held(tmp_path) and holder.read_holder(tmp_path) is None


def test_to_ask_writes_nothing_and_takes_no_lock(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"status": "running"}')
    assert writer.status(tmp_path) == "dead"
    assert [p.name for p in tmp_path.iterdir()] == ["run.json"]


@pytest.mark.parametrize(
    "text", ["", "[1]", "{}", '{"pid": "1", "host": 2, "started": null}', '{"pid": 1e99}', "[" * 9999]
)
def test_a_damaged_holder_is_nobody(tmp_path: Path, text: str) -> None:
    (tmp_path / holder.NAME).write_text(text)
    assert holder.read_holder(tmp_path) is None
