"""What can go wrong, as a tree; each error carries the exit code that a shell sees.

HypertuneError (1)
 ├─ BadInput (2)             the user's text, data or request; `problems` holds all of them at once
 ├─ Locked (3)               another process writes this run folder
 ├─ ClusterLost (4)          Ray's head or this node's Ray is gone
 ├─ NoSpace (5)              the disk is full
 ├─ Infeasible (1)           a configuration that cannot be built; the search proposes another one
 └─ SearchFailed (1)         the search ended without a trial that can be trusted
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MOST_SHOWN = 20  # problems in the text of an error: more are no list but a file of another kind


@dataclass(frozen=True, order=True)
class Problem:
    """One thing wrong with the input: where, what rule, what to do.

    `line` and `column` count from 1; 0 means that the problem has no place in a text.
    """

    source: str
    line: int
    column: int
    message: str

    def __str__(self) -> str:
        place = f"{self.source}:{self.line}:{self.column}" if self.line else self.source
        return f"{place}: {self.message}" if place else self.message


class HypertuneError(Exception):
    """An error that a user can act on; its text is the whole message, no stack trace is shown."""

    exit_code = 1


class BadInput(HypertuneError):
    """Input that breaks a rule. `problems` are all that were found, in the order of the text; it shows 20."""

    exit_code = 2

    def __init__(self, problems: Sequence[Problem] | str, hint: str = "") -> None:
        found = [Problem("", 0, 0, problems)] if isinstance(problems, str) else list(problems)
        self.problems = tuple(found)
        more = len(found) - MOST_SHOWN
        lines = [*map(str, found[:MOST_SHOWN]), *([f"and {more} more"] if more > 0 else []), *([hint] if hint else [])]
        super().__init__("\n".join(lines))


class Locked(HypertuneError):
    """Another process holds the run folder."""

    exit_code = 3


class ClusterLost(HypertuneError):
    """Ray went away under the search."""

    exit_code = 4


class NoSpace(HypertuneError):
    """The disk that holds the results is full."""

    exit_code = 5


class SearchFailed(HypertuneError):
    """No trial gave a result."""


class Infeasible(HypertuneError):
    """A configuration that cannot be built, such as a depth that pools the image away; the text says why."""
