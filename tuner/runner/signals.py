"""Signals: the first one lets the search end well, the second ends it at once; and where output goes meanwhile."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import TextIO

CAUGHT = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Signals:
    """SIGINT, SIGTERM and SIGHUP within a `with` block; `caught` has the numbers so far.

    `at_once` is called by the second one, in the handler, before the process ends with 128 + its number.
    """

    def __init__(self) -> None:
        self.caught: list[int] = []
        self.at_once: Callable[[str], None] = lambda reason: None
        self._before: dict[int, object] = {}

    def __enter__(self) -> Signals:
        self._before = {number: signal.getsignal(number) for number in CAUGHT}
        self.install()
        return self

    def install(self) -> None:
        """Take the signals; again after `ray.init`, which takes SIGTERM."""
        for number in CAUGHT:
            if self._before.get(number) is not signal.SIG_IGN:  # `nohup` asked for it
                signal.signal(number, self._note)

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what getsignal gave

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.caught.append(number)
        if len(self.caught) > 1:
            try:
                self.at_once(signal.Signals(number).name)
            finally:
                os._exit(128 + number)


@contextlib.contextmanager
def output_to(log: Path) -> Iterator[tuple[TextIO, TextIO]]:
    """Send whatever this process and its children print to `log`; gives the real stdout and stderr."""
    sys.stdout.flush()
    sys.stderr.flush()
    with (
        os.fdopen(os.dup(1), "w", encoding="utf-8") as out,
        os.fdopen(os.dup(2), "w", encoding="utf-8") as err,
        log.open("ab") as file,
    ):
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        try:
            yield out, err
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
