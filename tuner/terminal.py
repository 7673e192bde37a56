"""What all commands take and how they print: options of the same name, paths, tables, JSON."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from unicodedata import category

import typer

from tuner.errors import BadInput

if TYPE_CHECKING:
    from rich.console import Console

OUT = Path("results")
"""Where runs lie unless another folder is named."""

Sets = Annotated[list[str] | None, typer.Option("--set", metavar="NAME=YAML", help="change one field of the file")]
Json = Annotated[bool, typer.Option("--json", help="print one JSON object, for programs")]


def show(path: Path) -> str:
    """A path as short as it can be typed, quoted where a shell needs it."""
    here = Path.cwd()
    return shlex.quote(str(path.relative_to(here)) if path.is_relative_to(here) else str(path))


def plain(text: str) -> str:
    """Text of others for a terminal: as \\xNN what would move its cursor or rename its window, or is no UTF-8."""
    found = text.encode("utf-8", "backslashreplace").decode()
    return "".join(f"\\x{ord(c):02x}" if category(c) == "Cc" and c != "\n" else c for c in found)


def print_table(heads: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int] = ()) -> None:
    """A plain table as wide as the terminal; never cut where a program reads it."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for place, head in enumerate(heads):
        table.add_column(head, justify="right" if place in numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(plain, row))
    console = open_console()
    console.width = console.width if console.is_terminal else 200
    console.print(table)


def open_console(*, stderr: bool = False) -> Console:
    """A console that draws on a terminal alone: notebooks set FORCE_COLOR, and would get every state of a bar."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, highlight=False, markup=False, force_terminal=None if stream.isatty() else False)


def print_json(value: Any) -> None:
    """One JSON object on stdout."""
    typer.echo(json.dumps(value, ensure_ascii=False, indent=1))


PATIENCE = 2.0
"""Seconds before a bar is shown."""


@contextmanager
def progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar on stderr for what takes longer than two seconds; tell it (what is done, how much of it, of how much)."""
    from rich.progress import Progress

    began = time.monotonic()
    console = open_console(stderr=True)
    bar = Progress(console=console, transient=True, disable=not console.is_terminal)
    task = bar.add_task("")

    def tell(what: str, done: int, of: int) -> None:
        if what != bar.tasks[0].description:  # its own time left
            bar.reset(task, description=what)
        bar.update(task, completed=done, total=of)
        if time.monotonic() - began > PATIENCE:
            bar.start()

    try:
        yield tell
    finally:
        if bar.live.is_started:  # else it would leave an empty line
            bar.stop()


def newest() -> Path:
    """The newest run in results/."""
    import analysis as library

    try:
        return library.newest(OUT)
    except library.Unreadable as error:
        raise BadInput(str(error)) from None
