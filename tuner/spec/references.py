"""Rules that reach across the file: what `same_as` points at must be written out, a grid needs steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tuner.spec.build import BROKEN, Builder
from tuner.spec.distributions import Choice, Plain, SameAs, text_of
from tuner.spec.parameter import Parameter, PerBlock
from tuner.spec.trial_config import SpaceConfig, TrialConfig


def check_same_as(builder: Builder, tree: Mapping[str, Any]) -> None:
    """Report each `same_as` whose target is not written in the file wherever the `same_as` itself exists."""
    for target, at in builder.same_as:
        here = {c.name: c.values[0] for c in at.when if c.values}
        deeper = {c.name: c.above for c in at.when if c.above is not None}
        parts = target.path.split(".")
        why = _missing(tree, parts, here, deeper)
        if not why and parts[0] not in TrialConfig.model_fields:
            why = "is no part of a trial; point at a value of data, model or train"
        if why:
            builder.report(at.place, f"{at.name}: same_as: {target.path}: {why}", at)


def _missing(node: Any, parts: list[str], here: Mapping[str, Plain], deeper: Mapping[str, int]) -> str:
    """Why there is no value at the path under the choices `here`; empty where there is one."""
    if node is BROKEN:
        return ""
    if isinstance(node, SameAs):
        return "is a same_as itself; point at the value that it points at"
    if isinstance(node, Parameter):
        if not isinstance(node.distribution, Choice):
            return "" if not parts else "is one value, it has no fields"
        for label, option in zip(node.distribution.labels, node.distribution.options, strict=True):
            if node.name in here and here[node.name] != label:
                continue
            why = _missing(option, parts, here, deeper)
            if why:
                return why if node.name in here else f"{why} (where {node.name} is {text_of(label)})"
        return ""
    if not parts:
        return "is a section; point at one of its fields" if isinstance(node, dict) else ""
    if isinstance(node, PerBlock) and parts[0].isdigit():
        index = int(parts[0])
        if isinstance(node.depth, Parameter):
            least = min(v for v in node.depth.distribution.values() if isinstance(v, int))
            least = max(least, deeper.get(node.depth.name, 0) + 1)
            if index >= least and index < len(node.items):
                return f"exists only where {node.depth.name} is above {index}"
        node = list(node.items)
    if isinstance(node, list) and parts[0].isdigit() and int(parts[0]) < len(node):
        return _missing(node[int(parts[0])], parts[1:], here, deeper)
    if isinstance(node, dict) and parts[0] in node:
        return _missing(node[parts[0]], parts[1:], here, deeper)
    return "is not written in this file; write it out, or point at another value"


def check_grid(builder: Builder, fixed: SpaceConfig) -> None:
    """Report each range that a grid cannot walk."""
    if fixed.search.sampler.name != "grid":
        return
    for parameter in builder.parameters:
        if parameter.distribution.grid() is None:
            rule = "a grid needs a choice, or a uniform with a step: {uniform: [low, high, step]}"
            builder.report(builder.places[parameter.name], f"{parameter.name}: search.sampler is grid; {rule}")
