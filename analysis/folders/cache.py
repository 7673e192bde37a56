"""Keeps what `load` made of a folder in one file beside the report, for as long as nothing in the folder changes.

The file: a line with its kind and the checksum of all that follows; a line of JSON with the stamps of all that was
read; a line of JSON with what is no table; the tables as Arrow streams. Nothing in it is a pickle. A file that is
damaged, or was written by other code than this, is passed over and replaced.
"""

from __future__ import annotations

import io
import json
import os
import tempfile
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pandas as pd
import pyarrow as pa

from analysis.folders.folder import Folder, parse

YOUNG = 0.1  # s: what changed so lately may change again without a later time, as file systems tick coarsely

INDEX = "\0index"  # the column that a table's index is kept as
Wish = Sequence[str | None]  # the metric and the mode that were asked for


class Kept(NamedTuple):
    """What can be kept of a run: plain facts, tables by name, None for one that there is not."""

    facts: Mapping[str, Any]
    tables: Mapping[str, Any]


class Stamps(msgspec.Struct):
    """What a folder was: its entries, and of all files and folders that were read size, time and inode."""

    entries: list[str]
    names: list[str]
    marks: list[tuple[int, int, int]]


def find(folder: Folder, place: Path, wish: Wish) -> Kept | None:
    """What was kept for this wish; None unless the folder is as it was then."""
    data = Folder(place).data(_name(wish))
    if data is None:
        return None
    whole = memoryview(data)  # its parts are no copies
    head = data.find(b"\n")
    if data[:head] != _head(whole[head + 1 :]):
        return None
    try:
        first = data.index(b"\n", head + 1)
        second = data.index(b"\n", first + 1)
        stamps = msgspec.json.decode(whole[head + 1 : first], type=Stamps)
        if stamps.entries != _entries(folder, _own(folder, place)):
            return None
        if any(_mark(folder.start + name) != mark for name, mark in zip(stamps.names, stamps.marks, strict=True)):
            return None
        kept = parse(data[first + 1 : second])
        return Kept(kept["facts"], _thaw(whole[second + 1 :], kept["tables"]))
    except (ValueError, LookupError, TypeError, OSError, msgspec.MsgspecError, pa.ArrowException):
        return None


def keep(kept: Kept, folder: Folder, began: float, place: Path, wish: Wish) -> None:
    """Keeps what was made of the folder since `began` (seconds since 1970) in a file of the folder `place`.

    Nothing is kept, and nothing said, where that cannot be written or where the run's folder changed meanwhile.
    """
    with suppress(OSError):
        stamps = _stamp(folder, place)
        times = [os.lstat(folder.path).st_mtime_ns, *(mark[1] for mark in stamps.marks)]
        if max(times) / 1e9 < began - YOUNG and not place.is_symlink():
            _write(kept, stamps, place, wish)


def _write(kept: Kept, stamps: Stamps, place: Path, wish: Wish) -> None:
    tables = io.BytesIO()
    objects = {name: None if table is None else _freeze(table, tables) for name, table in kept.tables.items()}
    facts = json.dumps({"facts": kept.facts, "tables": objects}).encode()
    rest = b"\n".join((msgspec.json.encode(stamps), facts, tables.getbuffer()))
    place.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=place, prefix=".", suffix=".tmp")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.writelines((_head(rest), b"\n", rest))
        Path(name).replace(place / _name(wish))
    except OSError:
        Path(name).unlink(missing_ok=True)


def _name(wish: Wish) -> str:
    return f"run-{zlib.crc32(repr(tuple(wish)).encode()):08x}.cache"


def _head(rest: bytes | memoryview) -> bytes:
    return f"hypertune {_code()} {zlib.crc32(rest):08x}".encode()


@cache
def _code() -> str:
    """The checksum of the code that reads: what other code made of a folder may not be what this would."""
    here = Path(__file__).parent
    code = b"".join(path.read_bytes() for path in (*sorted(here.glob("*.py")), here.parent / "results.py"))
    return f"{zlib.crc32(code):08x}"


def _stamp(folder: Folder, place: Path) -> Stamps:
    """Of the files as they were when they were read, and of the folders that were looked into."""
    own = _own(folder, place)
    within = {"/".join((*parts, name)) for parts, names in folder.listed.items() for name in names if name != own}
    names = sorted(within | {"/".join(parts) for parts, names in folder.listed.items() if parts and names})
    marks = {name: _mark(folder.start + name) for name in names} | folder.read
    return Stamps(_entries(folder, own), list(marks), list(marks.values()))


def _own(folder: Folder, place: Path) -> str:
    """The name in the run's folder of what the report and this cache are written to."""
    above = place.parent if place.parent.parent.resolve() == folder.path.resolve() else place
    return above.name


def _entries(folder: Folder, own: str) -> list[str]:
    """Names and kinds of all else that lies in the run's folder."""
    with os.scandir(folder.path) as found:
        return sorted(f"{e.name}{'@' * e.is_symlink()}{'/' * e.is_dir()}" for e in found if e.name != own)


def _mark(path: str) -> tuple[int, int, int]:
    """What changes when a file is written to, or a folder's entries come and go."""
    found = os.lstat(path)
    return found.st_size, found.st_mtime_ns, found.st_ino


def _freeze(table: pd.DataFrame, file: io.BytesIO) -> dict[str, Any]:
    """Writes a table as an Arrow stream; what its columns of objects hold, of whatever types, is returned as JSON."""
    objects = {}
    plain = {}
    for name, column in table.items():
        if column.dtype == object:
            values = {(type(value), value): value for value in column}
            places = {value: n for n, value in enumerate(values)}
            objects[str(name)] = list(values.values())
            plain[str(name)] = pa.array([places[type(value), value] for value in column], pa.int32())
        else:
            plain[str(name)] = pa.array(column) if column.dtype == "str" else pa.array(column.to_numpy())
    if table.index.name is not None:
        plain[INDEX] = pa.array(table.index)
    arrow = pa.table(plain)
    with pa.ipc.new_stream(file, arrow.schema) as stream:
        stream.write_table(arrow)
    return {"index": table.index.name, "objects": objects}


def _thaw(data: memoryview, tables: Mapping[str, Any]) -> dict[str, pd.DataFrame | None]:
    file = pa.BufferReader(data)
    thawed: dict[str, pd.DataFrame | None] = {}
    for name, about in tables.items():
        if about is None:
            thawed[name] = None
            continue
        arrow = pa.ipc.open_stream(file).read_all()
        frame = arrow.to_pandas(split_blocks=True)
        for column, values in about["objects"].items():
            held = pd.Series(values, dtype=object).to_numpy()
            frame[column] = pd.Series(held[frame[column]], dtype=object)
        thawed[name] = frame.set_index(INDEX).rename_axis(about["index"]) if about["index"] else frame
    return thawed
