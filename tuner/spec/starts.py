"""Reads `search.start_from`: configurations to try first, by names or paths in the chosen branch (grammar R11)."""

from __future__ import annotations

from collections.abc import Sequence

from tuner.spec.build import Builder
from tuner.spec.distributions import Choice, LogUniform, Plain, Uniform, text_of
from tuner.spec.nearest import nearest
from tuner.spec.parameter import Parameter, Start
from tuner.spec.space_file import Listing, Node, Scalar, Table, plain
from tuner.spec.words import shown


def read_starts(root: Node, builder: Builder) -> tuple[Start, ...]:
    """The starting points; what is wrong with them goes to the builder's problems."""
    search = root.entries.get("search") if isinstance(root, Table) else None
    listed = search.entries.get("start_from") if isinstance(search, Table) else None
    if not isinstance(listed, Listing):
        return ()
    starts = [
        _read(item, number, builder) for number, item in enumerate(listed.items, start=1) if isinstance(item, Table)
    ]
    labels: set[str] = set()
    for start, item in zip(starts, (i for i in listed.items if isinstance(i, Table)), strict=True):
        if start.label in labels:
            builder.report(item.place, f"search.start_from: two starting points are labelled {start.label}")
        labels.add(start.label)
    return tuple(starts)


def _read(table: Table, number: int, builder: Builder) -> Start:
    where = f"search.start_from.{number - 1}"
    label, to_the_end = f"start-{number}", False
    wanted = dict(table.entries)
    if (node := wanted.pop("label", None)) is not None:
        label = text_of(plain(node))
        if not isinstance(node, Scalar) or not label.strip() or node.value is None:
            builder.report(table.keys["label"], f"{where}.label: must be a short text")
    if (node := wanted.pop("to_the_end", None)) is not None:
        to_the_end = plain(node) is True
        if type(plain(node)) is not bool:
            builder.report(
                table.keys["to_the_end"], f"{where}.to_the_end: must be true or false, got {shown(plain(node))}"
            )
    fixed: dict[str, Plain] = {}
    used: set[str] = set()
    refused: dict[str, str] = {}
    for parameter in builder.parameters:
        key = next((k for k in _keys(parameter) if k in wanted), None)
        missing = [c for c in parameter.active_when if c.name not in fixed or not c.holds(fixed[c.name])]
        if key is None:
            # The only option of a choice need not be written out.
            if not missing and isinstance(parameter.distribution, Choice) and len(parameter.distribution.labels) == 1:
                fixed[parameter.name] = parameter.distribution.labels[0]
            continue
        if missing:
            refused.setdefault(key, f"exists only where {' and '.join(map(str, missing))}")
            continue
        used.add(key)
        try:
            fixed[parameter.name] = _value(wanted[key], parameter)
        except ValueError as error:
            builder.report(table.keys[key], f"{where}: {key}: {error}")
    for key in wanted:
        if key not in used and not any(key == b or key.startswith((b + ".", b + "[")) for b in builder.broken):
            why = refused.get(key) or _unknown(key, builder.parameters)
            builder.report(table.keys[key], f"{where}: {key}: {why}")
    return Start(label, fixed, to_the_end)


def _keys(parameter: Parameter) -> tuple[str, ...]:
    """How a starting point may speak of the parameter; `train.optimizer` for a searched train.optimizer.name."""
    return (parameter.name, parameter.path, parameter.path.removesuffix(".name"))


def _value(node: Node, parameter: Parameter) -> Plain:
    distribution = parameter.distribution
    value = plain(node)
    if isinstance(distribution, Choice):
        label = value if isinstance(node, Scalar) else text_of(value) if isinstance(node, Listing) else None
        for known in distribution.labels:
            if known == label and isinstance(known, bool) == isinstance(label, bool):
                return known
        near = nearest(str(label), [str(known) for known in distribution.labels])
        hint = f"; did you mean {near}?" if near else ""
        raise ValueError(
            f"no such option: {shown(value)}; there are {', '.join(map(shown, distribution.labels))}{hint}"
        )
    if (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and isinstance(distribution, Uniform | LogUniform)
    ):
        value = float(value)
    if not distribution.contains(value):
        step = f" in steps of {text_of(distribution.step)}" if distribution.step else ""
        raise ValueError(f"{shown(value)} is not in {text_of(distribution.low)} .. {text_of(distribution.high)}{step}")
    assert isinstance(value, int | float)
    return value


def _unknown(key: str, parameters: Sequence[Parameter]) -> str:
    names = [n for p in parameters for n in (p.name, p.path)]
    near = nearest(key, names)
    return "is not searched in this space" + (f"; did you mean {near}?" if near else "")
