"""Wish: what is asked of a run that exists: more trials, more time, another space, images that lie elsewhere."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tuner.errors import BadInput
from tuner.spec.search import parse_duration


@dataclass(frozen=True)
class Wish:
    """Texts as typed: `trials` like `+20` or `40`, `time` like `+1h` or `3h`; `sets` are NAME=YAML."""

    trials: str | None = None
    time: str | None = None
    space: Path | None = None
    data: Path | None = None
    sets: Sequence[str] = ()

    def extensions(self, trials: int, spent: float) -> list[str]:
        """`trials` and `time` as NAME=YAML, for a run that was to have so many trials and has taken so many seconds.

        Raises:
            BadInput: they are no such texts, or take something back.
        """
        wanted = []
        if self.trials is not None:
            wanted.append(f"search.trials={_more_trials(self.trials, trials)}")
        if self.time is not None:
            wanted.append(f"search.time={_more_time(self.time, spent):.0f}s")
        return wanted


def _more_trials(wish: str, before: int) -> int:
    match = re.fullmatch(r"(\+?)(\d{1,9})", wish.strip())
    if not match or not int(match[2]):
        raise BadInput(f"--trials: write +20 for twenty more, or 40 for forty in all; got {wish}")
    wanted = int(match[2]) + (before if match[1] else 0)
    if wanted < before:
        raise BadInput(f"--trials: the run has {before} already, got {wish}; write +20 for twenty more")
    return wanted


def _more_time(wish: str, spent: float) -> float:
    text = wish.strip()
    try:
        seconds = parse_duration(text.removeprefix("+"))
    except ValueError as error:
        raise BadInput(f"--time: {error}, with a + in front for so much more from now on") from None
    if not text.startswith("+") and seconds <= spent:
        raise BadInput(f"--time: the run has taken {spent:.0f} s already, got {wish}; write +{text} for so much more")
    return spent + seconds if text.startswith("+") else seconds
