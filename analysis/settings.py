"""Setting: one searched parameter as numbers, in the trials that used it; all statistics of settings start here."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis import style
from analysis.folders.parameters import Parameter, holds
from analysis.results import Results
from analysis.style import texts

Floats = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]


class Setting(NamedTuple):
    """One searched parameter that varied, over all trials of the run.

    x: where each trial's value lies: its logarithm to base 10, its number, or the index of its category; NaN where the
    trial did not use it. low, high: the ends of what was searched, in the same measure. distinct: the values of
    a setting of few, in order (categories, choices among numbers, small whole numbers), with their texts; else empty.
    """

    parameter: Parameter
    label: str
    x: Floats
    low: float
    high: float
    distinct: tuple[float, ...]
    texts: tuple[str, ...]

    @property
    def name(self) -> str:
        """The parameter's, such as train.optimizer[sgd].lr."""
        return self.parameter.name

    @property
    def ordered(self) -> bool:
        """Whether more and less mean something."""
        return self.parameter.ordered

    @property
    def log(self) -> bool:
        """Whether `x` holds logarithms."""
        return self.parameter.ordered and self.parameter.log and bool(np.isfinite(self.low))

    def used(self) -> Mask:
        """In which trials it was in use."""
        used: Mask = np.isfinite(self.x)
        return used

    def text(self, at: float) -> str:
        """A value for people."""
        if not self.ordered:
            return self.texts[int(at)]
        return style.number(10**at if self.log else at)


FEW = 8
"""Distinct numbers that are told apart one by one; more are taken together in groups."""


def settings(results: Results, among: Mask | None = None) -> tuple[Setting, ...]:
    """The searched parameters that varied between the trials (those of the mask `among`), in the order of the space.

    Parameters that share a column, one a branch, are settings of their own, each with the trials of its branch alone.
    """
    used = in_use(results)
    columns = [p.column for p in results.parameters]
    labels, shared = style.labels(columns), Counter(columns)
    found = []
    for parameter in results.parameters:
        mask = used[parameter.name].to_numpy()
        mask = mask if among is None else mask & among
        label = labels[parameter.column]
        branch = re.findall(r"\[([^\]]*)\]", parameter.name)
        if shared[parameter.column] > 1 and branch:
            label += f" ({', '.join(branch)})"
        setting = _make(parameter, label, results.trials[parameter.column], mask)
        if len(np.unique(setting.x[mask & setting.used()])) > 1:
            found.append(setting)
    return tuple(found)


def _make(parameter: Parameter, label: str, column: pd.Series[Any], mask: Mask) -> Setting:
    if not parameter.ordered:
        return _category(parameter, label, column, mask)
    numbers = pd.to_numeric(column, errors="coerce").to_numpy(dtype=float)
    numbers = np.where(mask, numbers, np.nan)
    ends = [v for v in (parameter.low, parameter.high, *parameter.choices) if isinstance(v, int | float)]
    if parameter.log and not (numbers[np.isfinite(numbers)] <= 0).any() and all(end > 0 for end in ends):
        at = np.log10(numbers)
        ends = [float(np.log10(end)) for end in ends]
    else:
        at, parameter = numbers, _plain(parameter)
    told = at[np.isfinite(at)]
    low, high = (float(v) for v in (min([*ends, *told[:1]]), max([*ends, *told[:1]]))) if len(told) else (0.0, 1.0)
    if len(told):  # a changed space may leave values outside of the one that is known
        low, high = min(low, float(told.min())), max(high, float(told.max()))
    distinct = np.unique(told)
    few = tuple(map(float, distinct)) if len(distinct) <= FEW and parameter.kind != "float" else ()
    return Setting(
        parameter, label, at, low, high, few, tuple(style.number(10**v if parameter.log else v) for v in few)
    )


def _plain(parameter: Parameter) -> Parameter:
    from dataclasses import replace

    return replace(parameter, log=False) if parameter.log else parameter


def _category(parameter: Parameter, label: str, column: pd.Series[Any], mask: Mask) -> Setting:
    found = texts(column)
    known = [t for t in texts(pd.Series(parameter.choices, dtype=object)) if t is not None]
    categories = dict.fromkeys([*known, *(t for t, there in zip(found, mask, strict=True) if there and t is not None)])
    place = {text: float(n) for n, text in enumerate(categories)}
    at = np.array([place.get(t or "", np.nan) if there else np.nan for t, there in zip(found, mask, strict=True)])
    return Setting(
        parameter, label, at, 0.0, float(max(len(place) - 1, 1)), tuple(place.values()), tuple(categories)
    )  # fmt: skip


def regimes(found: Sequence[Setting], among: Mask) -> list[tuple[Mask, tuple[Setting, ...], tuple[Setting, ...]]]:
    """Groups of trials that used the same settings: the mask, the settings in use in all of it, and those whose it is.

    A setting of a branch is judged where it was in use, beside the settings that were in use there too.
    """
    own: dict[bytes, list[Setting]] = {}
    for setting in found:
        own.setdefault((setting.used() & among).tobytes(), []).append(setting)
    made = []
    for group in own.values():
        mask = group[0].used() & among
        members = tuple(s for s in found if s.used()[mask].all() and len(np.unique(s.x[mask])) > 1)
        made.append((mask, members, tuple(s for s in group if any(s is m for m in members))))
    return made


def in_use(results: Results) -> dict[str, pd.Series[bool]]:
    """Parameter name -> in which trials it was in use: several may share a column, one a branch."""
    masks: dict[str, pd.Series[bool]] = {}
    columns = {p.name: p.column for p in results.parameters}
    for parameter in results.parameters:
        mask = results.trials[parameter.column].notna()
        for condition in parameter.active_when:
            parent = str(condition.get("name"))
            if parent in masks:
                met = [holds(condition, {parent: value}) for value in results.trials[columns[parent]]]
                mask = mask & masks[parent] & np.array(met, dtype=bool)
        masks[parameter.name] = mask
    return masks
