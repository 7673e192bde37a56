"""Space: what a space file opens to search, as a tree whose leaves may be distributions, and its parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tuner.spec.distributions import Distribution, Plain
from tuner.spec.trial_config import SpaceConfig, TrialConfig


@dataclass(frozen=True)
class Condition:
    """A parameter exists while the parameter `name` has one of `values`, or is a number above `above`."""

    name: str
    values: tuple[Plain, ...] = ()
    above: int | None = None


@dataclass(frozen=True)
class Parameter:
    """One searched value. `name` carries the labels it lives under, `path` is where the value lands (grammar R4)."""

    name: str
    path: str
    distribution: Distribution
    active_when: tuple[Condition, ...] = ()


@dataclass(frozen=True)
class Start:
    """A configuration to try first: what is fixed by parameter name; the rest is sampled (grammar R11)."""

    label: str
    fixed: Mapping[str, Plain]
    to_the_end: bool = False


Choose = Callable[[Parameter], Plain]
"""Asked once for each parameter that exists in a trial, in file order; gives a label or a number."""


@dataclass(frozen=True)
class Space:
    """A checked space file.

    `text` is the user's own text with --set applied; `fixed` is the whole configuration with every parameter at its
    first option or low end: read `search`, `resources`, `data` (but augment and image_size), `name` and `seed` there.
    """

    text: str
    source: str
    tree: Mapping[str, Any]
    parameters: tuple[Parameter, ...]
    starts: tuple[Start, ...]
    fixed: SpaceConfig

    def resolve(self, choose: Choose) -> TrialConfig:
        """Walk the tree, ask `choose` for each parameter that exists under what was chosen so far, give the trial.

        Raises:
            BadInput: the values together break a rule of the configuration.
        """
        raise NotImplementedError

    def to_json(self) -> list[dict[str, Any]]:
        """The parameters as space.json holds them: name, path, distribution (Optuna's form), active_when, ordered."""
        raise NotImplementedError
