"""Looks: how often the test images of a run were opened, and why; the fewer, the more their number is worth."""

from __future__ import annotations

import json
from pathlib import Path

from tuner.records.writer import now

NAME = "test_looks.jsonl"


def note_look(run: Path, what: str, why: str) -> int:
    """Write down that the test images are about to be opened; returns the number of looks with this one.

    what: the model; why: the command. Written before they are opened: a look that ends in an error was one.
    """
    path = _home(run) / "final" / NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    torn = path.is_file() and not path.read_bytes().endswith(b"\n")  # by a crash: that look counts too
    with path.open("a", encoding="utf-8") as file:
        file.write("\n" * torn + json.dumps({"time": now(), "model": what, "command": why}) + "\n")
    return count_looks(run)


def count_looks(run: Path) -> int:
    """How often the test images of this run were opened; 0 for never."""
    path = _home(run) / "final" / NAME
    return sum(bool(line.strip()) for line in path.read_bytes().split(b"\n")) if path.is_file() else 0


def _home(run: Path) -> Path:
    """The run whose images they are: that of the search, where finalists of it were named."""
    above = run.absolute().parent.parent
    return above if run.absolute().parent.name == "final" and (above / "run.json").is_file() else run
