"""Dimension: one axis a searched column, with its words, its ticks and where each value lies on it."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analysis import style
from analysis.folders.parameters import Parameter
from analysis.results import Results
from analysis.style import texts as texts

NOT_USED = "not used"


class Dimension(NamedTuple):
    """A searched column. Several parameters may share it, one a branch; then it spans them all.

    ordered: its values are numbers. log: they lie on a logarithmic axis. categories: the values of an unordered one,
    as text, in the order of the space.
    """

    column: str
    label: str
    ordered: bool
    log: bool
    categories: tuple[str, ...]

    @property
    def title(self) -> str:
        """The axis in words: learning rate (log)."""
        return f"{self.label} (log)" if self.log else self.label

    def positions(self, values: pd.Series[Any]) -> pd.Series[float]:
        """Where each value lies: its logarithm to base 10, its number, or the index of its category; NaN if missing."""
        if not self.ordered:
            lanes: dict[str | None, float] = {text: float(i) for i, text in enumerate(self.categories)}
            return pd.Series(np.array([lanes.get(t, math.nan) for t in texts(values)], dtype=float), values.index)
        numbers = pd.to_numeric(values, errors="coerce").astype(float)
        return pd.Series(np.log10(numbers.where(numbers > 0)), index=values.index) if self.log else numbers

    def ticks(self, positions: pd.Series[float]) -> tuple[list[float], list[str]] | None:
        """Positions and texts of the ticks where a plain numeric axis would not do; else None."""
        if not self.ordered:
            return [float(i) for i in range(len(self.categories))], list(self.categories)
        present = positions.dropna()
        if self.log and len(present):
            at = style.log_ticks(10 ** present.min(), 10 ** present.max())
            if len(at) < 2:
                at = sorted({float(10 ** present.min()), float(10 ** present.max())})
            return [math.log10(t) for t in at], [style.number(t) for t in at]
        distinct = sorted(set(present))
        if 0 < len(distinct) <= 6:
            return distinct, [style.number(v) for v in distinct]
        return None


def dimensions(results: Results, *, constant: bool = False) -> tuple[Dimension, ...]:
    """The searched columns in the order of the space; those that never varied are left out unless asked for."""
    groups: dict[str, list[Parameter]] = {}
    for parameter in results.parameters:
        if parameter.column in results.trials:
            groups.setdefault(parameter.column, []).append(parameter)
    named = style.labels(groups)
    found = []
    for column, group in groups.items():
        present = texts(results.trials[column])
        if len(set(present) - {None}) < 2 and not constant:
            continue
        numbers = pd.to_numeric(results.trials[column], errors="coerce").astype(float)
        ordered = all(p.ordered for p in group)
        log = ordered and all(p.log for p in group) and not bool((numbers <= 0).any())
        known = [t for p in group for t in texts(pd.Series(p.choices, dtype=object)) if t is not None]
        categories = () if ordered else tuple(dict.fromkeys([*known, *(t for t in present if t is not None)]))
        found.append(Dimension(column, named[column], ordered, log, categories))
    return tuple(found)
