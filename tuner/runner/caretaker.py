"""Caretaker: a small process that outlives the driver by some seconds and ends what it has left running.

Ray's agents live on for over 40 s after a killed driver, workers after a killed raylet. Everything that a run starts
carries its token in the environment; when the driver's end of the pipe closes, however it ended, the caretaker kills
what carries it and removes Ray's scratch folder. Found by token, not by recorded id: ids are used again.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

TOKEN = "HYPERTUNE_RUN"
"""The environment variable that marks a run's processes."""

PATIENCE = 8.0
"""Seconds that the caretaker goes on looking: what is started while it sweeps is found in the next round."""


class Caretaker:
    """Watches over the processes with `token` and the folder `scratch` until `release`, or until this process dies."""

    def __init__(self, token: str, scratch: Path) -> None:
        environment = {name: value for name, value in os.environ.items() if name != TOKEN}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tuner.runner.caretaker", token, str(scratch)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,  # a terminal's Ctrl-C is not for it
        )

    def release(self) -> None:
        """The search has ended: sweep now, and wait for it."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=PATIENCE + 4)


def sweep(token: str) -> int:
    """Kill every process that carries the token, but not this one; how many there were."""
    found = 0
    for process in psutil.process_iter():
        try:
            if process.pid == os.getpid() or process.environ().get(TOKEN) != token:
                continue
            if process.status() == psutil.STATUS_ZOMBIE:
                continue
            process.kill()
        except (psutil.Error, OSError):
            continue
        found += 1
    return found


def main() -> None:
    """Wait for the driver's end of the pipe to close, then clean up."""
    token, scratch = sys.argv[1:]
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.buffer.read()
    end = time.monotonic() + PATIENCE
    while sweep(token) and time.monotonic() < end:
        time.sleep(0.1)
    shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    main()
