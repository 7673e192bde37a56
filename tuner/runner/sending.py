"""Sending: a trial's checkpoints on their way between a worker's own disk and the run's store."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tuner.errors import HypertuneError
from tuner.records.bring import fetch_folder
from tuner.records.store import Store, join, open_store
from tuner.training import checkpoint

FILES = (checkpoint.WEIGHTS, checkpoint.STATE)
"""Of a checkpoint, in the order in which they are written: it is whole with the second."""

WAITS = (0.5, 2.0)
"""Seconds between tries: the trial waits meanwhile."""


class Sending:
    """The checkpoints of one trial in the store of a run. What fails is noted, and the trial goes on without it.

    The best weights go up while the next epoch trains; a checkpoint to go on from goes up after them and at once, so
    that who goes on from it finds the best weights of no earlier epoch.
    """

    def __init__(self, url: str, trial: str) -> None:
        self.notes: list[str] = []
        """What a person should know, each sentence once."""
        self._url = join(url, "trials", trial)
        self._opened: Store | None = None
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="sending")
        self._last: Future[None] | None = None

    @property
    def _store(self) -> Store:
        if self._opened is None:
            self._opened = open_store(self._url, WAITS)
        return self._opened

    def fetch(self, folder: Path, name: str) -> None:
        """Let the folder have the checkpoint as it is in the store, where that has it and it is another one."""

        def fetch() -> None:
            there = self._store.get(f"{name}/{checkpoint.STATE}")
            here = folder / name / checkpoint.STATE
            if there is not None and not (here.is_file() and here.read_bytes() == there):
                fetch_folder(self._store, name, FILES, folder / name)

        self._do(fetch)

    def metrics(self, name: str) -> tuple[str | None, dict[str, Any]] | None:
        """Whose checkpoint the store has under this name, and the row in it; None where there is none."""
        found: list[tuple[str | None, dict[str, Any]]] = []

        def look() -> None:
            try:
                state = json.loads(self._store.get(f"{name}/{checkpoint.STATE}") or b"null")["state"]
                found.append((state.get("trial"), dict(state["metrics"])))
            except (ValueError, LookupError, TypeError, AttributeError):
                return

        self._do(look)
        return found[0] if found else None

    def put_meanwhile(self, folder: Path, name: str) -> None:
        """Put a checkpoint while others go on; it is this one that is put, should it be replaced meanwhile."""
        with ExitStack() as opened:  # what is open stays as it is when the folder is replaced
            files = [opened.enter_context((folder / name / file).open("rb")) for file in FILES]
            kept = opened.pop_all()

        def put() -> None:
            with kept:
                for file, data in zip(FILES, files, strict=True):
                    self._store.upload(f"{name}/{file}", data)

        self._last = self._pool.submit(self._do, put)

    def put(self, folder: Path, name: str) -> None:
        """Put a checkpoint to go on from, after all that was put before; delete there those that are not here."""
        self.wait()
        self._do(lambda: self._put(folder, name))

    def _put(self, folder: Path, name: str) -> None:
        for file in FILES:
            with (folder / name / file).open("rb") as data:
                self._store.upload(f"{name}/{file}", data)
        there = {each.partition("/")[0] for each in self._store.names()}
        for each in checkpoint.order(there - set(checkpoint.newest(folder))):
            self._store.delete_under(each)

    def wait(self) -> None:
        """Until what was put is there."""
        if self._last is not None:
            self._last.result()
            self._last = None

    def close(self) -> None:
        """Wait, and end the thread."""
        self.wait()
        self._pool.shutdown()

    def _do(self, act: Callable[[], None]) -> None:
        try:
            act()
        except (HypertuneError, OSError) as error:
            text = f"its checkpoints stay on the worker's disk: {error}"
            if text not in self.notes:
                self.notes.append(text)
