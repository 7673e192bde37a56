"""Rules that reach across the file: what `same_as` points at must be written out, samplers and schedulers must fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tuner.spec.build import BROKEN, Builder
from tuner.spec.distributions import Choice, Plain, SameAs, text_of
from tuner.spec.parameter import Parameter, PerBlock
from tuner.spec.search import Pbt
from tuner.spec.trial_config import MID_RUN, SpaceConfig, TrialConfig


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


def check_search(builder: Builder, fixed: SpaceConfig) -> None:
    """Report what the sampler, the scheduler and the budget cannot do with this space."""
    search = fixed.search
    if "data.train_on" in builder.places or fixed.data.train_on != "train":
        rule = "a search needs images that it does not train on; leave it out, and finalize --with-validation does it"
        builder.report(builder.place_of("data.train_on"), f"data.train_on: {rule}")
    if search.sampler.name == "grid":
        _check_grid(builder)
    if search.sampler.name == "cmaes" and len(search.objectives) > 1:
        rule = "cmaes improves one metric; write auto, tpe, gp or nsga2 for several"
        builder.report(builder.place_of("search.sampler"), f"search.sampler: {rule}")
    if isinstance(search.scheduler, Pbt):
        _check_pbt(builder, search.scheduler, fixed.train.epochs)
    if search.trials < len(search.start_from):
        rule = f"{search.trials} do not hold the {len(search.start_from)} of start_from; write that many at least"
        builder.report(builder.place_of("search.trials"), f"search.trials: {rule}")


def _check_grid(builder: Builder) -> None:
    for parameter in builder.parameters:
        if parameter.distribution.count() is None:
            rule = "a grid needs a choice, or a uniform with a step: {uniform: [low, high, step]}"
            builder.report(builder.places[parameter.name], f"{parameter.name}: search.sampler is grid; {rule}")


def _check_pbt(builder: Builder, pbt: Pbt, epochs: int) -> None:
    """Population-based training compares trials before they end, and changes what a running trial can change."""
    if pbt.every >= epochs:
        rule = f"trials train {epochs} epochs and would never be compared; write less than {epochs}"
        builder.report(builder.place_of("search.scheduler.every"), f"search.scheduler.every: is {pbt.every}; {rule}")
    may = dict.fromkeys(key for p in builder.parameters if p.mid_run for key in (p.name, p.path))
    if not may:
        rule = f"pbt changes settings of running trials, and none that can change is searched: {', '.join(MID_RUN)}"
        builder.report(builder.place_of("search.scheduler"), f"search.scheduler: {rule}")
        return
    searched = {key for p in builder.parameters for key in (p.name, p.path)}
    for index, key in enumerate(pbt.mutate or ()):
        if key not in may:
            why = "cannot change in a trial that runs" if key in searched else "is not searched in this space"
            name = f"search.scheduler.mutate.{index}"
            builder.report(builder.place_of(name), f"{name}: {key}: {why}; those that can: {', '.join(may)}")
    if pbt.mutate == ():
        name = "search.scheduler.mutate"
        rule = f"names nothing to change; leave it out, or name some of {', '.join(may)}"
        builder.report(builder.place_of(name), f"{name}: {rule}")
