"""Frames: the live table in a job's log, told apart from what the job printed.

`tuner.runner.relay` writes a frame as one line: MARK and {"frame": text with ANSI colours}.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from unicodedata import category

from rich.text import Text

MARK = "\x1ehypertune "


@dataclass(frozen=True)
class Frame:
    """The table at one moment, empty where it is over."""

    text: str


class Splitter:
    """Takes a log in pieces that break anywhere, gives its lines and frames."""

    def __init__(self) -> None:
        self._rest = ""

    def feed(self, piece: str) -> list[str | Frame]:
        """The lines and frames that this piece completes."""
        *lines, self._rest = (self._rest + piece).split("\n")
        return [part for line in lines for part in parts(line)]

    def close(self) -> list[str | Frame]:
        """What is left of a log that ends in the middle of a line."""
        rest, self._rest = self._rest, ""
        return parts(rest) if rest else []


def parts(line: str) -> list[str | Frame]:
    """A line as it was printed, or a frame; both where a frame was printed behind an unfinished line."""
    before, mark, told = line.partition(MARK)
    if not mark:
        return [line]
    found: list[str | Frame] = [before] if before else []
    try:
        frame = json.loads(told)["frame"]
    except (ValueError, LookupError, TypeError):
        return found  # half a frame is nothing to read
    return [*found, Frame(frame)] if isinstance(frame, str) else found


def lines_of(log: str) -> list[str]:
    """The lines of a whole log, without its frames."""
    splitter = Splitter()
    found = [*splitter.feed(log), *splitter.close()]
    return [bare(part) for part in found if isinstance(part, str)]


def bare(line: str) -> str:
    """A line without colours and whatever else moves a cursor; of what was overwritten in place only the last."""
    text = Text.from_ansi(line.rstrip("\r").rpartition("\r")[2]).plain
    return "".join(c for c in text.expandtabs(1) if category(c) != "Cc")
