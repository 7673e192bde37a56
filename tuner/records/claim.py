"""Claim: who writes a run's copy in a store: an object with a heartbeat, for object stores have no lock.

Two drivers that start in the same moment may both think that they have it; then the one whose word was written over
notices within ten seconds and ends. Age is told by the store's own clock: machines' clocks differ.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable

from tuner.errors import Locked
from tuner.records.holder import NAME, parse_holder, this_process
from tuner.records.store import Store

BEAT = 10.0
"""Seconds between two signs of life."""

DEAD = 60.0
"""Seconds after its last sign of life in which a writer on another machine is taken to live."""

CHECK = "holder.check"


class Claim:
    """The claim of this process on a store.

    Raises:
        Locked: another one holds it.
    """

    def __init__(self, store: Store, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._mine = json.dumps({**this_process().as_dict(), "token": uuid.uuid4().hex}).encode() + b"\n"
        said = store.get(NAME)
        if said is not None and (who := self._living(said)):
            raise Locked(f"{store.url} is being written by {who}; wait until it ends, or end it")
        store.put(NAME, self._mine)
        self._last = clock()
        self._see()

    def beat(self) -> None:
        """Give a sign of life when it is time.

        Raises:
            Locked: another process has taken over.
        """
        if self._clock() - self._last >= BEAT:
            self._see()
            self._store.put(NAME, self._mine)
            self._last = self._clock()

    def leave(self) -> None:
        """Let others have it."""
        if self._store.get(NAME) == self._mine:
            self._store.delete(NAME)

    def _see(self) -> None:
        said = self._store.get(NAME)
        if said is not None and said != self._mine:
            raise Locked(
                f"{self._store.url} was taken over by {parse_holder(said) or 'another process'}, which heard nothing "
                "from this one for a minute or started in the same moment; this one ends"
            )

    def _living(self, said: bytes) -> str:
        """Who holds it, in words; empty where that process is gone."""
        holder = parse_holder(said)
        if holder is not None and not holder.elsewhere:
            return str(holder) if holder.lives else ""
        self._store.put(CHECK, b"")
        now, then = self._store.written(CHECK), self._store.written(NAME)
        self._store.delete(CHECK)
        if now is None or then is None or now - then >= DEAD:
            return ""
        seconds = max(0.0, now - then)
        return (
            f"{holder or 'an unknown process'}, whose last sign of life is {seconds:.0f} seconds old "
            f"(it counts as dead after {DEAD:.0f}: object stores have no lock)"
        )
