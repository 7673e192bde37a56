"""Holder: the process that writes a run folder, told in a file beside the lock: to ask never takes the lock.

A reader that took it for a moment would make a resume that starts in that moment fail. The lock decides who writes.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

NAME = "holder.json"

SLACK = 2.0
"""Seconds by which two looks at the start of one process may differ: the time of boot is known to a second."""


@dataclass(frozen=True)
class Holder:
    """A process: `started` is in seconds after its machine's boot, so that a process id used again is told apart."""

    pid: int
    host: str
    started: float

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"

    def as_dict(self) -> dict[str, Any]:
        """As in holder.json and in run.json's `writer`."""
        return asdict(self)

    @property
    def elsewhere(self) -> bool:
        """Whether it is on another machine, where nobody here can see it."""
        return self.host != os.uname().nodename

    @property
    def lives(self) -> bool:
        """Whether it is still there; true for one on another machine, which cannot be checked."""
        if self.elsewhere:
            return True
        started = _started(self.pid)
        return started is not None and abs(started - self.started) < SLACK


def this_process() -> Holder:
    """The process that asks."""
    return Holder(os.getpid(), os.uname().nodename, round(_started(os.getpid()) or 0.0, 2))


def read_holder(path: Path) -> Holder | None:
    """Who has the run folder open for writing, or had when it was killed; None where nobody is named."""
    try:
        return parse_holder((path / NAME).read_bytes())
    except OSError:
        return None


def parse_holder(text: bytes) -> Holder | None:
    """The process that a holder.json names; None where it is damaged."""
    try:
        said = json.loads(text)
        holder = Holder(said["pid"], said["host"], said["started"])
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    sound = type(holder.pid) is int and isinstance(holder.host, str) and isinstance(holder.started, int | float)
    return holder if sound and 0 < holder.pid < 2**31 else None


def held(path: Path) -> bool:
    """Whether a process has the run folder open for writing, as far as can be told without asking for its lock."""
    holder = read_holder(path)
    return holder is not None and holder.lives


def _started(pid: int) -> float | None:
    """Seconds from boot to the start of a process, None where it is gone or only waits to be cleaned away."""
    import psutil

    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return float(process.create_time() - psutil.boot_time())
    except psutil.Error:
        return None
