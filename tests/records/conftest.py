"""A small run that the writer wrote, and what every test of this room needs of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tuner.records.reader import Record
from tuner.records.writer import RunFolder

RUN: dict[str, Any] = {
    "name": "small",
    "status": "running",
    "objectives": [{"metric": "val_accuracy", "mode": "max"}],
    "epochs": 3,
    "trials": 4,
}


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A closed run of two trials: 001 ended after two epochs, 002 is under way."""
    with RunFolder(tmp_path) as folder:
        folder.write_space("name: small\n", [])
        folder.write_run(**RUN)
        folder.write_event("run_started", command_line="x")
        for trial in ("001", "002"):
            folder.start_trial(trial, {"seed": 0})
            folder.write_event("asked", trial=trial, number=int(trial) - 1, parameters={"a": 1})
        for epoch in (1, 2):
            for trial in ("001", "002"):
                folder.write_row(trial, {"epoch": epoch, "val_accuracy": 0.1 * epoch})
        folder.write_event("ended", trial="001", state="stopped", epoch=2, reason="rung")
    return tmp_path


@pytest.fixture
def told() -> Callable[[Record], list[tuple[Any, ...]]]:
    """The lines of a record, short."""

    def tell(record: Record) -> list[tuple[Any, ...]]:
        return [(line.seq, line.event, line.trial, line.fields.get("epoch")) for line in record.lines]

    return tell
