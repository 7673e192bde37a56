"""The live table in a job's log: written, taken out again, drawn; a log that breaks anywhere gives the same."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncGenerator
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console
from rich.text import Text

from tuner.cluster import follow as following
from tuner.cluster.client import Cluster
from tuner.cluster.follow import follow
from tuner.cluster.frames import MARK, Frame, Splitter, bare, lines_of
from tuner.cluster.screen import Screen
from tuner.errors import ClusterLost
from tuner.runner import relay
from tuner.runner.relay import Relay

LOG = f'one\n{MARK}{{"frame": "a\\nb"}}\n\ntwo\x1ehyper{MARK}{{"frame": ""}}\n{MARK}{{"fra\nthree'


def test_a_log_is_split_the_same_wherever_it_breaks() -> None:
    whole = ["one", Frame("a\nb"), "", "two\x1ehyper", Frame(""), "three"]
    for place in range(len(LOG)):
        splitter = Splitter()
        assert [*splitter.feed(LOG[:place]), *splitter.feed(LOG[place:]), *splitter.close()] == whole


def test_logs_are_lines_without_frames_and_colours() -> None:
    assert lines_of(f"\x1b[36mred\x1b[0m \x1b[2J\n1%\r2%\r\n{LOG}") == ["red ", "2%", "one", "", "twohyper", "three"]


class Table(Relay):
    """A relay of a table that is just a text."""

    text = "x"

    def _table(self, conductor: Any) -> Any:
        return Text(self.text, style="bold")

    def _show(self, conductor: Any) -> None:
        pass


def make_relay(monkeypatch: pytest.MonkeyPatch, width: str = "80") -> tuple[Table, io.StringIO, list[float]]:
    monkeypatch.setenv("HYPERTUNE_RELAY", width)
    out, now = io.StringIO(), [0.0]
    plan = SimpleNamespace(space=SimpleNamespace(parameters=[]))
    return Table(plan, Console(file=out, width=200), "again", lambda: now[0]), out, now  # type: ignore[arg-type]


def test_what_the_relay_writes_is_what_the_client_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    screen, out, _ = make_relay(monkeypatch)
    with screen:
        screen.watch(None)  # type: ignore[arg-type]
    first, last = Splitter().feed(out.getvalue())
    assert isinstance(first, Frame)
    assert Text.from_ansi(first.text).plain == "x"
    assert "\x1b[1m" in first.text
    assert last == Frame("")
    assert relay.MARK == MARK


def test_frames_come_every_two_seconds_then_every_five_and_only_when_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    screen, out, now = make_relay(monkeypatch)
    for tenth in range(1200):
        now[0] = tenth / 10
        screen.text = str(tenth)
        screen.watch(None)  # type: ignore[arg-type]
    assert len(out.getvalue().split("\n")[:-1]) == 30 + 12
    for tenth in range(1200, 1400):
        now[0] = tenth / 10
        screen.watch(None)  # type: ignore[arg-type]
    assert len(out.getvalue().split("\n")[:-1]) <= 30 + 12 + 1


@pytest.mark.parametrize(("width", "columns"), [("100", 100), ("9", 60), ("9999", 300), ("wide", 120)])
def test_the_table_is_as_wide_as_the_terminal_that_follows(
    width: str, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen, out, _ = make_relay(monkeypatch, width)
    screen.text = "x" * 1000
    screen.watch(None)  # type: ignore[arg-type]
    frame = json.loads(out.getvalue().removeprefix(MARK))["frame"]
    assert max(len(bare(line)) for line in frame.split("\n")) == columns


def test_a_terminal_gets_lines_and_the_table_another_only_lines() -> None:
    for terminal in (True, False):
        out = io.StringIO()
        with Screen(Console(file=out, force_terminal=terminal, width=80), "waiting") as screen:
            screen.hear("a line")
            screen.hear(Frame("\x1b[1mtable\x1b[0m\n\x1b[2Jx"))
        assert "a line" in out.getvalue()
        assert ("table" in out.getvalue()) is ("waiting" in out.getvalue()) is terminal


def test_a_frame_cannot_move_the_cursor_or_name_the_window() -> None:
    out = io.StringIO()
    with Screen(Console(file=out, force_terminal=True, width=80), "") as screen:
        screen.hear(Frame("evil\x1b]0;title\x07\x9b2J\x08"))
    assert not {"\x07", "\x9b", "\x08", "\x1b]0"} & set(out.getvalue())
    assert "\x1b]0" not in out.getvalue()


class Broken(Cluster):
    """A job server whose connection breaks after so many characters, again and again."""

    def __init__(self, log: str, breaks: list[int | None]) -> None:
        self.address, self.log, self.breaks = "http://x", log, breaks

    async def tail(self, job_id: str) -> AsyncGenerator[str, None]:
        end = self.breaks.pop(0) if self.breaks else 0
        for place in range(0, len(self.log[:end]), 7):
            yield self.log[place : min(place + 7, end or len(self.log))]
        if end is not None:
            raise ClusterLost("broken")

    def job(self, job_id: str) -> Any:
        return SimpleNamespace(over=True)


def test_a_connection_that_breaks_is_made_again_and_no_line_is_heard_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "PATIENCE", (0.0, 0.0))
    log = "".join(f"line {n}\n" for n in range(30)) + "end"
    heard: list[Any] = []
    follow(Broken(log, [10, 3, 100, 11, None]), "job", heard.append)
    assert heard == log.split("\n")


def test_a_connection_that_stays_broken_ends_the_following(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "PATIENCE", (0.0, 0.0))
    with pytest.raises(ClusterLost):
        follow(Broken("abc", []), "job", print)
