"""RunFolder: the one writer of a run's files; every line is on disk before the trial that it is about goes on."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from tuner.errors import BadInput, HypertuneError, Locked, NoSpace
from tuner.records import holder
from tuner.records.reader import FORMAT, parse, trial_names

if TYPE_CHECKING:
    from tuner.records.segments import Segments
    from tuner.records.store import Store

PATIENCE = 0.5
"""Seconds to wait for the lock: `hypertune analyze` holds it for an instant to see whether somebody writes."""

BLOCK = 4096
"""Bytes that are read at a time to find the last newline of a file; a line has about 600."""


FLAGS = os.O_NOFOLLOW | os.O_CLOEXEC
"""A link in a run folder is none of ours; a worker that the driver starts has no business with its files."""


class RunFolder:
    """A run folder held open for writing. Close it, or use it as a context manager; the lock goes with it.

    Lines are numbered over all files of the run (`seq`), so that the order of everything can be rebuilt without
    clocks; `elapsed` is seconds of a monotonic clock that ran while the folder was open. A folder that is there
    already goes on: a last line without its newline, which a crash left and nobody was told of, is cut off, and
    `seq`, `elapsed` and run.json go on from what is there.

    Threads may write at the same time. So may a signal handler in the middle of a line, if the process then ends.

    Raises:
        Locked: another process has it open.
        BadInput: it is not there, or was written by a later version.
        HypertuneError: it cannot be opened; every method that writes raises it too, and NoSpace for a full disk.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_dir():  # the lock would make it
            raise BadInput(f"{path}: there is no such folder; `hypertune runs` lists the runs in results/")
        self.path = path
        self.copy: Segments | None = None
        """What keeps its copy in a store; None where there is none."""
        self.note: Callable[[str], None] = lambda text: None
        """Called with what a person should know of the copy, from any thread."""
        self._turn = threading.RLock()
        self._lock = FileLock(path / "run.lock", thread_local=False)
        with _failing(path):
            try:
                self._lock.acquire(timeout=PATIENCE, poll_interval=0.02)
            except Timeout:
                raise Locked(
                    f"{path} is being written by another process ({read_holder(path)}); wait until it ends, or end it"
                ) from None
        try:
            with _failing(path):
                self._seq, spent = self._take_up()
                self._run = self._load_run()
            self._start = time.monotonic() - spent
            write_whole(path / holder.NAME, json.dumps(holder.this_process().as_dict()) + "\n")
        except BaseException:
            self._lock.release()
            raise

    def _take_up(self) -> tuple[int, float]:
        """Cut off torn lines; the largest `seq` and `elapsed` there are."""
        seq, elapsed = 0, 0.0
        names = ["events.jsonl", *(f"trials/{trial}/result.json" for trial in trial_names(self.path))]
        for name in names:
            try:
                descriptor = os.open(self.path / name, os.O_RDWR | FLAGS)
            except FileNotFoundError:
                continue
            with os.fdopen(descriptor, "rb") as file:
                before = os.fstat(descriptor).st_size
                if cut(descriptor) < before:
                    os.fsync(descriptor)
                for line in map(parse, file):
                    if line and type(line.get("seq")) is int and line["seq"] < 2**53:
                        seq = max(seq, line["seq"])
                    if line and type(line.get("elapsed")) in (int, float) and line["elapsed"] < 1e12:
                        elapsed = max(elapsed, float(line["elapsed"]))
        return seq, elapsed

    def _load_run(self) -> dict[str, Any]:
        try:
            run = parse((self.path / "run.json").read_bytes()) or {}
        except FileNotFoundError:
            return {}
        if isinstance(run.get("format"), int) and run["format"] > FORMAT:
            raise BadInput(
                f"{self.path} was written by a later version of hypertune "
                f"(run.json has format {run['format']}, this one writes {FORMAT}): go on with that one"
            )
        return run

    @property
    def elapsed(self) -> float:
        """Seconds by a monotonic clock that the folder has been open, all sessions of the run together."""
        return time.monotonic() - self._start

    def trial(self, trial_id: str) -> Path:
        """The folder of a trial."""
        return self.path / "trials" / trial_id

    def copy_to(self, store: Store) -> None:
        """Keep a copy: what it lacks goes up, then every line at most five seconds after it was written here.

        A write raises HypertuneError, once, when the store has taken nothing for five minutes, and Locked when another
        process has taken over; what is written after that is written here alone.

        Raises:
            Locked: another process writes there.
            BadInput: the copy has lines that this folder has not.
            StoreError: the store refused, or cannot be reached.
        """
        from tuner.records.copying import open_copy

        with self._turn:
            copy, seq = open_copy(self.path, store)
            copy.note = lambda text: self.note(text)
            self._seq = max(self._seq, seq)
            self._run = {**self._run, "store": store.url}
            self.copy = copy
            if (self.path / "run.json").exists():
                self.write_run()
            copy.start()

    def write_space(self, text: str, parameters: list[dict[str, Any]]) -> None:
        """Write space.yaml, the user's own text, and space.json."""
        with self._turn:
            self._write_whole("space.yaml", text)
            self._write_whole("space.json", json.dumps(parameters, indent=1) + "\n")

    def write_run(self, **changes: Any) -> None:
        """Replace run.json with its last state and these changes; `format` and `writer` are added."""
        with self._turn:
            run = {"format": FORMAT, **self._run, "writer": holder.this_process().as_dict(), **changes}
            self._write_whole("run.json", _strict(run, indent=1) + "\n")
            self._run = run

    def write_event(self, event: str, **fields: Any) -> None:
        """Append one line to events.jsonl."""
        self.write_events(event, [fields])

    def write_events(self, event: str, lines: Sequence[Mapping[str, Any]]) -> None:
        """Append lines of one kind to events.jsonl, in one write."""
        if lines:
            self._append(self.path / "events.jsonl", *({"event": event, **fields} for fields in lines))

    def start_trial(self, trial_id: str, params: Mapping[str, Any]) -> None:
        """Make a trial's folder with its resolved configuration; again, where a crash left it without a trial.

        Raises:
            HypertuneError: there are epochs in it.
        """
        folder = self.trial(trial_id)
        with self._turn:
            if (folder / "result.json").exists():
                raise HypertuneError(f"{folder} holds epochs that are of no trial in events.jsonl; move it away")
            with _failing(folder):
                folder.mkdir(parents=True, exist_ok=True)
                sync(folder.parent)
                sync(self.path)
            self._write_whole(f"trials/{trial_id}/params.json", _strict(params, indent=1) + "\n")

    def restore_params(self, trial_id: str, params: Mapping[str, Any]) -> None:
        """Write a trial's params.json anew, where it was lost."""
        with self._turn:
            self._write_whole(f"trials/{trial_id}/params.json", _strict(params, indent=1) + "\n")

    def write_row(self, trial_id: str, row: Mapping[str, Any]) -> None:
        """Append one epoch to a trial's result.json; values that are not finite become null."""
        self._append(self.trial(trial_id) / "result.json", {"trial_id": trial_id, **row})

    def write_error(self, trial_id: str, text: str) -> None:
        """Write what made a trial fail."""
        with self._turn:
            self._write_whole(f"trials/{trial_id}/error.txt", text)

    def close(self) -> None:
        """Write the last lines to the copy, and let go of the lock."""
        if self.copy:
            self.copy.close()
        with self._turn:
            self.copy = None
            if self._lock.is_locked:
                with contextlib.suppress(OSError):  # a holder that is gone is known by its process
                    (self.path / holder.NAME).unlink()
                self._lock.release()

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _write_whole(self, name: str, text: str) -> None:
        data = text.encode(errors="backslashreplace")
        if self.copy:
            self.copy.check()
        write_whole(self.path / name, data)
        if self.copy:
            self.copy.replace(name, data)

    def _append(self, path: Path, *lines: Mapping[str, Any]) -> None:
        with self._turn, _failing(path):
            if self.copy:
                self.copy.check()
            first, data = self._seq + 1, b""
            for line in lines:
                self._seq += 1
                stamp = {"seq": self._seq, "time": now(), "elapsed": round(self.elapsed, 3)}
                data += (_strict({**stamp, **line}) + "\n").encode(errors="backslashreplace")
            descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | FLAGS, 0o644)
            try:
                size = cut(descriptor)  # a torn line, of a write that failed, would take this one with it
                try:
                    _put(descriptor, data)
                except OSError:
                    with contextlib.suppress(OSError):
                        os.ftruncate(descriptor, size)
                    raise
            finally:
                os.close(descriptor)
            if size == 0:
                sync(path.parent)
            if self.copy:
                self.copy.add(first, data)


def create(out: Path, name: str) -> RunFolder:
    """Make `out/name`, or name-2, name-3 where it is taken, and open it for writing.

    Raises:
        BadInput: the folder cannot be made.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise BadInput(f"cannot write to {out}: {_why(error)}; choose another folder with --out") from None
    for number in range(1, 10_000):
        path = out / (name if number == 1 else f"{name}-{number}")
        try:
            path.mkdir()
        except FileExistsError:
            if (abandoned := _take_over(path)) is not None:
                return abandoned
            continue
        except (OSError, ValueError) as error:
            raise BadInput(
                f"cannot make the folder {path.name!r} in {out}: {_why(error)}; "
                "choose another name with --name, or another folder with --out"
            ) from None
        return RunFolder(path)
    raise BadInput(f"{out} holds 9,999 runs called {name}; choose another name with --name")


def _take_over(path: Path) -> RunFolder | None:
    """A folder whose run was killed before there was a run.json, emptied; None where there is anything else in it."""
    first = {"run.lock", holder.NAME, "space.yaml", "space.json", "events.jsonl"}
    try:
        if any(entry.name.removesuffix(".tmp") not in {*first, "run.json"} for entry in path.iterdir()):
            return None
        if (path / "run.json").exists() or holder.held(path):
            return None
        folder = RunFolder(path)
    except (OSError, HypertuneError):
        return None
    (path / "events.jsonl").unlink(missing_ok=True)
    return folder


def status(path: Path) -> str | None:
    """Status of a run as run.json says it; None where there is no run, `dead` where its writer is gone."""
    alive = holder.held(path)  # asked before run.json is read: a run that ends in between is not taken for dead
    try:
        said = json.loads((path / "run.json").read_text(encoding="utf-8"))["status"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return "dead" if said == "running" and not alive else str(said)


def read_holder(path: Path) -> str:
    """Who holds the lock, in words."""
    if found := holder.read_holder(path):
        return str(found)
    try:
        writer = json.loads((path / "run.json").read_text(encoding="utf-8"))["writer"]
        return f"process {writer['pid']} on {writer['host']}"
    except (OSError, ValueError, LookupError, TypeError):
        return "unknown"


def now() -> str:
    """Local time with its offset, ISO 8601, to the millisecond. For people; order goes by `seq`."""
    return datetime.now().astimezone().isoformat(timespec="milliseconds")


def write_whole(path: Path, text: str | bytes) -> None:
    """Write a file so that a reader or a crash sees the old one or the new one, never a part.

    Raises:
        NoSpace: the disk is full.
        HypertuneError: it cannot be written for another reason.
    """
    temporary = path.with_name(path.name + ".tmp")
    with _failing(path):
        try:
            temporary.unlink(missing_ok=True)  # what a crash left, or a link to elsewhere
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | FLAGS, 0o644)
            try:
                _put(descriptor, text if isinstance(text, bytes) else text.encode(errors="backslashreplace"))
            finally:
                os.close(descriptor)
            temporary.replace(path)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        sync(path.parent)


def _put(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
    os.fsync(descriptor)  # 0.3 to 0.5 ms: what was reported is on disk


def cut(descriptor: int) -> int:
    """Cut a file back to its last newline; its size then, in bytes."""
    size = end = os.fstat(descriptor).st_size
    while end:
        start = max(0, end - BLOCK)
        found = os.pread(descriptor, end - start, start).rfind(b"\n")
        end = start + found + 1 if found >= 0 else start
        if found >= 0:
            break
    if end < size:
        os.ftruncate(descriptor, end)
    return end


def sync(folder: Path) -> None:
    """Bring the names in a folder to disk: a file's own fsync does not."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _failing(path: Path) -> Iterator[None]:
    """What the operating system refuses becomes an error of ours."""
    try:
        yield
    except OSError as error:
        kind = NoSpace if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else HypertuneError
        raise kind(f"cannot write {path}: {_why(error)}; what was written before is kept") from error


def _why(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


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
