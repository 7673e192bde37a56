"""What a space consists of: parameters with the conditions they exist under, lists per block, starting points."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tuner.spec.distributions import Distribution, Plain
from tuner.spec.trial_config import MID_RUN


@dataclass(frozen=True)
class Condition:
    """A parameter exists while the parameter `name` has one of `values`, or is a number above `above`."""

    name: str
    values: tuple[Plain, ...] = ()
    above: int | None = None

    def holds(self, value: Plain) -> bool:
        """Whether it holds where the parameter `name` has this value."""
        if self.above is not None:
            return isinstance(value, int) and value > self.above
        return any(type(v) is type(value) and v == value for v in self.values)

    def __str__(self) -> str:
        return f"{self.name} is " + (
            f"above {self.above}" if self.above is not None else " or ".join(map(str, self.values))
        )


@dataclass(frozen=True)
class Parameter:
    """One searched value. `name` carries the labels it lives under, `path` is where the value lands (grammar R4)."""

    name: str
    path: str
    distribution: Distribution
    active_when: tuple[Condition, ...] = ()

    @property
    def mid_run(self) -> bool:
        """Whether a trial that runs can change it: whether its path is, or lies under, one of MID_RUN."""
        path = re.sub(r"\[[^\]]*\]", "", self.path)
        return any(path == root or path.startswith(root + ".") for root in MID_RUN)


@dataclass(frozen=True)
class Start:
    """A configuration to try first: what is fixed by parameter name; the rest is sampled (grammar R11)."""

    label: str
    fixed: Mapping[str, Plain]
    to_the_end: bool = False


@dataclass(frozen=True)
class PerBlock:
    """A list with an item a block, as long as the greatest depth; a trial gets its first `depth` items (grammar R5)."""

    items: tuple[Any, ...]
    depth: Parameter | int


Choose = Callable[[Parameter], Plain]
"""Asked once for each parameter that exists in a trial, in file order; gives a label or a number."""
