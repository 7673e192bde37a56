"""Target: where results go, made ready before the work: a folder that is new, empty or ours, or a file's own place."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tuner.errors import BadInput

SIGN = ".hypertune"
"""File in a folder that was new or empty: whose it is, even where the work was broken off."""


def make_ready(folder: Path, mark: str) -> None:
    """Make a folder that may be filled, as it is new or empty, or was filled so before; mark: the file that shows it.

    Raises:
        BadInput: it holds anything else, is a run, or cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        there = sorted(path.name for path in folder.iterdir())
        if "run.json" in there:
            raise BadInput(f"{folder} is a run itself; choose another folder with --out")
        if there and mark not in there and not (SIGN in there and (folder / SIGN).read_bytes() == mark.encode()):
            first = min(set(there) - {SIGN}, default=SIGN)
            rule = f"holds {first!r} and no {mark} of an earlier time, so its files may be somebody's"
            raise BadInput(f"{folder} {rule}; choose another folder with --out, a new or an empty one")
        with tempfile.TemporaryFile(dir=folder):
            pass
        if not there:
            (folder / SIGN).write_text(mark)
    except OSError as error:
        raise BadInput(f"{folder} cannot be written: {error.strerror}; choose another folder with --out") from None


def check_file(path: Path) -> None:
    """Make the folder of a file that will be written.

    Raises:
        BadInput: the file cannot be written there.
    """
    try:
        if path.is_dir():
            raise BadInput(f"{path} is a folder; name a file with --out")
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent, prefix=path.name):
            pass
    except OSError as error:
        raise BadInput(f"{path} cannot be written: {error.strerror}; name another file with --out") from None
