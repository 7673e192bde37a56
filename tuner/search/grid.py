"""Every combination of a space, once and lazily, conditional parameters included."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from tuner.errors import BadInput
from tuner.spec.check import walk
from tuner.spec.distributions import Int, LogInt, Plain
from tuner.spec.space import Parameter, Space

LARGEST = 10_000
"""Points above which a grid is refused: at a minute each that is a week."""


def points(space: Space) -> Iterator[dict[str, Plain]]:
    """Parameters of each point in the order written, the last parameter turning fastest.

    Walks the space as an odometer: each walk repeats the digits before the one that turned, so a branch that was not
    chosen is never opened and nothing is built ahead.
    """
    digits: list[int] = []
    known: dict[str, tuple[Plain, ...]] = {}
    while True:
        sizes: list[int] = []
        point: dict[str, Plain] = {}

        def choose(parameter: Parameter, sizes: list[int] = sizes, point: dict[str, Plain] = point) -> Plain:
            values = known.setdefault(parameter.name, ()) or parameter.distribution.grid()
            known[parameter.name] = values or ()
            assert values is not None  # the space file's check refuses a grid over a range without a step
            if len(sizes) == len(digits):
                digits.append(0)
            point[parameter.name] = value = values[digits[len(sizes)]]
            sizes.append(len(values))
            return value

        walk(space.tree, choose)  # not `resolve`: a point that breaks a rule is the sampler's to pass over
        yield point
        while digits and digits[-1] + 1 == sizes[len(digits) - 1]:
            digits.pop()
        if not digits:
            return
        digits[-1] += 1


def count(space: Space) -> int | None:
    """Number of points, `LARGEST` + 1 for any number above it; None where a range is continuous."""
    ranges = [p.distribution for p in space.parameters]
    if any(isinstance(d, Int | LogInt) and (d.high - d.low) // (d.step or 1) >= LARGEST for d in ranges):
        return LARGEST + 1  # told without building it
    if any(d.grid() is None for d in ranges):
        return None
    return sum(1 for _ in itertools.islice(points(space), LARGEST + 1))


def size(space: Space) -> int:
    """Number of points of a space that a grid can search.

    Raises:
        BadInput: above `LARGEST`.
    """
    found = count(space)
    assert found is not None  # see `points`
    if found > LARGEST:
        raise BadInput(f"search.sampler: the grid has more than {LARGEST:,} points; use tpe or random")
    return found
