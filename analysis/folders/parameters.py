"""Parameter: one searched setting, as space.json says it, or inferred from what varies between configurations."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

LOG_SPAN = 50  # positive values whose ends lie further apart than this factor are taken as searched on a log scale
_PLAIN = frozenset((str, float, bool))  # what tables show as it is
PICKLED = "CLOUDPICKLE_FALLBACK"  # Ray's mark of a pickle inside JSON


@dataclass(frozen=True)
class Parameter:
    """One searched setting. `column` is its column in `Results.trials`: its path, such as train.optimizer.lr.

    kind float and int carry low, high and log; kind choice carries choices. `ordered` is true for numbers and for
    choices among numbers. `active_when` is as in space.json. Several parameters may share one column (one a branch).
    A null among the choices is the text `null`, so that it differs from a setting that a trial does not have.
    """

    name: str
    column: str
    kind: Literal["float", "int", "choice"]
    ordered: bool
    log: bool = False
    low: float | None = None
    high: float | None = None
    choices: tuple[Any, ...] = ()
    active_when: tuple[Mapping[str, Any], ...] = ()


def from_space(entry: Any) -> Parameter:
    """One entry of space.json.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: the entry breaks the contract.
    """
    attributes = entry["distribution"]["attributes"]
    kind = entry["distribution"]["name"]
    name, column = str(entry["name"]), str(entry["path"])
    active_when = tuple(dict(condition) for condition in entry.get("active_when") or ())
    if kind == "CategoricalDistribution":
        choices = tuple(plain(value) for value in attributes["choices"])
        ordered = bool(entry.get("ordered")) and all(map(is_number, choices))
        return Parameter(name, column, "choice", ordered, choices=choices, active_when=active_when)
    kinds: dict[str, Literal["float", "int"]] = {"FloatDistribution": "float", "IntDistribution": "int"}
    return Parameter(
        name,
        column,
        kinds[kind],
        ordered=True,
        log=bool(attributes.get("log")),
        low=float(attributes["low"]),
        high=float(attributes["high"]),
        active_when=active_when,
    )


def infer(settings: Iterable[Mapping[str, Any]]) -> tuple[Parameter, ...]:
    """What varies between the flat configurations of trials, in order of first appearance.

    Whole numbers are int, numbers float, on a log scale when positive and spanning a factor of `LOG_SPAN` or more;
    everything else is a choice. Ray stores no search space: low and high are the ends of what was tried.
    """
    seen: dict[str, dict[tuple[bool, Any], Any]] = {}
    for setting in settings:
        for name, value in setting.items():
            seen.setdefault(name, {})[isinstance(value, bool), value] = value  # 1 and true differ
    return tuple(_inferred(name, list(values.values())) for name, values in seen.items() if len(values) > 1)


def _inferred(name: str, values: Sequence[Any]) -> Parameter:
    if not all(is_number(value) and math.isfinite(value) for value in values):
        return Parameter(name, column_of(name), "choice", ordered=False, choices=tuple(values))
    low, high = float(min(values)), float(max(values))
    kind: Literal["float", "int"] = "int" if all(isinstance(value, int) for value in values) else "float"
    log = low > 0 and high / low >= LOG_SPAN
    return Parameter(name, column_of(name), kind, ordered=True, log=log, low=low, high=high)


def column_of(name: str) -> str:
    """The path of a name: `train.optimizer[sgd].lr` lies at `train.optimizer.lr`."""
    return re.sub(r"\[[^\]]*\]", "", name)


def is_number(value: Any) -> bool:
    """Whether it is a number that fits a float; true and false are none."""
    if isinstance(value, float):
        return True
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**1023


def plain(value: Any) -> Any:
    """A setting as tables show it: null as text, lists joined by dashes (`32-64`), numbers and text as they are."""
    if type(value) in _PLAIN:
        return value
    if value is None:
        return "null"
    if isinstance(value, list | tuple):
        return "-".join(str(plain(item)) for item in value)
    if isinstance(value, dict):
        return str(value.get("name", value))
    if isinstance(value, int) and not isinstance(value, bool) and not is_number(value):
        return str(value)
    return value


def flatten(tree: Mapping[str, Any], separator: str = ".") -> dict[str, Any]:
    """Leaves of nested mappings by path: {"optimizer": {"lr": 1}} -> {"optimizer.lr": 1}; lists are leaves.

    What Ray could not write as JSON, and put a pickle in its place, is left out.
    """
    flat: dict[str, Any] = {}
    pending: list[tuple[str, Mapping[str, Any]]] = [("", tree)]
    while pending:
        start, branch = pending.pop()
        if branch.get("_type") == PICKLED:
            continue
        for key, value in branch.items():
            if isinstance(value, dict):
                pending.append((f"{start}{key}{separator}", value))
            else:
                flat[sys.intern(start + key)] = value  # 200,000 rows would hold 200,000 copies of each name
    return flat


def look_up(config: Any, path: str) -> Any:
    """The value at a path of a nested configuration, list items by number.

    Raises:
        KeyError: there is none.
    """
    value = config
    for part in path.split("."):
        if isinstance(value, Mapping) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            raise KeyError(path)
    return value


def from_config(parameters: Sequence[Parameter], config: Mapping[str, Any]) -> dict[str, Any]:
    """Name -> value of the parameters that are active in a resolved configuration, parents before their branches."""
    values: dict[str, Any] = {}
    for parameter in parameters:
        try:
            if all(holds(condition, values) for condition in parameter.active_when):
                values[parameter.name] = plain(look_up(config, parameter.column))
        except KeyError:
            continue
    return values


def holds(condition: Mapping[str, Any], values: Mapping[str, Any]) -> bool:
    """Whether a condition of `active_when` holds for these values by name."""
    value = values.get(str(condition.get("name")))
    if "above" in condition and condition["above"] is not None:
        return is_number(value) and value > condition["above"]
    return value in [plain(choice) for choice in condition.get("values", ())]
