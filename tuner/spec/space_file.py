"""Reads YAML 1.2 into a small tree in which every key and value knows its line and column.

Only plain data: no tags, no objects, capped in size, depth and number of values, so that no file can harm its reader.
Aliases and merge keys are text written twice (grammar R7): the tree holds them expanded.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.reader import ReaderError

from tuner.errors import BadInput, Problem
from tuner.spec.distributions import Plain

MAX_BYTES = 1_000_000
MAX_DEPTH = 40
MAX_NODES = 20_000  # after expanding aliases; the largest space written by hand has about 500

# YAML 1.2's core schema: the only words that are not text.
_WORDS: dict[str, Plain] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


@dataclass(frozen=True)
class Place:
    """Where something stands; line and column count from 1, 0 is a source without lines, such as `--set 2`."""

    source: str
    line: int
    column: int

    def problem(self, message: str) -> Problem:
        """The problem with what stands here."""
        return Problem(self.source, self.line, self.column, message)

    def error(self, message: str) -> BadInput:
        """The same as an error to raise."""
        return BadInput([self.problem(message)])


@dataclass(frozen=True)
class Scalar:
    """A plain value."""

    value: Plain
    place: Place


@dataclass(frozen=True)
class Listing:
    """A list."""

    items: tuple[Node, ...]
    place: Place


@dataclass(frozen=True)
class Table:
    """A mapping in the order of the text. Keys are their own text; `keys` says where each stands."""

    entries: Mapping[str, Node]
    keys: Mapping[str, Place]
    place: Place


Node: TypeAlias = Scalar | Listing | Table


def plain(node: Node) -> Any:
    """The tree as plain dicts, lists and values."""
    if isinstance(node, Table):
        return {key: plain(value) for key, value in node.entries.items()}
    if isinstance(node, Listing):
        return [plain(item) for item in node.items]
    return node.value


def read_text(path: Path) -> str:
    """The text of a file.

    Raises:
        BadInput: it cannot be read, is too large, or is not UTF-8.
    """
    try:
        data = path.read_bytes() if path.stat().st_size <= MAX_BYTES else None
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror}") from error
    if data is None:
        raise BadInput(f"{path}: larger than 1 MB; a space file holds settings, no data")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise BadInput([Problem(str(path), line, 1, "not UTF-8 text; save it as UTF-8")]) from error


def read(text: str, source: str, *, lines: bool = True) -> tuple[Node, list[Problem]]:
    """The tree of a YAML text and what is wrong in it without making it unreadable: keys given twice, infinities.

    With `lines=False` places name the source alone.

    Raises:
        BadInput: the text is no YAML, holds tags or several documents, or is over a cap.
    """
    if len(text.encode(errors="surrogatepass")) > MAX_BYTES:
        raise BadInput([Problem(source, 1, 1, "larger than 1 MB; a space file holds settings, no data")])
    reader = _Reader(source, lines)
    try:
        return reader.document(iter(YAML(typ="safe", pure=True).parse(text))), reader.problems
    except YAMLError as error:
        raise BadInput([_syntax_problem(error, text, source, lines)]) from None


@dataclass(frozen=True)
class _Anchored:
    node: Node
    nodes: int
    height: int


@dataclass
class _Reader:
    """Builds the tree from the parser's events, so that caps hold before anything is expanded."""

    source: str
    lines: bool
    problems: list[Problem] = field(default_factory=list)
    nodes: int = 0
    anchors: dict[str, _Anchored] = field(default_factory=dict)
    open_anchors: set[str] = field(default_factory=set)

    def document(self, events: Iterator[Any]) -> Node:
        root: Node | None = None
        for event in events:
            kind = type(event).__name__
            if kind == "DocumentStartEvent":
                if root is not None:
                    self.refuse(event, "a second document; a space file is one")
                root, _ = self.node(next(events), events, 1)
        if root is None:
            raise Place(self.source, int(self.lines), int(self.lines)).error("the file is empty")
        return root

    def node(self, event: Any, events: Iterator[Any], depth: int) -> tuple[Node, int]:
        """The node that begins with the event, and its height."""
        kind = type(event).__name__
        if kind == "AliasEvent":
            return self.alias(event, depth)
        self.count(event, 1)
        if depth > MAX_DEPTH:
            self.refuse(event, f"nested deeper than {MAX_DEPTH} levels")
        if getattr(event, "tag", None) is not None:
            self.refuse(event, f"tags such as {event.tag} are not read; write the value alone")
        before = self.nodes
        if event.anchor is not None:
            self.open_anchors.add(event.anchor)
        node: Node
        if kind == "ScalarEvent":
            node, height = self.scalar(event), 1
        elif kind == "SequenceStartEvent":
            node, height = self.listing(event, events, depth)
        else:
            node, height = self.table(event, events, depth)
        if event.anchor is not None:
            self.open_anchors.discard(event.anchor)
            self.anchors[event.anchor] = _Anchored(node, self.nodes - before + 1, height)
        return node, height

    def alias(self, event: Any, depth: int) -> tuple[Node, int]:
        if event.anchor in self.open_anchors:
            self.refuse(event, f"*{event.anchor} stands inside itself")
        if event.anchor not in self.anchors:
            self.refuse(event, f"*{event.anchor}: nothing before it is marked &{event.anchor}")
        known = self.anchors[event.anchor]
        self.count(event, known.nodes)
        if depth + known.height > MAX_DEPTH:
            self.refuse(event, f"nested deeper than {MAX_DEPTH} levels")
        return known.node, known.height

    def scalar(self, event: Any) -> Scalar:
        place = self.place(event)
        text: str = event.value
        if event.style not in (None, ""):
            return Scalar(self.paired(event), place)
        if text in _WORDS:
            return Scalar(_WORDS[text], place)
        if _INT.fullmatch(text):
            if len(text) > 300:
                self.refuse(event, "a number of more than 300 digits")
            return Scalar(int(text, 0 if text[:2] in ("0o", "0x") else 10), place)
        if _FLOAT.fullmatch(text) or _NOT_FINITE.fullmatch(text):
            number = math.inf if "n" in text.lower() else float(text)
            if not math.isfinite(number):
                self.problems.append(place.problem(f"{text}: not a finite number"))
                return Scalar(0.0, place)
            return Scalar(number, place)
        return Scalar(text, place)

    def listing(self, event: Any, events: Iterator[Any], depth: int) -> tuple[Listing, int]:
        items: list[Node] = []
        height = 0
        while type(inner := next(events)).__name__ != "SequenceEndEvent":
            item, high = self.node(inner, events, depth + 1)
            items.append(item)
            height = max(height, high)
        return Listing(tuple(items), self.place(event)), height + 1

    def table(self, event: Any, events: Iterator[Any], depth: int) -> tuple[Table, int]:
        entries: dict[str, Node] = {}
        keys: dict[str, Place] = {}
        merged: set[str] = set()
        height = 0
        while type(inner := next(events)).__name__ != "MappingEndEvent":
            key = self.key(inner)
            place = self.place(inner)
            value, high = self.node(next(events), events, depth + 1)
            height = max(height, high)
            if key == "<<" and inner.style in (None, ""):
                for name, node, where in self.merge(value):
                    if name not in entries:
                        entries[name], keys[name] = node, where
                        merged.add(name)
            elif key in entries and key not in merged:
                first = f"the first is in line {keys[key].line}" if self.lines else "keep one"
                self.problems.append(place.problem(f"{key}: given twice in one mapping; {first}"))
            else:
                merged.discard(key)
                entries[key], keys[key] = value, place
        return Table(entries, keys, self.place(event)), height + 1

    def key(self, event: Any) -> str:
        if type(event).__name__ != "ScalarEvent":
            self.refuse(event, "a key must be a word")
        if event.tag is not None:
            self.refuse(event, f"tags such as {event.tag} are not read; write the key alone")
        self.count(event, 1)
        if event.anchor is not None:
            self.anchors[event.anchor] = _Anchored(self.scalar(event), 1, 1)
        if event.value == "":
            self.refuse(event, "a key without a name")
        return self.paired(event)

    def paired(self, event: Any) -> str:
        """The text with halves of a character, as JSON escapes those beyond 16 bits, put together."""
        try:
            return str(event.value).encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            self.refuse(event, "half of a character; write it as it is, without an escape")
            raise

    def merge(self, value: Node) -> Iterator[tuple[str, Node, Place]]:
        tables = value.items if isinstance(value, Listing) else (value,)
        for table in tables:
            if not isinstance(table, Table):
                raise value.place.error("<<: merges mappings; write <<: *anchor of a mapping")
            for name, node in table.entries.items():
                yield name, node, table.keys[name]

    def count(self, event: Any, nodes: int) -> None:
        self.nodes += nodes
        if self.nodes > MAX_NODES:
            self.refuse(event, f"more than {MAX_NODES:,} values, aliases written out")

    def place(self, event: Any) -> Place:
        if not self.lines:
            return Place(self.source, 0, 0)
        return Place(self.source, event.start_mark.line + 1, event.start_mark.column + 1)

    def refuse(self, event: Any, message: str) -> None:
        raise self.place(event).error(message)


def _syntax_problem(error: YAMLError, text: str, source: str, lines: bool) -> Problem:
    line, column, what = 1, 1, str(error)
    if isinstance(error, MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        if mark is not None:
            line, column = mark.line + 1, mark.column + 1
        what = " ".join(str(part) for part in (error.problem or error.context,) if part)
        if "\\t" in what:
            what = "a tab; YAML indents with spaces only"
    elif isinstance(error, ReaderError):
        before = text[: error.position]
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        what = "a control character"
    return Problem(source, line if lines else 0, column if lines else 0, f"not valid YAML: {what}")
