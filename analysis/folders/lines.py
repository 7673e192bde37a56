"""Reads result.json into columns: clean files of a known layout by a compiled decoder, all others line by line."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain, pairwise
from operator import attrgetter
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np

from analysis.folders.columns import BY_CLASS, Gatherer, Row, number
from analysis.folders.folder import Folder, Problems, parse, readable
from analysis.folders.parameters import flatten

LAYOUTS = 16  # kinds of rows in one folder that get a decoder; making one takes as long as reading some files
_NUMBER = float | None
_TYPES: dict[type, Any] = {
    float: _NUMBER,
    int: _NUMBER,
    str: str | None,
    bool: bool | None,
    type(None): float | str | None,
}
_STRICT: dict[str, Any] = {"kw_only": True, "forbid_unknown_fields": True, "gc": False}
PICKLED_AS = "_type"  # the key by which Ray says that a mapping is a pickle
LONGEST = 2**53  # epochs; beyond it a float counts no more


class Form(NamedTuple):
    """What a format puts into a row. A metric named as one of `reserved` becomes metric/NAME.

    epoch: the key that numbers rows. written: the key that tells which of two was written first, None: their place.
    dropped: keys that are no columns. moment: one of these that is one nevertheless. noted: keys whose values a trial
    is described by. keep: which of two rows of one epoch counts.
    """

    epoch: str
    written: str | None
    dropped: frozenset[str]
    moment: str | None
    noted: tuple[str, ...]
    reserved: frozenset[str]
    keep: Literal["first", "last"]
    brief: Callable[[tuple[Any, ...], tuple[Any, ...], int], bool]  # first, last, rows: those between say nothing else

    def rename(self, name: str) -> str:
        """The column of a key."""
        return f"metric/{name}" if name in self.reserved else name


class Lines(NamedTuple):
    """What is left of a file whose rows went into columns. `noted`: what `Form.noted` names, of every line."""

    rows: int  # that went into columns
    final: float  # the last one's epoch, NaN without any
    last: Mapping[str, Any]  # its line
    newest: Mapping[str, Any]  # the last line of the file
    noted: Sequence[tuple[Any, ...]]
    infinite: Mapping[str, float]  # values of the last row that are not finite


NOTHING = Lines(0, math.nan, {}, {}, (), {})


class _Layout(NamedTuple):
    """A decoder for rows that all have the same keys with values of the same types, and ways into what it makes."""

    decode: Callable[[bytes], list[Any]]  # many lines
    epoch: Callable[[Any], Any]
    order: Callable[[Any], Any] | None
    noted: Callable[[Any], tuple[Any, ...]]
    take: Callable[[list[Any]], None]


class Reader:
    """Reads one file after another; the rows go to a gatherer, what was wrong with them to the folder's problems."""

    def __init__(self, folder: Folder, form: Form, gatherer: Gatherer) -> None:
        self._folder, self._form, self._gatherer = folder, form, gatherer
        self._layouts: dict[tuple[tuple[str, type], ...], _Layout | None] = {}
        self._newest: _Layout | None = None

    def read(self, *parts: str) -> Lines:
        """The rows of a file, one an epoch, in order of epochs, become the next trial's in the columns."""
        data = self._folder.data(*parts) or b""
        return self._read_clean(data, parts) or self.add(self._folder.objects(data, parts), parts)

    def add(self, lines: Sequence[Mapping[str, Any]], parts: Sequence[str]) -> Lines:
        """The careful way: lines as dictionaries, in any order, of any epochs, with anything in them."""
        form, place = self._form, readable("/".join(parts))
        pairs = once(((self._make_row(line), line) for line in lines), form, place, self._folder.problems)
        counted = lines if form.keep == "last" else [line for _, line in pairs]
        noted = [tuple(line.get(name) for name in form.noted) for line in counted]
        self._gatherer.add(parts[-2], [row for row, _ in pairs])
        if not pairs:
            return NOTHING._replace(newest=lines[-1] if lines else {}, noted=noted)
        row, last = pairs[-1]
        infinite = {name: value for name, value in row.items() if isinstance(value, float) and not math.isfinite(value)}
        return Lines(len(pairs), row["epoch"], last, lines[-1], noted, infinite)

    def _read_clean(self, data: bytes, parts: Sequence[str]) -> Lines | None:
        """None unless every line is a whole one of one known layout, and each epoch follows the one before."""
        count = data.count(b"\n")
        # No JSON value has these three bytes in it, so that the decoder's rows below are the lines.
        if not count or data.count(b"}\n{") != count - 1 or not data.endswith(b"}\n"):
            return None
        for known in (True, False):
            layout = self._newest if known else self._learn(data[: data.index(b"\n")])
            if layout is None:
                continue
            try:
                rows = layout.decode(data)
                if not data.isascii():
                    data.decode()  # values that are skipped are checked for all but this
            except (msgspec.MsgspecError, ValueError, RecursionError):
                continue
            first = layout.epoch(rows[0])
            if first is None or len(rows) != count or not 0 <= first < LONGEST:
                return None
            if list(map(layout.epoch, rows)) != list(range(int(first), int(first) + count)):
                return None
            if layout.order is not None:
                order = list(map(layout.order, rows))
                if None in order or any(after <= before for before, after in pairwise(order)):
                    return None
            self._newest = layout
            self._gatherer.add(parts[-2], rows, layout.take)
            last = parse(data[data.rfind(b"\n", 0, -1) + 1 :])
            return Lines(count, first + count - 1, last, last, self._note(layout, rows), {})
        return None

    def _note(self, layout: _Layout, rows: Sequence[Any]) -> Sequence[tuple[Any, ...]]:
        """What `Form.noted` names, of the first and the last row where those between say nothing else."""
        first, last = layout.noted(rows[0]), layout.noted(rows[-1])
        if self._form.brief(first, last, len(rows)):
            return first, last
        return list(map(layout.noted, rows))

    def _learn(self, text: bytes) -> _Layout | None:
        """The layout of a line, where a decoder can be made for it."""
        try:
            line = parse(text)
        except (ValueError, RecursionError):
            return None
        if not isinstance(line, dict):
            return None
        shape = tuple((name, type(value)) for name, value in line.items())
        if shape not in self._layouts:
            if len(self._layouts) >= LAYOUTS:
                return None
            self._layouts[shape] = _make_layout(line, self._form, self._gatherer)
        return self._layouts[shape]

    def _make_row(self, line: Mapping[str, Any]) -> Row:
        """Flat, under the names that columns have; the epoch as it is."""
        form = self._form
        kept = {name: value for name, value in line.items() if name not in form.dropped and name != form.epoch}
        row = {form.rename(name): value for name, value in flatten(kept, "/").items()}
        row["epoch"] = line.get(form.epoch)
        if form.moment:
            row[form.moment] = line.get(form.moment)
        return row


def _make_layout(line: Mapping[str, Any], form: Form, gatherer: Gatherer) -> _Layout | None:
    """None where a value needs more care: nested metrics, lists, an epoch or an order that is no number."""
    fields: list[tuple[str, Any]] = []
    columns: dict[str, str] = {}  # column -> field
    numbers: list[str] = []
    own = {form.epoch: "epoch"} | ({form.moment: form.moment} if form.moment else {})
    names = [name for name in line if name not in own] + [name for name in own if name in line]
    for n, name in enumerate(names):
        value, field = line[name], f"f{n}"
        kind = _TYPES.get(type(value)) if name != BY_CLASS else list[float | None] | None
        if name in form.dropped and name not in own and name not in form.noted:
            kind = msgspec.Raw
        elif kind is None or (name in (form.epoch, form.written) and kind != _NUMBER):
            return None
        elif name in own or name not in form.dropped:
            column = own.get(name) or form.rename(name)
            if column in columns or name == PICKLED_AS:
                return None
            columns[column] = field
            numbers += [column] if kind == _NUMBER else []
        fields.append((field, kind))
    if form.epoch not in line or (form.written and form.written not in line) or len(numbers) < 2:
        return None
    keys = {name: f"f{n}" for n, name in enumerate(names)}
    try:
        line_type = msgspec.defstruct("Line", fields, rename=dict(zip(keys.values(), keys, strict=True)), **_STRICT)
    except ValueError:  # a key with quotes or control characters
        return None
    others = {column: attrgetter(field) for column, field in columns.items() if column not in numbers}
    block_of = attrgetter(*(columns[name] for name in numbers))

    def take(rows: list[Any]) -> None:
        try:
            values = chain.from_iterable(map(block_of, rows))
            block = np.fromiter(values, dtype=np.float64, count=len(rows) * len(numbers)).reshape(len(rows), -1)
        except TypeError:  # a null somewhere: the general way takes three times as long
            block = np.array(list(map(block_of, rows)), dtype=np.float64)
        gatherer.add_block(list(columns), block, {name: list(map(get, rows)) for name, get in others.items()})

    return _Layout(
        decode=msgspec.json.Decoder(line_type).decode_lines,
        epoch=attrgetter(keys[form.epoch]),
        order=attrgetter(keys[form.written]) if form.written else None,
        noted=_getter([keys.get(name) for name in form.noted]),
        take=take,
    )


def _getter(fields: Sequence[str | None]) -> Callable[[Any], tuple[Any, ...]]:
    """Several fields at once; None where there is no such field."""
    if None not in fields and len(fields) > 1:
        return attrgetter(*fields)  # type: ignore[arg-type]
    return lambda row: tuple(None if field is None else getattr(row, field) for field in fields)


def once(pairs: Iterable[tuple[Row, Any]], form: Form, place: str, problems: Problems) -> list[tuple[Row, Any]]:
    """One row an epoch, in order of epochs: of several the first or the last written, by order or place in the file."""
    kept: dict[int, tuple[Row, Any]] = {}
    repeated = without = 0
    unnumbered = math.inf if form.keep == "first" else -1
    for row, line in sorted(pairs, key=lambda pair: number(pair[0].get(form.written or ""), missing=unnumbered)):
        epoch = number(row.get("epoch"))
        if not 0 <= epoch < LONGEST or epoch != int(epoch):
            without += 1
            continue
        repeated += int(epoch) in kept
        if form.keep == "last" or int(epoch) not in kept:
            row["epoch"] = int(epoch)
            kept[int(epoch)] = row, line
    problems.count("lines without an epoch, skipped", place, without)
    problems.count(f"epochs written twice, the {form.keep} one kept", place, repeated)
    return [kept[epoch] for epoch in sorted(kept)]
