"""Fetching: a run brought home: from its copy in a store, or from the head's disk through the log of a small job."""

from __future__ import annotations

import base64
import binascii
import contextlib
import errno
import hashlib
import json
import secrets
import shlex
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import tuner
from tuner.cluster import send
from tuner.cluster.client import Cluster
from tuner.cluster.follow import follow
from tuner.cluster.frames import Frame
from tuner.cluster.jobs import KEY, Job, last_line
from tuner.errors import BadInput, ClusterLost, HypertuneError, NoSpace
from tuner.records.store import is_url

Tell = Callable[[str, int, int], None]
"""Told what is done, how much of it, of how much."""

ANOTHER = "{} is another run of that name; choose another folder: --out"


@dataclass(frozen=True)
class Fetched:
    """Where a run is now; copied: False where it was here already. notes: what is missing or damaged of it."""

    path: Path
    copied: bool
    notes: tuple[str, ...] = ()


class Received:
    """What the sender printed, line by line, put together in a file.

    Raises (hear, close):
        BadInput: the sender refuses.
        ClusterLost: it is not what was sent.
    """

    def __init__(self, file: IO[bytes], tell: Tell) -> None:
        self.start: dict[str, Any] = {}
        self.same = False
        self._file = file
        self._tell = tell
        self._sum = hashlib.sha256()
        self._lines = 0
        self._whole = False

    def hear(self, line: str | Frame) -> None:
        """Take one line of its log; lines of others are passed over until it starts."""
        if isinstance(line, Frame):
            return
        if line.startswith(send.MARK):
            self._control(line.removeprefix(send.MARK))
        elif self.start and not self._whole:
            try:
                data = base64.b64decode(line, validate=True)
            except binascii.Error:
                raise ClusterLost("the transfer is damaged: something else printed into it; try again") from None
            self._file.write(data)
            self._sum.update(data)
            self._lines += 1
            if self._file.tell() > 2 * send.MOST:
                raise ClusterLost("the transfer is larger than it said")
            self._tell("bringing the run home", self._file.tell(), max(self._file.tell(), self.start["bytes"]))

    def close(self) -> None:
        """See that all of it came."""
        if not self._whole and not self.same:
            raise ClusterLost("the transfer broke off; nothing was written, try again")

    def _control(self, text: str) -> None:
        try:
            told = json.loads(text)
        except ValueError:
            raise ClusterLost("the transfer is damaged; try again") from None
        if "refused" in told:
            raise BadInput(str(told["refused"]))
        self.same = self.same or bool(told.get("same"))
        if "start" in told:
            self.start = {"bytes": int(told["bytes"]), "files": int(told["files"])}
        if "end" in told:
            if told["end"] != self._sum.hexdigest() or told["lines"] != self._lines:
                raise ClusterLost("the transfer is damaged: its checksum differs; nothing was written, try again")
            self._whole = True


def fetch(cluster: Cluster, job: Job, out: Path, tell: Tell, *, weights: bool = True) -> Fetched:
    """Bring the run of a job to `out/NAME`; where the same run lies at its own path here too, leave it there.

    A run that was fetched before is brought up to date.

    Raises:
        BadInput: it cannot be fetched this way, or another run is in its place.
        ClusterLost: the transfer failed; nothing was written.
    """
    out = out.absolute()
    if is_url(job.run):
        return _bring(job.run, out / job.name, tell, weights)
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=out) as folder:
            return _fetch(cluster, job, out / job.name, Path(folder), tell, weights)
    except OSError as error:
        kind = NoSpace if error.errno == errno.ENOSPC else HypertuneError
        raise kind(f"cannot write to {out}: {error.strerror or error}; choose another folder: --out") from None


def _bring(url: str, home: Path, tell: Tell, weights: bool) -> Fetched:
    from tuner.records.bring import bring
    from tuner.records.store import open_store

    tell("asking the store for the run", 0, 1)
    store = open_store(url)
    if home.exists() and _created(home) != _when(store.get("run.json") or b""):
        raise BadInput(ANOTHER.format(home))
    return Fetched(home, copied=True, notes=bring(store, home, weights=weights, tell=tell))


def _fetch(cluster: Cluster, job: Job, home: Path, folder: Path, tell: Tell, weights: bool) -> Fetched:
    words = ["python", "send.py", job.run, *([] if weights else ["--no-weights"])]
    if known := _checksum(Path(job.run) / "run.json"):
        words += ["--unless", known]
    tell("asking the head for the run", 0, 1)
    with (folder / "run.tar.gz").open("w+b") as file:
        received = Received(file, tell)
        receive(cluster, shlex.join(words), folder / "package.zip", received)
        if received.same:
            return Fetched(Path(job.run), copied=False)
        file.seek(0)
        unpack(file, folder / "run")
    move_in(folder / "run", home)
    return Fetched(home, copied=True)


def receive(cluster: Cluster, command: str, package: Path, received: Received) -> None:
    """Run the sender as a job and hear all of it.

    Raises:
        ClusterLost: it failed, or not all of it came.
    """
    job_id = f"fetch-{secrets.token_hex(4)}"
    with zipfile.ZipFile(package, "w") as archive:
        archive.writestr(zipfile.ZipInfo("send.py", (1980, 1, 1, 0, 0, 0)), Path(send.__file__).read_bytes())
    cluster.submit(job_id, f"exec {command}", package=package, env={}, metadata={KEY: tuner.__version__})
    try:
        ended = follow(cluster, job_id, received.hear)
    except BaseException:
        with contextlib.suppress(HypertuneError):  # nobody hears it any more
            cluster.stop(job_id)
        raise
    if ended.status != "finished":
        raise ClusterLost(f"the job that sends the run {ended.status} (exit {ended.code}): {last_line(ended.reason)}")
    received.close()
    cluster.forget(job_id)


def unpack(file: IO[bytes], into: Path) -> None:
    """Unpack a run: plain files below `into`, nothing else.

    Raises:
        ClusterLost: there is something else in it, or more than a run may have.
    """
    size = 0
    try:
        with tarfile.open(fileobj=file, mode="r:gz") as archive:
            for entry in archive:
                size += entry.size
                if not entry.isreg() or entry.name.startswith("/") or size > 2 * send.MOST:
                    raise ClusterLost(f"what came is no run folder ({entry.name!r}); nothing was written")
                archive.extract(entry, into, filter="data")
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise ClusterLost(f"what came is no run folder ({error}); nothing was written") from None


def move_in(found: Path, home: Path) -> None:
    """Put a run in its place; an earlier copy of it is brought up to date, what was made from it stays.

    Raises:
        BadInput: another run is there.
    """
    if not home.exists():
        found.rename(home)
        return
    if _created(home) != _created(found):
        raise BadInput(ANOTHER.format(home))
    for path in sorted(found.rglob("*"), key=lambda path: path == found / "run.json"):  # run.json last
        if path.is_file():
            target = home / path.relative_to(found)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)


def _created(folder: Path) -> Any:
    """When a run began, as its run.json says."""
    try:
        return _when((folder / "run.json").read_bytes())
    except OSError:
        return None


def _when(run: bytes) -> Any:
    try:
        return json.loads(run).get("created")
    except (ValueError, AttributeError):
        return None


def _checksum(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""
