"""Relay: a search's table printed as lines in a job's log, for the terminal that follows it to draw in place.

One line a frame: MARK and {"frame": text with ANSI colours}, empty at the end; `tuner.cluster.frames` reads them.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import time
from collections.abc import Callable
from typing import Any

from rich.console import Console

from tuner.runner.conductor import Conductor
from tuner.runner.plan import Plan
from tuner.runner.progress import Progress

MARK = "\x1ehypertune "

WIDTH = "HYPERTUNE_RELAY"
"""Environment variable with the columns of the terminal that follows; a search that has it relays its table."""

NARROW, WIDE = 60, 300


class Relay(Progress):
    """Progress for a log that somebody follows: a line an ended trial, and a frame of the table every few seconds."""

    def __init__(self, plan: Plan, console: Console, again: str, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(plan, console, again)
        self._clock = clock
        self._began = clock()
        self._told = ""
        self._next = self._began
        width = os.environ.get(WIDTH, "")
        console.width = min(max(int(width), NARROW), WIDE) if width.isdecimal() else 120

    def watch(self, conductor: Conductor) -> None:
        """Show the state of the search: its lines, and a frame where one is due and differs from the last."""
        super().watch(conductor)
        if self._clock() >= self._next and not self._gone:
            self._next = self._clock() + (2.0 if self._clock() - self._began < 60 else 5.0)
            self._tell(self._draw(conductor))

    def __exit__(self, *error: Any) -> None:
        if self._told:
            self._tell("")
        super().__exit__(*error)

    def _draw(self, conductor: Conductor) -> str:
        canvas = Console(
            file=io.StringIO(), width=self._console.width, force_terminal=True, color_system="256", highlight=False
        )
        canvas.print(self._table(conductor))
        text: str = canvas.file.getvalue()  # type: ignore[attr-defined]
        return "\n".join(line.rstrip() for line in text.splitlines())

    def _tell(self, frame: str) -> None:
        if frame != self._told:
            self._told = frame
            with contextlib.suppress(OSError):
                self._console.file.write(f"{MARK}{json.dumps({'frame': frame})}\n")
                self._console.file.flush()
