"""Tokens: the secret that a cluster asks for, found where Ray looks for it, in a file that nobody else may read."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

from tuner.errors import BadInput

OTHERS = stat.S_IRWXG | stat.S_IRWXO


def find_token(note: Callable[[str], None]) -> str | None:
    """The token of RAY_AUTH_TOKEN, of the file RAY_AUTH_TOKEN_PATH, or of ~/.ray/auth_token; None where there is none.

    A file that others may read is closed to them, which `note` is told.

    Raises:
        BadInput: a file that was named is not there, cannot be closed to others, or holds no token.
    """
    if os.environ.get("RAY_AUTH_MODE") == "disabled":
        return None
    if token := os.environ.get("RAY_AUTH_TOKEN"):
        return _checked(token, "RAY_AUTH_TOKEN")
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    path = Path(named) if named else Path.home() / ".ray" / "auth_token"
    if not named and not path.exists():
        return None
    try:
        close_to_others(path, note)
        return _checked(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise BadInput(f"{path}: the token cannot be read: {why}") from None


def close_to_others(path: Path, note: Callable[[str], None]) -> None:
    """Take a file's permissions from group and others; Ray writes its token with 0644.

    Raises:
        BadInput: others may read it, and it is not ours to change.
    """
    found = path.stat()
    if not found.st_mode & OTHERS:
        return
    try:
        if found.st_uid != os.geteuid():
            raise PermissionError
        path.chmod(0o600)
    except OSError:
        raise BadInput(
            f"{path} holds the token of the cluster and others may read it (mode {stat.S_IMODE(found.st_mode):04o}), "
            f"but it cannot be changed from here; its owner can: chmod 600 {path}"
        ) from None
    note(f"{path} could be read by others; it is 0600 now")


def _checked(token: str, source: str) -> str:
    token = token.strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise BadInput(f"{source} holds no token: that is one word of printable ASCII")
    return token
