"""Widening: how much further a setting may go where its best values lie at the end of what was searched.

A logarithmic range goes on by a factor of ten, an even one by half of itself, whole numbers on a logarithmic range
(sizes, which cost what they measure) double, a choice among numbers gets the next of its row: 16 32 64, then 128.
One step at a time: the next run tells whether to go on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

Legal = Callable[[str, Any], bool]
"""Whether a setting, by name, may be searched so: {"uniform": [0, 0.6]}."""

HALVINGS = 6  # of a step that leads beyond what is legal, before it counts as none


def widen_range(low: float, high: float, end: str, log: bool, whole: bool, legal: Callable[[float], bool]) -> float:
    """The new end of a range, at most its step further; the old one where nothing beyond it is legal.

    A step too far is halved until it is not: momentum above 0.98 becomes 0.99, not 1.07. What was never negative does
    not become so, whatever is legal.
    """
    upper, old = end == "high", high if end == "high" else low
    for halved in range(HALVINGS + 1):
        part = 0.5**halved
        if log:
            factor = (2 if whole else 10) ** part
            new = old * factor if upper else old / factor
        else:
            new = old + (1 if upper else -1) * (high - low) / 2 * part
        if whole:
            new = max(math.floor(new), old + 1) if upper else min(math.ceil(new), old - 1)
        else:
            new = tidy(new, abs(new - old) / 10)
        if (new >= 0 or low < 0) and (new > 0 or not log) and legal(new):
            return new
    return old


def next_in_row(values: Sequence[float], end: str) -> float | None:
    """What comes before or after these numbers: 16 32 64, then 128; 2 3 4, then 5. None where no row is to be seen.

    The last step is repeated as a factor where it at least doubles (a size) and as a sum else; whole numbers stay
    whole, and what was above zero stays so.
    """
    row = sorted(values, reverse=end == "low")
    if len(row) < 2 or row[-1] <= 0:
        return None
    last, before = row[-1], row[-2]
    ratio = max(last, before) / min(last, before) if before > 0 else math.inf
    small = all(isinstance(v, int) for v in row) and max(row) < 8
    new = last * last / before if before > 0 and ratio >= 2 and not small else 2 * last - before
    whole = all(isinstance(v, int) for v in row)
    if whole and new != int(new):
        return None
    new = int(new) if whole else float(f"{new:.3g}")
    return new if new > 0 and new not in row else None


def tidy(value: float, within: float) -> float:
    """The number with the fewest digits that lies no further than `within` from it."""
    for digits in range(1, 16):
        short = float(f"{value:.{digits}g}")
        if abs(short - value) <= within:
            return short
    return value
