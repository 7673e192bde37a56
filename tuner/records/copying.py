"""Copying: a run folder's copy in a store, opened to be kept up."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

from tuner.errors import BadInput
from tuner.records.bring import local_log, read_tail, standing
from tuner.records.claim import Claim
from tuner.records.reader import trial_names
from tuner.records.segments import Segments
from tuner.records.store import Store


def open_copy(path: Path, store: Store) -> tuple[Segments, int]:
    """Claim a run's copy, and hand what it lacks of the folder to the writer that is returned, which has not begun.

    Also: above which `seq` lines are to go on.

    Raises:
        Locked: another process writes it.
        BadInput: the copy has lines that the folder has not.
        StoreError: the store refused, or cannot be reached.
    """
    claim = Claim(store)
    try:
        tail, here = read_tail(store), local_log(path)
        if not tail.is_of(here):
            raise BadInput(
                f"{store.url} has lines that {path} has not: it went on elsewhere; "
                "run again with --resume-if-exists, which brings them here first"
            )
        there = store.names("trials")
    except BaseException:
        claim.leave()
        raise
    copy = Segments(store, claim, first=tail.first, lines=tail.data if tail.sound else b"")
    written = max(tail.lines, default=tail.first - 1)
    for seq in sorted(seq for seq in here if seq > written):
        copy.add(seq, here[seq])
    for name in _files(path):
        if name not in there:
            copy.replace(name, (path / name).read_bytes())
    return copy, tail.highest


def free_name(out: Path, parent: Store, name: str) -> str:
    """This name, or name-2, name-3 and so on: the first that has neither a folder here nor a run in the store."""
    for number in itertools.count(1):
        free = name if number == 1 else f"{name}-{number}"
        if not (out / free).exists() and standing(parent.child(free), out / free) == "none":
            return free
    raise AssertionError("count has no end")


def _files(path: Path) -> Iterator[str]:
    trials = (f"trials/{trial}/{name}" for trial in trial_names(path) for name in ("params.json", "error.txt"))
    for name in ("run.json", "space.yaml", "space.json", *trials):
        if (path / name).is_file() and not (path / name).is_symlink():
            yield name
