"""Folders that are built once for all processes: under a lock, aside, and moved into place when they are complete."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from tuner.errors import BadInput, NoSpace

META = "meta.json"


def cache_root(given: Path | None) -> Path:
    """Where prepared data lie: what was given, else $HYPERTUNE_CACHE, else ~/.cache/hypertune. May be deleted."""
    return (given or Path(os.environ.get("HYPERTUNE_CACHE") or "~/.cache/hypertune")).expanduser().absolute()


def read_meta(folder: Path) -> dict[str, Any] | None:
    """What `build` said of a folder; None where the folder is absent, incomplete or has files of another length."""
    try:
        meta: dict[str, Any] = json.loads((folder / META).read_bytes())
        complete = all((folder / name).stat().st_size == size for name, size in meta["files"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return meta if complete else None


def build_once(folder: Path, build: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    """Return the meta data of `folder`; where it is not complete, `build(aside)` writes its files and returns them.

    Other processes that ask for the same folder wait and find it done. Nothing half-built is ever under its name.

    Raises:
        BadInput: the place cannot be written.
        NoSpace: the disk is full.
    """
    if (meta := read_meta(folder)) is not None:
        return meta
    aside = folder.with_name(f"{folder.name}.partial")
    with _explained(folder.parent):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f"{folder.name}.lock")):
            if (meta := read_meta(folder)) is not None:
                return meta
            for remains in (aside, folder):  # of a process that died, or damaged
                shutil.rmtree(remains, ignore_errors=True)
            aside.mkdir()
            try:
                meta = build(aside)
                meta["files"] = {path.name: path.stat().st_size for path in sorted(aside.iterdir())}
                (aside / META).write_text(json.dumps(meta, indent=1), encoding="utf-8")
                for path in (*aside.iterdir(), aside):
                    flush(path)
                aside.rename(folder)
                flush(folder.parent)
            finally:
                shutil.rmtree(aside, ignore_errors=True)
    return meta


def flush(path: Path) -> None:
    """Make sure that a file or a folder's list of files is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _explained(place: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpace(f"{place}: the disk is full; free some space or point HYPERTUNE_CACHE elsewhere") from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR):
            hint = "point HYPERTUNE_CACHE to a folder that can be written"
            raise BadInput(f"{place}: decoded images cannot be kept there ({error.strerror}); {hint}") from error
        raise
