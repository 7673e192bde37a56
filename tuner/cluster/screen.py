"""Screen: a job's log on a console: its lines above, its table drawn in place on a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from tuner.cluster.frames import Frame, bare

NOISE = ("Running entrypoint for job ", "Tip: ")
"""What Ray itself prints into a job's log, of no use to who follows it; `logs` shows it."""


class Screen:
    """Shows what `follow` hears."""

    def __init__(self, console: Console, waiting: str) -> None:
        self._console = console
        self._live = Live(Text(waiting, style="dim"), console=console, auto_refresh=False, transient=True)

    def __enter__(self) -> Screen:
        if self._console.is_terminal:
            self._live.start(refresh=True)
        return self

    def __exit__(self, *error: Any) -> None:
        if self._live.is_started:
            self._live.stop()

    def hear(self, part: str | Frame) -> None:
        """Show a line, or the table as it is now."""
        if isinstance(part, str):
            line = bare(part)
            if not line.startswith(NOISE) and "-- Runtime env is setting up." not in line:
                self._console.print(Text(line), soft_wrap=True)
        elif self._live.is_started:
            text = Text("\n").join(clean(line) for line in part.text.split("\n"))
            text.no_wrap, text.overflow = True, "crop"
            self._live.update(text, refresh=True)


def clean(line: str) -> Text:
    """A line of a frame with its colours; without them where it holds anything that would move the cursor."""
    text = Text.from_ansi(line)
    return text if text.plain == bare(line) else Text(bare(line))
