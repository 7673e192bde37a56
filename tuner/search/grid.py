"""Every combination of a space, once and lazily, conditional parameters included."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator

from tuner.errors import BadInput
from tuner.spec.check import walk
from tuner.spec.distributions import Plain
from tuner.spec.space import Parameter, Space

LARGEST = 10_000
"""Points above which a grid is refused: at a minute each that is a week."""


def points(space: Space, turning: Collection[str] | None = None) -> Iterator[dict[str, Plain]]:
    """Parameters of each point in the order written, the last parameter turning fastest.

    Walks the space as an odometer: each walk repeats the digits before the one that turned, so a branch that was not
    chosen is never opened and nothing is built ahead. `turning`: names that turn, the others keep their first value;
    default all.
    """
    digits: list[int] = []
    known: dict[str, tuple[Plain, ...]] = {}

    def values_of(parameter: Parameter) -> tuple[Plain, ...]:
        if turning is not None and parameter.name not in turning:
            return parameter.distribution.values()[:1]
        values = parameter.distribution.grid()
        assert values is not None  # the space file's check refuses a grid over a range without a step
        return values

    while True:
        sizes: list[int] = []
        point: dict[str, Plain] = {}

        def choose(parameter: Parameter, sizes: list[int] = sizes, point: dict[str, Plain] = point) -> Plain:
            if parameter.name not in known:
                known[parameter.name] = values_of(parameter)
            values = known[parameter.name]
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
    """Number of points, `LARGEST` + 1 for any number above it; None where a range is continuous.

    Only what decides about other parameters is turned; under each of its combinations the rest multiply, so that 2^40
    points of 40 choices are told at once.
    """
    sizes: dict[str, int] = {}
    for parameter in space.parameters:
        if (size := parameter.distribution.count()) is None:
            return None
        sizes[parameter.name] = size
    if any(size > LARGEST for size in sizes.values()):
        return LARGEST + 1
    deciding = {condition.name for parameter in space.parameters for condition in parameter.active_when}
    total = 0
    for point in points(space, deciding):
        total += math.prod(sizes[name] for name in point if name not in deciding)
        if total > LARGEST:
            return LARGEST + 1
    return total


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
