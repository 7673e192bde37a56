"""Heartbeat: whether the head of a cluster and this node's own part of it live; a driver by itself does not notice."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import Any

MISSES = 4
"""Looks in a row at which the head does not answer, after which it is lost: 8 to 28 s, with 5 s for each."""


class Heartbeat:
    """Whether the head of the cluster answers, and whether this node's own raylet lives."""

    def __init__(self, ray: Any) -> None:
        import psutil

        host, _, port = ray.get_runtime_context().gcs_address.rpartition(":")
        self._head = (host.strip("[]"), int(port))
        socket_name = ray._private.worker._global_node.raylet_socket_name
        found = (p for p in psutil.process_iter(["cmdline"]) if _is_raylet(p.info["cmdline"], socket_name))
        self._raylet = next(found, None)
        self._missed = 0

    def missing(self) -> str:
        """What does not answer any more; empty while all is well."""
        from tuner.runner.local import ended

        if self._raylet is not None and ended(self._raylet):
            return "Ray on this node is gone: its raylet was killed, or ran out of memory"
        self._missed = 0 if answers(*self._head, 5.0) else self._missed + 1
        if self._missed < MISSES:
            return ""
        return f"the head of the cluster ({self._head[0]}) does not answer any more"


def leave(code: int) -> None:
    """End at once: what Ray does when a process ends waits for a head that is no more, and aborts after a minute."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def answers(host: str, port: int, seconds: float) -> bool:
    """Whether somebody listens there."""
    try:
        socket.create_connection((host, port), timeout=seconds).close()
    except OSError:
        return False
    return True


def _is_raylet(command: list[str] | None, socket_name: str) -> bool:
    words = command or [""]  # None: of a process that may not be looked at
    return Path(words[0]).name == "raylet" and any(word.endswith(socket_name) for word in words)
