"""The rows of all trials as columns: the same ones whichever way a file was decoded."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import NoneType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.folders.folder import Problems
from analysis.folders.parameters import is_number

Row = dict[str, Any]
Floats = NDArray[np.float64]

TEXTS = ("decision", "reason", "diverged")  # of a row of ours: words, where most rows have none
BY_CLASS = "val_class_accuracy"  # of a row of ours: a list, in the order of run.json's data.classes
CHUNK = 4096  # rows that are held as Python objects at a time


def number(value: Any, missing: float = math.nan) -> float:
    """A number as a float; `missing` for everything else and for NaN."""
    if type(value) is float:
        return value if value == value else missing
    return float(value) if is_number(value) and value == value else missing


@dataclass(frozen=True)
class Columns:
    """All rows, those of one trial together, in order of trials and epochs.

    numbers: name -> value of each row, NaN where unknown. texts: name -> text or None. lists: of `BY_CLASS`, [] where a
    row has none. metrics: the names of numbers that some row reports as one. sound: whether no loss and no objective
    that the row reports is without a finite value. counts: rows of each trial.
    """

    numbers: dict[str, Floats]
    texts: dict[str, NDArray[np.object_]]
    lists: Sequence[Sequence[Any]] | None
    metrics: tuple[str, ...]
    sound: NDArray[np.bool_]
    counts: NDArray[np.int64]

    @property
    def names(self) -> Sequence[str]:
        """Of all columns, numbers first."""
        return *self.numbers, *self.texts

    @property
    def ends(self) -> NDArray[np.int64]:
        """Where each trial's rows end."""
        return np.cumsum(self.counts)


@dataclass
class _Part:
    """One column of some rows that follow one another."""

    floats: Floats
    numeric: bool  # some value is a number
    boolean: bool = False  # some value is true or false
    texts: Sequence[str | None] | None = None  # where all values are texts or missing, and one is a text
    odd: int = 0  # values that are neither numbers nor missing
    other: bool = False  # some value is neither text nor missing


@dataclass
class Gatherer:
    """Takes the rows of one trial after another; `judged`: the losses and objectives that must be finite."""

    judged: Sequence[str] = ()
    _names: dict[str, None] = field(default_factory=dict)
    _parts: list[tuple[int, dict[str, _Part]]] = field(default_factory=list)
    _sound: list[NDArray[np.bool_]] = field(default_factory=list)
    _lists: list[Sequence[Any]] = field(default_factory=list)
    _counts: dict[str, int] = field(default_factory=dict)
    _held: list[Any] = field(default_factory=list)
    _flush: Callable[[list[Any]], None] | None = None

    def add(self, trial: str, rows: Sequence[Any], take: Callable[[list[Any]], None] | None = None) -> None:
        """The rows of the next trial: dictionaries, or what `take` knows how to hand to `add_block`."""
        take = take or self._take_rows
        if take != self._flush or len(self._held) >= CHUNK:
            self.flush()
            self._flush = take
        self._held.extend(rows)
        self._counts[trial] = len(rows)

    def flush(self) -> None:
        """Turns what is held into columns."""
        if self._held and self._flush is not None:
            self._flush(self._held)
        self._held = []

    def add_block(self, names: Sequence[str], block: Floats, others: dict[str, list[Any]]) -> None:
        """Rows that all report the same names: `block` holds the numbers, NaN for null, `others` the rest."""
        told = [bool(some) for some in np.atleast_1d(np.isfinite(block).any(axis=0))]
        numbers = [name for name in names if name not in others]
        parts = {name: _Part(block[:, n], some) for n, (name, some) in enumerate(zip(numbers, told, strict=True))}
        parts |= {name: _make_part(values) for name, values in others.items()}
        sound = np.ones(len(block), dtype=bool)
        for name in self.judged:
            if name in others:
                sound &= [math.isfinite(number(value)) for value in others[name]]
            elif name in parts:
                sound &= np.isfinite(parts[name].floats)
        self._append(len(block), {name: parts[name] for name in names}, sound, others.get(BY_CLASS))

    def _take_rows(self, rows: list[Row]) -> None:
        names = dict.fromkeys(name for row in rows for name in row)
        parts = {name: _make_part([row.get(name) for row in rows]) for name in names}
        sound = [all(math.isfinite(number(row[name])) for name in self.judged if name in row) for row in rows]
        lists = [row.get(BY_CLASS) for row in rows] if BY_CLASS in names else None
        self._append(len(rows), parts, np.array(sound, dtype=bool), lists)

    def _append(self, count: int, parts: dict[str, _Part], sound: NDArray[np.bool_], lists: Any) -> None:
        self._names |= dict.fromkeys(parts)
        self._parts.append((count, parts))
        self._sound.append(sound)
        told = [row if isinstance(row, list) else [] for row in lists or ()]
        self._lists.append(told if any(told) else [()] * count)

    def finish(self, order: Sequence[str], problems: Problems) -> Columns:
        """All columns, the trials in this order, some perhaps without rows; values that fit no column are said."""
        self.flush()
        counts = np.array([self._counts.get(trial, 0) for trial in order], dtype=np.int64)
        moved = None
        if [trial for trial in order if self._counts.get(trial)] != [t for t, count in self._counts.items() if count]:
            ends = dict(zip(self._counts, np.cumsum(list(self._counts.values())), strict=True))
            spans = [np.arange(ends[t] - self._counts[t], ends[t]) for t in order if t in ends]
            moved = np.concatenate([np.arange(0), *spans])
        numbers: dict[str, Floats] = {}
        texts: dict[str, NDArray[np.object_]] = {}
        metrics = []
        for name in self._names:
            own = [(count, parts.pop(name, None)) for count, parts in self._parts]
            column = _join(name, own, problems)
            if column is None:
                continue
            column = column if moved is None else column[moved]
            if column.dtype == object:
                texts[name] = column
            else:
                numbers[name] = column
                metrics += [name] if any(part is not None and part.numeric for _, part in own) else []
        lists = [row for part in self._lists for row in part] if any(map(any, self._lists)) else None
        sound = np.concatenate(self._sound or [np.ones(0, dtype=bool)])
        if moved is not None:
            sound, lists = sound[moved], None if lists is None else [lists[n] for n in moved]
        return Columns(numbers, texts, lists, tuple(metrics), sound, counts)


def _make_part(values: list[Any]) -> _Part:
    types = set(map(type, values))
    if types <= {float, int, NoneType}:
        try:
            return _Part(np.array(values, dtype=np.float64), types != {NoneType})
        except OverflowError:  # a whole number beyond 1e308: the slow way below takes it as missing
            pass
    floats = np.array([float(v) if isinstance(v, bool) else number(v) for v in values], dtype=np.float64)
    return _Part(
        floats,
        numeric=any(map(is_number, values)),
        boolean=bool in types,
        texts=values if str in types and types <= {str, NoneType} else None,
        odd=sum(value is not None and not isinstance(value, int | float) for value in values),
        other=not types <= {str, NoneType},
    )


def _join(name: str, parts: Sequence[tuple[int, _Part | None]], problems: Problems) -> Any:
    """Numbers as float64; a column without any number is text, or None if it holds neither."""
    own = [part for _, part in parts if part is not None]
    if not any(part.numeric or part.boolean for part in own):
        if any(part.other for part in own):
            return None
        if name in TEXTS or any(part.texts is not None for part in own):
            values: list[str | None] = []
            for count, part in parts:
                values += [None] * count if part is None or part.texts is None else part.texts
            return np.array(values, dtype=object)
    problems.count("values that are no numbers, taken as missing", name, sum(part.odd for part in own))
    return np.concatenate([np.full(count, np.nan) if part is None else part.floats for count, part in parts])
