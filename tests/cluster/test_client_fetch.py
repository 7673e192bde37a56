"""A run through a job's log: sent as text, received whole or not at all, unpacked as plain files only."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import tarfile
from collections.abc import AsyncGenerator, Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tuner.cluster import fetch as fetching
from tuner.cluster import send
from tuner.cluster.client import Cluster
from tuner.cluster.fetch import fetch, move_in, unpack
from tuner.cluster.jobs import Job
from tuner.errors import BadInput, ClusterLost
from tuner.records.store import open_store


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "head" / "one"
    for name, content in {
        "run.json": '{"created": "then", "name": "one"}',
        "events.jsonl": "{}\n" * 5000,
        "trials/001/result.json": "{}\n",
        "trials/001/checkpoint_best/model.safetensors": "w" * 50_000,
        "trials/001/checkpoint_000003/model.safetensors": "w",
        "run.lock": "",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    (folder / "link").symlink_to("/etc/passwd")
    return folder


class Head(Cluster):
    """A job server that runs the job here at once; spoil changes what it printed."""

    def __init__(self, spoil: Callable[[str], str] = lambda log: log) -> None:
        self.address, self.spoil, self.log, self.stopped = "http://x", spoil, "", False

    def submit(
        self, job_id: str, entrypoint: str, *, package: Path | None, env: Mapping[str, Any], metadata: Mapping[str, str]
    ) -> None:
        words = entrypoint.removeprefix("exec python send.py ").split()
        done = subprocess.run([sys.executable, send.__file__, *words], capture_output=True, text=True, check=True)
        self.log = self.spoil(f"INFO job_manager.py -- Runtime env is setting up.\n{done.stdout}")

    async def tail(self, job_id: str) -> AsyncGenerator[str, None]:
        for place in range(0, len(self.log), 5000):
            yield self.log[place : place + 5000]

    def job(self, job_id: str) -> Any:
        return SimpleNamespace(over=True, status="finished", code=0, reason="")

    def stop(self, job_id: str) -> bool:
        self.stopped = True
        return True

    def forget(self, job_id: str) -> None:
        pass


def job_of(run: Path | str, name: str = "one") -> Job:
    return Job("one-1", name, str(run), "", "finished", 0, 1, 0, "", "", "")


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file() and not p.is_symlink()}


def hide(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the run lay on another machine."""
    real = fetching._checksum
    monkeypatch.setattr(fetching, "_checksum", lambda p: "" if p.is_relative_to(path) else real(p))


@pytest.mark.parametrize("weights", [True, False])
def test_a_run_comes_home_as_it_was(weights: bool, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hide(run, monkeypatch)
    found = fetch(Head(), job_of(run), tmp_path / "out", lambda *_: None, weights=weights)
    assert found.path == tmp_path / "out" / "one"
    expected = {n: c for n, c in tree(run).items() if n != "run.lock" and (weights or "checkpoint" not in n)}
    assert tree(found.path) == expected
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["one"]


def test_a_run_on_a_shared_disk_stays_where_it_is(run: Path, tmp_path: Path) -> None:
    found = fetch(Head(), job_of(run), tmp_path / "out", lambda *_: None)
    assert (found.path, found.copied) == (run, False)
    assert list((tmp_path / "out").iterdir()) == []


def cut_off(log: str) -> str:
    return log[: len(log) * 2 // 3]


def without_a_line(log: str) -> str:
    lines = log.split("\n")
    return "\n".join(lines[:3] + lines[4:])


def with_noise(log: str) -> str:
    lines = log.split("\n")
    return "\n".join([*lines[:3], "a warning!", *lines[3:]])


def with_another_line(log: str) -> str:
    lines = log.split("\n")
    return "\n".join([*lines[:3], lines[2], *lines[3:]])


@pytest.mark.parametrize("spoil", [cut_off, without_a_line, with_noise, with_another_line, lambda log: ""])
def test_a_transfer_that_broke_leaves_nothing(
    spoil: Callable[[str], str], run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hide(run, monkeypatch)
    (run / "noise").write_bytes(bytes(hashlib.sha512(str(n).encode()).digest()[0] for n in range(60_000)))
    with pytest.raises(ClusterLost, match="transfer"):
        fetch(Head(spoil), job_of(run), tmp_path / "out", lambda *_: None)
    assert list((tmp_path / "out").iterdir()) == []


def test_ctrl_c_leaves_nothing_and_ends_the_sender(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hide(run, monkeypatch)

    def press(what: str, done: int, of: int) -> None:
        if done:
            raise KeyboardInterrupt

    head = Head()
    with pytest.raises(KeyboardInterrupt):
        fetch(head, job_of(run), tmp_path / "out", press)
    assert list((tmp_path / "out").iterdir()) == []
    assert head.stopped


def test_a_run_that_is_too_large_is_refused_with_what_to_do(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hide(run, monkeypatch)
    with (run / "huge").open("wb") as file:
        file.truncate(send.MOST)
    with pytest.raises(BadInput, match="--no-weights, or copy it: rsync"):
        fetch(Head(), job_of(run), tmp_path / "out", lambda *_: None)


def test_a_run_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="holds no run on the head: No such file"):
        fetch(Head(), job_of(tmp_path / "none"), tmp_path / "out", lambda *_: None)


def test_fetching_again_brings_it_up_to_date_and_keeps_what_was_made_of_it(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hide(run, monkeypatch)
    home = fetch(Head(), job_of(run), tmp_path / "out", lambda *_: None).path
    (home / "report.html").write_text("mine")
    (run / "events.jsonl").write_text("more")
    fetch(Head(), job_of(run), tmp_path / "out", lambda *_: None)
    assert (home / "events.jsonl").read_text() == "more"
    assert (home / "report.html").read_text() == "mine"


def test_another_run_of_that_name_is_not_touched(run: Path, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "run.json").write_text('{"created": "at another time"}')
    with pytest.raises(BadInput, match="another run"):
        move_in(run, tmp_path / "one")
    assert json.loads((tmp_path / "one" / "run.json").read_text())["created"] == "at another time"


def stored(tmp_path: Path, created: str) -> str:
    """A run's copy in a store."""
    url = f"file://{tmp_path}/store/one"
    open_store(url).put("run.json", json.dumps({"format": 1, "created": created}).encode())
    open_store(url).put("log/000000000001.jsonl", b'{"seq": 1, "event": "run_started"}\n')
    return url


def test_a_run_with_a_copy_in_a_store_is_brought_from_there(tmp_path: Path) -> None:
    found = fetch(Head(), job_of(stored(tmp_path, "then")), tmp_path / "out", lambda *_: None)
    assert tree(found.path)["events.jsonl"] == b'{"seq": 1, "event": "run_started"}\n'
    (found.path / "events.jsonl").unlink()
    assert fetch(Head(), job_of(stored(tmp_path, "then")), tmp_path / "out", lambda *_: None).path == found.path
    assert (found.path / "events.jsonl").exists()


def test_a_copy_in_a_store_does_not_replace_another_run(tmp_path: Path) -> None:
    fetch(Head(), job_of(stored(tmp_path, "then")), tmp_path / "out", lambda *_: None)
    before = tree(tmp_path / "out")
    with pytest.raises(BadInput, match="another run"):
        fetch(Head(), job_of(stored(tmp_path, "later")), tmp_path / "out", lambda *_: None)
    assert tree(tmp_path / "out") == before


def archive(*entries: tarfile.TarInfo) -> io.BytesIO:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as found:
        for entry in entries:
            found.addfile(entry, io.BytesIO(b"x" * entry.size))
    file.seek(0)
    return file


def entry(name: str, **fields: Any) -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    for key, value in fields.items():
        setattr(found, key, value)
    return found


@pytest.mark.parametrize(
    "evil",
    [
        entry("../outside"),
        entry("/tmp/outside"),
        entry("link", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        entry("hard", type=tarfile.LNKTYPE, linkname="run.json"),
        entry("pipe", type=tarfile.FIFOTYPE),
        entry("device", type=tarfile.CHRTYPE),
    ],
    ids=lambda e: e.name,
)
def test_only_plain_files_below_the_run_are_unpacked(evil: tarfile.TarInfo, tmp_path: Path) -> None:
    with pytest.raises(ClusterLost, match="no run folder"):
        unpack(archive(entry("run.json"), evil), tmp_path / "run")
    assert not [p for p in tmp_path.rglob("*") if p.name in ("outside", "link", "hard", "pipe", "device")]


def test_files_that_change_while_they_are_sent_do_no_harm(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as found:
        send.add(found, run, run / "gone")
        send.add(found, run, run / "events.jsonl")
        assert found.getnames() == ["events.jsonl"]


def test_the_lines_fit_what_ray_sends_at_a_time(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from ray.dashboard.modules.job.utils import MAX_CHUNK_CHAR_LENGTH

    assert send.LINE * 4 // 3 + 1 <= MAX_CHUNK_CHAR_LENGTH
    assert send.LINE % 3 == 0  # a line but the last has no padding
