"""RunFolder: the one writer of a run's files; every line is on disk before the trial that it is about goes on."""

from __future__ import annotations

import errno
import json
import math
import os
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock, Timeout

from tuner.errors import BadInput, HypertuneError, Locked, NoSpace

FORMAT = 1
"""Raised when a reader of run folders must know."""


class RunFolder:
    """A run folder held open for writing. Close it, or use it as a context manager; the lock goes with it.

    Lines are numbered over all files of the run (`seq`), so that the order of everything can be rebuilt without
    clocks; `elapsed` is seconds of a monotonic clock since the folder was opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = FileLock(path / "run.lock")
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise Locked(f"{path} is being written by another process ({read_holder(path)})") from None
        self._start = time.monotonic()
        self._seq = 0
        self._run: dict[str, Any] = {}

    @property
    def elapsed(self) -> float:
        """Seconds since the folder was opened, by a monotonic clock."""
        return time.monotonic() - self._start

    def trial(self, trial_id: str) -> Path:
        """The folder of a trial."""
        return self.path / "trials" / trial_id

    def write_space(self, text: str, parameters: list[dict[str, Any]]) -> None:
        """Write space.yaml, the user's own text, and space.json."""
        write_whole(self.path / "space.yaml", text)
        write_whole(self.path / "space.json", json.dumps(parameters, indent=1) + "\n")

    def write_run(self, **changes: Any) -> None:
        """Replace run.json with its last state and these changes; `format` and `writer` are added."""
        writer = {"pid": os.getpid(), "host": os.uname().nodename}
        self._run = {"format": FORMAT, **self._run, "writer": writer, **changes}
        write_whole(self.path / "run.json", _strict(self._run, indent=1) + "\n")

    def write_event(self, event: str, **fields: Any) -> None:
        """Append one line to events.jsonl."""
        self._append(self.path / "events.jsonl", {**self._stamp(), "event": event, **fields})

    def start_trial(self, trial_id: str, params: Mapping[str, Any]) -> None:
        """Make a trial's folder with its resolved configuration."""
        folder = self.trial(trial_id)
        try:
            folder.mkdir(parents=True)
        except OSError as error:
            raise _full(error, folder) from error
        write_whole(folder / "params.json", _strict(params, indent=1) + "\n")

    def write_row(self, trial_id: str, row: Mapping[str, Any]) -> None:
        """Append one epoch to a trial's result.json; values that are not finite become null."""
        self._append(self.trial(trial_id) / "result.json", {**self._stamp(), "trial_id": trial_id, **row})

    def write_error(self, trial_id: str, text: str) -> None:
        """Write what made a trial fail."""
        write_whole(self.trial(trial_id) / "error.txt", text)

    def close(self) -> None:
        """Let go of the lock."""
        self._lock.release()

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _stamp(self) -> dict[str, Any]:
        self._seq += 1
        return {"seq": self._seq, "time": now(), "elapsed": round(self.elapsed, 3)}

    def _append(self, path: Path, line: Mapping[str, Any]) -> None:
        data = (_strict(line) + "\n").encode()
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                size = os.fstat(descriptor).st_size
                try:
                    while data:
                        data = data[os.write(descriptor, data) :]
                except OSError:
                    os.ftruncate(descriptor, size)  # a torn line would take the next one with it
                    raise
                os.fsync(descriptor)  # 0.3 to 0.5 ms: what was reported is on disk
            finally:
                os.close(descriptor)
        except OSError as error:
            raise _full(error, path) from error


def create(out: Path, name: str) -> RunFolder:
    """Make `out/name`, or name-2, name-3 where it is taken, and open it for writing.

    Raises:
        BadInput: the folder cannot be made.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        for number in range(1, 10_000):
            path = out / (name if number == 1 else f"{name}-{number}")
            try:
                path.mkdir()
            except FileExistsError:
                continue
            return RunFolder(path)
    except OSError as error:
        raise BadInput(f"cannot write to {out}: {error.strerror}; choose another folder with --out") from None
    raise BadInput(f"{out} holds 9,999 runs called {name}; choose another name with --name")


def status(path: Path) -> str | None:
    """Status of a run as run.json says it; None where there is no run, `dead` where its writer is gone."""
    try:
        said = json.loads((path / "run.json").read_text())["status"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if said == "running" and not held(path):
        return "dead"
    return str(said)


def held(path: Path) -> bool:
    """Whether a process holds the folder's lock."""
    if not (path / "run.lock").exists():
        return False
    lock = FileLock(path / "run.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False


def read_holder(path: Path) -> str:
    """Who holds the lock, in words."""
    try:
        holder = json.loads((path / "run.json").read_text())["writer"]
        return f"process {holder['pid']} on {holder['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "unknown"


def now() -> str:
    """Local time with its offset, ISO 8601, to the millisecond. For people; order goes by `seq`."""
    return datetime.now().astimezone().isoformat(timespec="milliseconds")


def write_whole(path: Path, text: str) -> None:
    """Write a file so that a reader or a crash sees the old one or the new one, never a part.

    Raises:
        NoSpace: the disk is full.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise _full(error, path) from error


def _full(error: OSError, path: Path) -> HypertuneError:
    kind = NoSpace if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else HypertuneError
    return kind(f"cannot write {path}: {error.strerror}; what was written before is kept")


def _strict(value: Mapping[str, Any], indent: int | None = None) -> str:
    """Strict JSON: null for what is not finite."""
    return json.dumps(_finite(value), indent=indent, allow_nan=False, ensure_ascii=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
