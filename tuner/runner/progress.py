"""Progress: a search as it goes: one calm table redrawn in place on a terminal, a line an ended trial elsewhere."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from itertools import islice
from textwrap import shorten
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from tuner.runner.conductor import Conductor
from tuner.runner.plan import Plan
from tuner.runner.trial import Trial
from tuner.spec.text import by_path, columns, metric_word, show_metric, show_time, show_value

BAR = 10
"""Characters of an epoch bar."""

LATELY = 3
"""Trials that are named when they have ended."""

REDRAW = 0.25
"""Seconds from one picture to the next at least."""

DRAWING = 20
"""And so many times what a picture took: a table of 60 rows takes 30 ms, and in the meantime no result is heard."""

AROUND = 6
"""Lines of a terminal that are kept for what stands around the running trials."""

STOPPING = "stopping after the running epochs; once more to stop at once"


class Progress:
    """Follows a search on a console: a table redrawn in place on a terminal, a line an ended trial elsewhere.

    again: the command that goes on with it.
    """

    def __init__(self, plan: Plan, console: Console, again: str) -> None:
        self._plan = plan
        self._again = again
        self._console = console
        self._live: Live | None = None
        self._ended: deque[Trial] = deque(maxlen=LATELY)
        self._seen = 0
        self._start = time.monotonic()
        self._first: float | None = None
        self._before: int | None = None
        self._due = 0.0
        self._gone = False
        self._noted = 0
        self._stopping = False
        self._columns = columns(plan.space.parameters)

    def __enter__(self) -> Progress:
        if self._console.is_terminal:
            self._live = Live(
                Text("starting Ray ..."),
                console=self._console,
                auto_refresh=False,
                transient=True,
                redirect_stdout=False,  # what Ray prints belongs in its log
                redirect_stderr=False,
            ).__enter__()
            self._live.refresh()
        return self

    def __exit__(self, *error: Any) -> None:
        if self._live:
            self._live.__exit__(None, None, None)

    def note(self, text: str) -> None:
        """Say something above the table."""
        with contextlib.suppress(OSError):
            self._console.print(text, soft_wrap=True)

    def leave(self, text: str) -> None:
        """Give the terminal back and say the last word; may be called in a signal handler."""
        with contextlib.suppress(OSError):
            self.__exit__()
            self._console.print(f"{text}; go on with it: {self._again}", soft_wrap=True)

    def watch(self, conductor: Conductor) -> None:
        """Show the state of the search; draws four times a second at most. A closed pipe ends the showing, no more."""
        if not self._gone:
            try:
                self._show(conductor)
            except OSError:
                self._gone = True

    def _show(self, conductor: Conductor) -> None:
        roster = conductor.roster  # called after every event: no walk over all trials
        if len(conductor.notes) > self._noted:
            for text, first in islice(conductor.notes.items(), self._noted, None):
                self._console.print(Text(f"trial {first}: {text}", style="dim"), soft_wrap=True)
            self._noted = len(conductor.notes)
        new = [trial for trial in roster.ended[self._seen :] if trial.jobs]  # since the run was opened
        self._seen = len(roster.ended)
        self._ended.extend(new)
        if self._before is None:
            self._before = roster.epochs
        if self._first is None and roster.epochs > self._before:
            self._first, self._before = time.monotonic(), roster.epochs
        if self._live is None:
            for trial in new:
                self._console.print(ended_line(trial, conductor.metric), soft_wrap=True)
            if conductor.stopping and not self._stopping:
                self._stopping = True
                self._console.print(STOPPING, soft_wrap=True)
        elif (began := time.monotonic()) > self._due:
            self._live.update(self._table(conductor), refresh=True)
            self._due = time.monotonic() + max(REDRAW, DRAWING * (time.monotonic() - began))

    def _table(self, conductor: Conductor) -> Group:
        metric = conductor.metric
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
        with_f1 = metric != "val_macro_f1"
        shown = self._fitting(44 + 8 * with_f1)
        heads = ("  trial", *shown, "epoch", metric_word(metric), *(["F1"] if with_f1 else []), "s/epoch")
        for head in heads:
            table.add_column(head, no_wrap=True)
        running, room = conductor.running, max(1, self._console.height - AROUND)
        for trial in running[:room]:
            values = by_path(trial.parameters, self._plan.space.parameters)
            cells = [show_value(values[path]) if path in values else "·" for path in shown.values()]
            last = trial.last
            done = BAR * trial.epochs // trial.full
            table.add_row(
                f"  {trial.id}",
                *cells,
                f"{'█' * done}{'░' * (BAR - done)} {trial.epochs}",
                show_metric(metric, last.get(metric)),
                *([show_metric("val_macro_f1", last.get("val_macro_f1"))] if with_f1 else []),
                f"{last['epoch_seconds']:.2g}" if last else "",
            )
        parts: list[Any] = [self._headline(conductor), table]
        if len(running) > room:
            parts.append(Text(f"  and {len(running) - room:,} more", style="dim"))
        if self._ended:
            lately = " · ".join(short_ending(trial, metric) for trial in reversed(self._ended))
            parts.append(Text(f"  just ended: {lately}", style="dim", no_wrap=True, overflow="ellipsis"))
        if conductor.stopping:
            parts.append(Text(f"  {STOPPING}", style="yellow"))
        return Group(*parts)

    def _fitting(self, taken: int) -> dict[str, str]:
        """As many settings as the width has room for beside `taken` characters, in file order."""
        room, shown = self._console.width - taken, {}
        for head, path in self._columns.items():
            values = [p.distribution.values() for p in self._plan.space.parameters if p.path == path]
            width = max(len(head), *(len(show_value(v)) for some in values for v in some), 6) + 2
            if width <= room:
                shown[head] = path
                room -= width
        return shown

    def _headline(self, conductor: Conductor) -> Text:
        spent = time.monotonic() - self._start
        epochs, expected = conductor.roster.epochs, self._plan.expected_epochs
        share = min(0.99, epochs / max(1, expected))
        left = ""
        if self._first is not None and (since := epochs - (self._before or 0)) >= 2:
            rate = since / (time.monotonic() - self._first)
            guess = max(expected - epochs, 0.01 * expected) / rate
            budget = self._plan.space.fixed.search.seconds
            left = f", about {show_time(min(guess, max(0.0, budget - spent)) if budget else guess)} left"
        ended = len(conductor.roster.ended)
        best = conductor.best()
        text = Text(no_wrap=True, overflow="ellipsis").append_text(
            Text.assemble(
                (self._plan.space.fixed.name, "bold"),
                f"   {ended} of {conductor.wanted} done · {len(conductor.roster.running)} running · {share:.0%} · ",
                f"{show_time(spent)}{left}",
            )
        )
        if best:
            text.append(f"   best {show_metric(conductor.metric, best.best[conductor.metric])}", "bold green")
            text.append(f"  trial {best.id}")
        return text


def ended_line(trial: Trial, metric: str) -> str:
    """A finished trial for logs: `007 stopped epoch 3  val_accuracy 0.382  model.depth 1  ...`."""
    value = trial.top.get(metric)
    shown = "none" if value is None else f"{value:.4g}"
    settings = "  ".join(f"{name} {show_value(value)}" for name, value in trial.parameters.items())
    reason = f"  ({shorten(trial.reason, 100)})" if trial.state in ("failed", "diverged", "out_of_memory") else ""
    label = f" {trial.label}" if trial.label else f" (repeat of {trial.repeat_of})" if trial.repeat_of else ""
    return f"{trial.id}{label} {trial.state} epoch {trial.epochs}  {metric} {shown}  {settings}{reason}"


def short_ending(trial: Trial, metric: str) -> str:
    """A finished trial in a few words."""
    value = show_metric(metric, trial.top.get(metric))
    if trial.state == "stopped":
        return f"{trial.id} stopped at epoch {trial.epochs} ({value})"
    return f"{trial.id} {trial.state} {value}"
