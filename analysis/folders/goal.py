"""What a run was to improve and to keep to, as run.json says it: objectives and constraints over an epoch's metrics."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

Mode = Literal["max", "min"]
LOSSES = ("train_loss", "val_loss")  # an epoch with one that is not finite is no result, whatever its accuracy

_RULE = re.compile(r"\s*(\w+)\s*(<=|>=)\s*(\S+)\s*")


class Objective(NamedTuple):
    """A metric and its direction; None where run.json does not say."""

    metric: str
    mode: Mode | None


class Constraint(NamedTuple):
    """A metric that must not pass a bound."""

    text: str
    metric: str
    sense: str
    bound: float

    def breaks(self, row: Mapping[str, Any]) -> bool:
        """Whether the row passes the bound; a value that is not known breaks nothing."""
        value = _finite(row.get(self.metric))
        return value > self.bound if self.sense == "<=" else value < self.bound


class Goal(NamedTuple):
    """All of them, the objective that drives the search first; empty for a foreign run."""

    objectives: tuple[Objective, ...] = ()
    constraints: tuple[Constraint, ...] = ()
    losses: tuple[str, ...] = ()

    def sound(self, row: Mapping[str, Any]) -> bool:
        """Whether the epoch is a result: no loss and no objective that it reports is without a finite value."""
        names = (*self.losses, *(o.metric for o in self.objectives))
        return all(math.isfinite(_finite(row[name])) for name in names if name in row)

    def broken(self, row: Mapping[str, Any]) -> tuple[str, ...]:
        """The constraints that the row breaks."""
        return tuple(c.text for c in self.constraints if c.breaks(row))


NO_GOAL = Goal()


def read_goal(run: Mapping[str, Any]) -> Goal:
    """The goal of a run.json; what is damaged in it is left out."""
    listed, rules = run.get("objectives"), run.get("constraints")
    objectives = []
    for entry in listed if isinstance(listed, list) else ():
        if isinstance(entry, dict) and isinstance(entry.get("metric"), str):
            mode = entry.get("mode")
            objectives.append(Objective(entry["metric"], mode if mode in ("max", "min") else None))
    constraints = []
    for text in rules if isinstance(rules, list) else ():
        match = _RULE.fullmatch(text) if isinstance(text, str) else None
        if match:
            try:
                bound = float(match[3].replace(",", "").replace("_", ""))
            except ValueError:
                continue
            constraints.append(Constraint(text, match[1], match[2], bound))
    return Goal(tuple(objectives), tuple(constraints), LOSSES)


def _finite(value: Any) -> float:
    """A number as a float, NaN for everything else; comparisons with NaN are false."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    return float(value) if abs(value) < 2**1023 else math.nan
