"""Checks a built space against the one class of a configuration, by trying every option and both ends (grammar R14).

Linear in the number of values, not their product; values of one section are tried in pairs where it has rules across
fields, and everything under each name where a section's `name` is chosen beside shared fields.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from tuner.spec.build import BROKEN, Builder
from tuner.spec.distributions import Choice, LogUniform, Plain, SameAs, Uniform, text_of
from tuner.spec.nearest import nearest
from tuner.spec.parameter import Choose, Parameter, PerBlock
from tuner.spec.trial_config import SpaceConfig
from tuner.spec.words import shown

MAX_PAIRS = 400  # combinations tried of two parameters; 20 options each

Path = tuple[str | int, ...]


class Resolved(NamedTuple):
    """A configuration as plain data, and the name in the file of every value in it, by its path."""

    data: dict[str, Any]
    names: dict[Path, str]


def walk(tree: Mapping[str, Any], choose: Choose) -> Resolved:
    """One configuration of the tree; `choose` is asked for each parameter that exists in it, in order."""
    chosen: dict[str, Plain] = {}
    names: dict[Path, str] = {}
    copies: list[tuple[Any, Any, SameAs]] = []

    def visit(node: Any, path: Path, name: str) -> Any:
        names[path] = name
        if isinstance(node, Parameter):
            value = chosen[node.name] = choose(node)
            if isinstance(node.distribution, Choice):
                return visit(node.distribution.option(value), path, f"{node.name}[{text_of(value)}]")
            assert isinstance(value, int | float)
            return float(value) if isinstance(node.distribution, Uniform | LogUniform) else value
        if isinstance(node, PerBlock):
            depth = chosen[node.depth.name] if isinstance(node.depth, Parameter) else node.depth
            assert isinstance(depth, int)
            return visit(list(node.items[:depth]), path, name)
        if isinstance(node, dict):
            return fill({}, node.items(), path, name)
        if isinstance(node, list):
            return fill([None] * len(node), enumerate(node), path, name)
        return node

    def fill(container: Any, items: Any, path: Path, name: str) -> Any:
        for key, item in items:
            value = visit(item, (*path, key), f"{name}.{key}" if name else str(key))
            if isinstance(value, SameAs):
                copies.append((container, key, value))
            if value is not BROKEN:
                container[key] = value
        return container

    data = visit(tree, (), "")
    for container, key, target in copies:
        container[key] = look_up(data, target.path)
        if container[key] is BROKEN:
            del container[key]
    return Resolved(data, names)


def look_up(data: Any, path: str) -> Any:
    """The value at a path of plain data; BROKEN where there is none."""
    for part in path.split("."):
        if isinstance(data, dict) and part in data:
            data = data[part]
        elif isinstance(data, list) and part.isdigit() and int(part) < len(data):
            data = data[int(part)]
        else:
            return BROKEN
    return data


# ---------------------------------------------------------------- what is tried


def first_values(overrides: Mapping[str, Plain]) -> Choose:
    """Chooses the first option or low end of everything that is not overridden."""
    return lambda p: overrides[p.name] if p.name in overrides else p.distribution.values()[0]


def _reach(parameter: Parameter, by_name: Mapping[str, Parameter]) -> dict[str, Plain]:
    """Choices under which the parameter exists."""
    chosen: dict[str, Plain] = {}
    for condition in parameter.active_when:
        values = by_name[condition.name].distribution.values() if condition.name in by_name else condition.values
        chosen[condition.name] = next(v for v in (*values[::-1],) if condition.holds(v))
    return chosen


def tries(builder: Builder) -> Iterator[dict[str, Plain]]:
    """What to override in each configuration that is tried; the first one is nothing."""
    by_name = {p.name: p for p in builder.parameters}
    bases: list[dict[str, Plain]] = [{}]
    for kind in (p for p in builder.parameters if p.name in builder.kind_choices):
        bases += [{**_reach(kind, by_name), kind.name: value} for value in kind.distribution.values()[1:]]
    for base in bases:
        yield base
        for p in builder.parameters:
            for value in p.distribution.values():
                yield {**base, **_reach(p, by_name), p.name: value}
    for section in sorted(builder.validated):
        members = [p for p in builder.parameters if p.name.rpartition(".")[0] == section]
        for p, q in itertools.combinations(members, 2):
            pairs = itertools.product(p.distribution.values(), q.distribution.values())
            for first, second in itertools.islice(pairs, MAX_PAIRS):
                yield {**_reach(p, by_name), p.name: first, q.name: second}


def check(builder: Builder, tree: Mapping[str, Any]) -> SpaceConfig | None:
    """The configuration with the first value of everything; None when something is wrong. Reports each mistake once."""
    said: set[Any] = set()
    first: SpaceConfig | None = None
    if "" in builder.broken:
        return None
    epochs: Any = None
    for overrides in tries(builder):
        resolved = walk(tree, first_values(overrides))
        try:
            config = SpaceConfig.model_validate(resolved.data)
        except ValidationError as error:
            for mistake in mistakes(error, resolved):
                _report(builder, mistake, overrides, said)
            continue
        if first is None:
            first, epochs = config, config.train.epochs
        elif config.train.epochs != epochs and config.search.scheduler.name != "none":
            _report_epochs(builder, resolved, said)
    return first


def _report(builder: Builder, mistake: Mistake, overrides: Mapping[str, Plain], said: set[Any]) -> None:
    name = mistake.name
    if any(_under(name, broken) or (mistake.across and _under(broken, name)) for broken in builder.broken):
        return
    place = builder.place_of(name)
    if mistake.across and overrides:
        last = list(overrides)[-1]
        place = builder.place_of(last)
    shared = (place, mistake.kind)
    if (name, mistake.kind) in said or (place.line and shared in said):
        return
    said |= {(name, mistake.kind), shared}
    message = mistake.message
    parameter = next((p for p in builder.parameters if p.name == name), None)
    if parameter is not None and mistake.kind == "whole" and isinstance(parameter.distribution, Uniform | LogUniform):
        word = "int" if isinstance(parameter.distribution, Uniform) else "logint"
        message = f"must be a whole number; write {{{word}: [low, high]}}"
    text = re.sub(r"\[[^\]]*\]$", "", name) if mistake.leaf else name
    builder.problems.append(place.problem(f"{text}: {message}" if text else message))


def _report_epochs(builder: Builder, resolved: Resolved, said: set[Any]) -> None:
    if "epochs" in said:
        return
    said.add("epochs")
    name = resolved.names[("train", "epochs")]
    rule = "can be searched only with search.scheduler: none; a scheduler compares trials of the same length"
    builder.problems.append(builder.place_of(name).problem(f"train.epochs: {rule}"))


def _under(name: str, root: str) -> bool:
    return name == root or name.startswith((root + ".", root + "["))


# ---------------------------------------------------------------- pydantic's errors in our words


class Mistake(NamedTuple):
    """One rule broken. `across` is true for a rule over several fields, `leaf` where the value is no mapping."""

    name: str
    kind: str
    message: str
    across: bool
    leaf: bool


_WANTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping of its fields",
    "model_attributes_type": "a mapping of its fields",
    "none_required": "null",
}
_LIMITS = {
    "greater_than": ("above", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("below", "lt"),
    "less_than_equal": ("at most", "le"),
}
# Words that YAML 1.1 and Python read as values and YAML 1.2 as text (grammar R9).
_OLD_WORDS = {**dict.fromkeys(("on", "yes", "y"), "true"), **dict.fromkeys(("off", "no", "n"), "false")}


def mistakes(error: ValidationError, resolved: Resolved) -> Iterator[Mistake]:
    """Each mistake once: of a field that takes one of several types, what its value comes nearest to."""
    found = [(_locate(e, resolved.data), e) for e in error.errors(include_url=False)]
    groups: dict[Path, list[ErrorDetails]] = {}
    for path, detail in found:
        if _of_type(detail) and any(
            other[: len(path)] == path and (len(other) > len(path) or not _of_type(d)) for other, d in found
        ):
            continue
        if detail["type"] == "too_short" and any(other[: len(path)] == path and other != path for other, _ in found):
            continue  # items with a mistake of their own are not counted
        groups.setdefault(path, []).append(detail)
    for path, details in groups.items():
        wanted = list(dict.fromkeys(_WANTED[d["type"]] for d in details if d["type"] in _WANTED))
        name = _name(path, resolved)
        value = details[0]["input"]
        leaf = not isinstance(value, dict)
        if wanted:
            kind = "whole" if "a whole number" in wanted and "a number" not in wanted else "type"
            yield Mistake(
                name, kind, f"must be {' or '.join(wanted)}, got {_got(value)}{_hint(value, wanted)}", False, leaf
            )
        else:
            across = details[0]["type"] == "value_error" and not leaf
            yield Mistake(
                name, details[0]["type"] if not across else _message(details[0]), _message(details[0]), across, leaf
            )


def _of_type(detail: ErrorDetails) -> bool:
    """Whether the value is of another type than wanted: no mistake where it fits another type of the field better."""
    no_word = detail["type"] == "literal_error" and isinstance(detail["input"], dict | list)
    return no_word or detail["type"] in _WANTED


def _locate(detail: ErrorDetails, data: Any) -> Path:
    """The path in the data that an error is about; pydantic's own names of union members are left out."""
    path: Path = ()
    for part in detail["loc"]:
        if isinstance(data, dict) and part in data:
            data = data[part]
        elif isinstance(data, list) and part in range(len(data)):
            data = data[int(part)]
        elif detail["type"] != "missing" or part != detail["loc"][-1] or isinstance(part, int):
            continue
        path = (*path, part)
    return path


def _name(path: Path, resolved: Resolved) -> str:
    if path in resolved.names:
        return resolved.names[path]
    above = _name(path[:-1], resolved)
    return f"{above}.{path[-1]}" if above else str(path[-1])


def _message(detail: ErrorDetails) -> str:
    kind, value, context = detail["type"], detail["input"], detail.get("ctx", {})
    if kind in _LIMITS:
        word, key = _LIMITS[kind]
        return f"must be {word} {shown(context[key])}, got {_got(value)}"
    if kind == "literal_error":
        known = [text or number for text, number in re.findall(r"'([^']*)'|([\d.]+)", context["expected"])]
        near = nearest(str(value), known) if isinstance(value, str) else None
        hint = f"; did you mean {near}?" if near else ""
        return f"must be one of {', '.join(known)}, got {_got(value)}{hint}"
    if kind == "value_error":
        return str(context["error"])
    if kind == "missing":
        items = isinstance(value, list | tuple)
        return f"has too few items, got {_got(value)}" if items else "is missing"
    if kind == "too_short":
        return f"has too few items: {context['min_length']} at least"
    if kind == "too_long":
        return f"has too many items: {context['max_length']} at most"
    if kind == "extra_forbidden":
        return "no such field"
    return detail["msg"][:1].lower() + detail["msg"][1:]


def _got(value: Any) -> str:
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, str):
        return f"the text {shown(value)}"
    return shown(value) if value is not None else "null"


def _hint(value: Any, wanted: list[str]) -> str:
    if not isinstance(value, str):
        return ""
    word = _OLD_WORDS.get(value.lower())
    if word and "true or false" in wanted:
        return f"; write {word}"
    if value in ("None", "none"):
        return "; only null means nothing"
    try:
        number = float(value.replace("_", ""))
    except ValueError:
        return ""
    return f"; write {text_of(number)}" if "a number" in wanted or number.is_integer() else ""
