"""Transfer: the parameters under which a trial of another space, or of this one before it changed, lies in a space."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tuner.errors import BadInput
from tuner.search.sampler import Told
from tuner.spec.distributions import Choice, Plain, text_of
from tuner.spec.space import Parameter, Space

TOLERATED = ("seed", "data", "train.epochs", "train.precision")
"""Fixed fields that may differ: the curve is another one, what it says about the settings is still worth hearing."""


@dataclass(frozen=True)
class Learned:
    """A trial of another run, as knowledge: where it is from, its parameters by this space's names, how it went."""

    source: str
    trial: str
    parameters: Mapping[str, Plain]
    told: Told

    def as_dict(self) -> dict[str, Any]:
        """The fields of its line in events.jsonl."""
        told = {**vars(self.told), "values": list(self.told.values)}
        return {"source": self.source, "trial": self.trial, "parameters": dict(self.parameters), **told}


@dataclass(frozen=True)
class Knowledge:
    """What was learned from other runs, and which of their trials do not fit, with the reason."""

    trials: tuple[Learned, ...]
    dropped: Mapping[str, str]


class DoesNotFit(Exception):
    """The trial does not lie in the space; the text says why."""


def transfer(space: Space, parameters: Mapping[str, Plain], config: Mapping[str, Any]) -> dict[str, Plain]:
    """A trial's parameters by the names of `space`, from its own `parameters` and its resolved `config`.

    A parameter of the same name keeps its value; a new one takes what the old configuration has at its path.

    Raises:
        DoesNotFit: a value is outside its range, is missing, or what the space fixes differs.
    """
    found: dict[str, Plain] = {}

    def choose(parameter: Parameter) -> Plain:
        known = parameters[parameter.name] if parameter.name in parameters else _at(config, parameter)
        value = _match(parameter, known)
        found[parameter.name] = value
        return value

    try:
        resolved = space.resolve(choose).model_dump(mode="json")
    except BadInput as error:
        raise DoesNotFit(str(error.problems[0].message)) from None
    for path, old in _leaves(config):
        new = _look_up(resolved, path)
        tolerated = any(path == root or path.startswith(f"{root}.") for root in TOLERATED)
        if new != old and not (tolerated and not path.startswith("data.augment")):
            raise DoesNotFit(f"{path} was {text_of(old)}, the space has {text_of(new)}")
    return found


def _at(config: Mapping[str, Any], parameter: Parameter) -> Any:
    value = _look_up(config, parameter.path)
    return value.get("name") if isinstance(value, Mapping) else value


def _match(parameter: Parameter, value: Any) -> Plain:
    distribution = parameter.distribution
    if isinstance(distribution, Choice) and isinstance(value, list):
        value = text_of(value)
    elif isinstance(value, int) and not isinstance(value, bool) and not distribution.contains(value):
        value = float(value)
    if isinstance(value, bool | int | float | str | None) and distribution.contains(value):
        return value
    if isinstance(distribution, Choice) or not isinstance(value, int | float):
        raise DoesNotFit(f"{parameter.name}: {text_of(value)} is none of its values now")
    ends = f"{text_of(distribution.low)} .. {text_of(distribution.high)}"
    raise DoesNotFit(f"{parameter.name}: {value:.4g} is outside {ends}")


def _look_up(data: Any, path: str) -> Any:
    for part in path.split("."):
        if isinstance(data, Mapping):
            data = data.get(part)
        elif isinstance(data, list) and part.isdigit() and int(part) < len(data):
            data = data[int(part)]
        else:
            return None
    return data


def _leaves(config: Mapping[str, Any], above: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in config.items():
        path = f"{above}.{key}" if above else key
        found += _leaves(value, path) if isinstance(value, Mapping) else [(path, value)]
    return found
