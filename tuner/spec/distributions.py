"""What a searched leaf may be: choice, uniform, loguniform, int, logint, same_as; one small class each.

A distribution knows its values, not its name: `space.Parameter` ties the two together.
`to_optuna_json` writes Optuna's own JSON form without importing Optuna; a test holds the two equal.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any, TypeAlias

Plain: TypeAlias = bool | int | float | str | None
"""What a sampler sees: plain values and labels."""

WORDS = ("choice", "uniform", "loguniform", "int", "logint", "same_as")


@dataclass(frozen=True)
class Choice:
    """One of some options. `labels[i]` is what samplers and tables see, `options[i]` the subtree it stands for."""

    labels: tuple[Plain, ...]
    options: tuple[Any, ...]

    @property
    def ordered(self) -> bool:
        """Whether every label is a number, so that analysis may treat the choice as one (grammar R3)."""
        return all(isinstance(v, int | float) and not isinstance(v, bool) for v in self.labels)

    def values(self) -> tuple[Plain, ...]:
        """Every label."""
        return self.labels

    def grid(self) -> tuple[Plain, ...] | None:
        """Every value for an exhaustive search."""
        return self.labels

    def count(self) -> int | None:
        """Number of values of the grid, told without building it."""
        return len(self.labels)

    def contains(self, value: object) -> bool:
        """Whether the value is one of the labels; 1 and true are different."""
        return any(type(v) is type(value) and v == value for v in self.labels)

    def option(self, label: Plain) -> Any:
        """The subtree behind a label.

        Raises:
            KeyError: no such label.
        """
        for known, option in zip(self.labels, self.options, strict=True):
            if type(known) is type(label) and known == label:
                return option
        raise KeyError(label)

    def to_optuna_json(self) -> dict[str, Any]:
        """Optuna's JSON form."""
        return {"name": "CategoricalDistribution", "attributes": {"choices": list(self.labels)}}


@dataclass(frozen=True)
class _Range:
    """Both ends included; `step` is None on a continuous or logarithmic range."""

    low: Any
    high: Any
    step: Any = None

    @property
    def ordered(self) -> bool:
        """Numbers are ordered."""
        return True

    def values(self) -> tuple[Plain, ...]:
        """Both ends: what the space is checked with."""
        return (self.low, self.high)

    def contains(self, value: object) -> bool:
        """Whether the number lies in the range, ends included, and on a step where there is one."""
        if isinstance(value, bool) or not isinstance(value, int | float) or not self.low <= value <= self.high:
            return False
        steps = (value - self.low) / (self.step or 1)
        return self.step is None or math.isclose(steps, round(steps), rel_tol=1e-9, abs_tol=1e-8)


@dataclass(frozen=True)
class Uniform(_Range):
    """A float, evenly distributed."""

    def grid(self) -> tuple[Plain, ...] | None:
        """Every value of a stepped range; None when there is no step."""
        if (count := self.count()) is None:
            return None
        return (*(self.low + i * self.step for i in range(count - 1)), self.high)

    def count(self) -> int | None:
        """Number of values of the grid; None when there is no step."""
        return None if self.step is None else round((self.high - self.low) / self.step) + 1

    def to_optuna_json(self) -> dict[str, Any]:
        """Optuna's JSON form."""
        return _optuna("FloatDistribution", float(self.low), float(self.high), log=False, step=self.step)


@dataclass(frozen=True)
class LogUniform(_Range):
    """A float above 0, evenly distributed in its logarithm."""

    def grid(self) -> tuple[Plain, ...] | None:
        """A logarithmic range has no grid."""
        return None

    def count(self) -> int | None:
        """A logarithmic range has no grid."""
        return None

    def to_optuna_json(self) -> dict[str, Any]:
        """Optuna's JSON form."""
        return _optuna("FloatDistribution", float(self.low), float(self.high), log=True, step=None)


@dataclass(frozen=True)
class Int(_Range):
    """A whole number, evenly distributed."""

    def grid(self) -> tuple[Plain, ...] | None:
        """Every value."""
        return tuple(range(self.low, self.high + 1, self.step or 1))

    def count(self) -> int | None:
        """Number of values of the grid, told without building it."""
        return int(self.high - self.low) // (self.step or 1) + 1

    def contains(self, value: object) -> bool:
        """Whether it is a whole number of the range, on a step."""
        return isinstance(value, int) and super().contains(value)

    def to_optuna_json(self) -> dict[str, Any]:
        """Optuna's JSON form."""
        return _optuna("IntDistribution", self.low, self.high, log=False, step=self.step or 1)


@dataclass(frozen=True)
class LogInt(_Range):
    """A whole number above 0, evenly distributed in its logarithm."""

    def grid(self) -> tuple[Plain, ...] | None:
        """Every value; a grid knows no density."""
        return tuple(range(self.low, self.high + 1))

    def count(self) -> int | None:
        """Number of values of the grid, told without building it."""
        return int(self.high - self.low) + 1

    def contains(self, value: object) -> bool:
        """Whether it is a whole number of the range."""
        return isinstance(value, int) and super().contains(value)

    def to_optuna_json(self) -> dict[str, Any]:
        """Optuna's JSON form."""
        return _optuna("IntDistribution", self.low, self.high, log=True, step=1)


@dataclass(frozen=True)
class SameAs:
    """The value of another place in the same trial; no parameter of its own."""

    path: str


Distribution: TypeAlias = Choice | Uniform | LogUniform | Int | LogInt


def _optuna(kind: str, low: float, high: float, *, log: bool, step: float | None) -> dict[str, Any]:
    return {"name": kind, "attributes": {"step": step, "low": low, "high": high, "log": log}}


def text_of(value: Any) -> str:
    """A value as a short label: lists joined by dashes (`32-64-128`), numbers in their shortest exact form."""
    if isinstance(value, list | tuple):
        return "-".join(text_of(v) for v in value)
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return str(value)
