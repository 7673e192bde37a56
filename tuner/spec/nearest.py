"""Says which valid name a wrong one comes nearest to."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

SHOWN = 20  # of the names there are; a command lists the rest


def nearest(word: str, words: Iterable[str]) -> str | None:
    """The word most like it, if any is close."""
    found = difflib.get_close_matches(word, list(words), n=1, cutoff=0.6)
    return found[0] if found else None


def did_you_mean(word: str, words: Iterable[str]) -> str:
    """`; did you mean depth?`, or else `; there are depth, width`."""
    words = list(words)
    near = nearest(word, words)
    if near is not None:
        return f"; did you mean {near}?"
    more = f" and {len(words) - SHOWN} more" if len(words) > SHOWN else ""
    return f"; there are {', '.join(words[:SHOWN])}{more}" if words else ""
