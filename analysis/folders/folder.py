"""Reads files that others wrote, perhaps torn, damaged or hostile: follows no link, unpickles and writes nothing."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

# No links, and no waiting on a pipe that somebody put in a file's place.
FLAGS = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
BLOCK = 1 << 24
SHOWN = 5  # places named in one sentence; the rest is counted


class Unreadable(ValueError):
    """The folder holds nothing that can be read as a run; the text says what was found and what was expected."""


class Problems:
    """What could not be read, gathered by kind, so that 10,000 torn files make one sentence."""

    def __init__(self) -> None:
        self._found: dict[str, dict[str, int]] = {}

    def say(self, sentence: str) -> None:
        """Notes one sentence as it is, once."""
        self._found.setdefault(sentence, {})

    def count(self, what: str, place: str, times: int = 1) -> None:
        """Notes that `what` (a plural) was met so many times at a place."""
        if times:
            places = self._found.setdefault(what, {})
            places[place] = places.get(place, 0) + times

    def sentences(self) -> tuple[str, ...]:
        """One a kind, such as `damaged lines skipped: 3 (2 in trials/001/result.json, 1 in events.jsonl)`."""
        return tuple(_sentence(what, places) for what, places in self._found.items())


def _sentence(what: str, places: dict[str, int]) -> str:
    if not places:
        return what
    total = sum(places.values())
    once = all(times == 1 for times in places.values())
    named = [place if once else f"{times} in {place}" for place, times in list(places.items())[:SHOWN]]
    more = [f"and {len(places) - SHOWN} more places"] if len(places) > SHOWN else []
    return f"{what}: {total} ({', '.join(named + more)})"


class Folder:
    """One folder and what was wrong in it. Parts of names come from listing it, never from what its files say.

    read: size, time and inode of each file that was read, by its place in the folder; `start` goes before a place.
    listed: the names of the folders in each folder that was looked into.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problems = Problems()
        self.read: dict[str, tuple[int, int, int]] = {}
        self.start = os.path.join(path, "")  # noqa: PTH118 (10,000 paths: pathlib takes longer than opening them)
        self.listed: dict[tuple[str, ...], list[str]] = {}
        self._names: list[str] | None = None

    @property
    def name(self) -> str:
        """Its own name, for `.` too."""
        return readable(self.path.resolve().name)

    def has(self, *parts: str) -> bool:
        """Whether there is such a file, a plain one and no link."""
        return self._is(stat.S_ISREG, parts)

    def folders(self, *parts: str) -> list[str]:
        """Names of the folders in it, sorted, as they were when first asked for; links are left out and counted."""
        if parts not in self.listed:
            self.listed[parts] = self._list(parts)
        return self.listed[parts]

    def files(self, start: str, end: str) -> list[str]:
        """Names of the files directly in it that start and end so, sorted, as they were when first asked for."""
        if self._names is None:
            try:
                self._names = sorted(os.listdir(self.path))  # noqa: PTH208 (names alone)
            except OSError:
                self._names = []
        return [name for name in self._names if name.startswith(start) and name.endswith(end) and self.has(name)]

    def text(self, *parts: str) -> str | None:
        """A file's text, None where there is none; bytes that are no UTF-8 become question marks."""
        data = self.data(*parts)
        return None if data is None else data.decode(errors="replace")

    def json(self, *parts: str) -> Any:
        """A JSON file's value; None where there is none, or where it is damaged, which is noted."""
        data = self.data(*parts)
        if data is None:
            return None
        try:
            return parse(data)
        except (ValueError, RecursionError):
            self.problems.count("damaged files", _place(parts))
            return None

    def lines(self, *parts: str) -> list[dict[str, Any]]:
        """The objects of a JSON Lines file, NaN and Infinity allowed; damaged lines are skipped and counted."""
        return self.objects(self.data(*parts) or b"", parts)

    def objects(self, data: bytes, parts: Sequence[str]) -> list[dict[str, Any]]:
        """The same of what was read from a file; `parts` say which."""
        rows = []
        damaged = 0
        for line in data.split(b"\n"):
            if not line or line.isspace():
                continue
            try:
                row = parse(line)
            except (ValueError, RecursionError):
                row = None
            if isinstance(row, dict):
                rows.append(row)
            else:
                damaged += 1
        self.problems.count("damaged lines skipped", _place(parts), damaged)
        return rows

    def is_locked(self, *parts: str) -> bool:
        """Whether a process holds this lock file. Windows cannot tell without writing: there it counts as held."""
        try:
            import fcntl
        except ImportError:
            return self.has(*parts)
        try:
            descriptor = os.open(self.path.joinpath(*parts), os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
        except OSError:
            return False
        try:
            # Shared, so that a file opened for reading is enough and two readers never see each other.
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(descriptor)
        return False

    def _is(self, kind: Any, parts: tuple[str, ...]) -> bool:
        try:
            return bool(kind(os.lstat(self.start + "/".join(parts)).st_mode))
        except (OSError, ValueError):
            return False

    def _list(self, parts: tuple[str, ...]) -> list[str]:
        if parts and not self._is(stat.S_ISDIR, parts):
            return []
        try:
            with os.scandir(self.start + "/".join(parts)) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            self.problems.count(f"folders that cannot be listed ({error.strerror})", _place(parts) or ".")
            return []
        for entry in entries:
            if entry.is_symlink():
                self.problems.count("links not followed", _place((*parts, entry.name)))
        return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]

    def data(self, *parts: str) -> bytes | None:
        """A file's bytes, None where there is none; what is no plain file is noted and not read."""
        name = "/".join(parts)
        try:
            descriptor = os.open(self.start + name, FLAGS)
            try:
                found = os.fstat(descriptor)
                if stat.S_ISREG(found.st_mode):
                    self.read[name] = found.st_size, found.st_mtime_ns, found.st_ino
                    data = os.read(descriptor, found.st_size + 1)
                    while len(data) != found.st_size and (more := os.read(descriptor, BLOCK)):
                        data += more  # somebody writes to it, or one read gave less than asked for
                    return data
            finally:
                os.close(descriptor)
        except (FileNotFoundError, ValueError):
            return None
        except OSError:
            pass
        self.problems.count("files that are links or cannot be opened", _place(parts))
        return None


def readable(text: str) -> str:
    """Text that can be written: halves of surrogate pairs, from odd file names or JSON escapes, are spelled out."""
    return text.encode(errors="backslashreplace").decode()


def _place(parts: Sequence[str]) -> str:
    return readable("/".join(parts))


def parse(data: bytes | str) -> Any:
    """The value of a JSON text in UTF-8, NaN and Infinity allowed, its texts made writable.

    Strict JSON is decoded at a quarter of the time of the standard library, to the same values.

    Raises:
        ValueError, RecursionError: it is no JSON, or nested too deep.
    """
    try:
        return msgspec.json.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        text = data if isinstance(data, str) else data.decode()
    value = json.loads(text)
    return _clean(value) if "\\ud" in text or "\\uD" in text else value


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return readable(value)
    if isinstance(value, list):
        return [_clean(item) for item in value]
    if isinstance(value, dict):
        return {readable(key): _clean(item) for key, item in value.items()}
    return value
