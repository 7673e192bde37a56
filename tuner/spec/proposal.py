"""Writes a proposed next space into the text of the last one: each change with its reason above it, starting points."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tuner.errors import BadInput
from tuner.spec.build import Builder
from tuner.spec.changes import Edit
from tuner.spec.distributions import Choice, Plain, text_of
from tuner.spec.edit import set_values
from tuner.spec.parameter import Parameter
from tuner.spec.space import Space, parse_space
from tuner.spec.space_file import plain, read

MARK = "# refined"
"""What our comments begin with; those of the time before are taken out."""
_OURS = re.compile(r"\s*# refined(?:,| from) ")
_BARE = re.compile(r"[A-Za-z_][\w./+-]*(?: [\w./+-]+)*")


@dataclass(frozen=True)
class Proposed:
    """A change: the setting by name, as it was in words, as it shall be (a value, or {"uniform": [0, 1]}), and why."""

    name: str
    old: str
    new: Any
    reason: str


@dataclass(frozen=True)
class NextSpace:
    """A text that has been checked, and the settings that could not be changed in it with the reason."""

    text: str
    space: Space
    left_out: Mapping[str, str]


def steps(space: Space) -> dict[str, float]:
    """The steps of the ranges that have one, by setting."""
    told = {p.name: getattr(p.distribution, "step", None) for p in space.parameters}
    return {name: step for name, step in told.items() if step}


def may_be(space: Space) -> Callable[[str, Any], bool]:
    """Says whether the file is valid with a setting, by name, replaced so: the fields' limits and all other rules."""
    text = _without_starts(space)

    def legal(name: str, new: Any) -> bool:
        try:
            parse_space(set_values(text, [_edit(space, name, new)]), "")
        except BadInput:
            return False
        return True

    return legal


def write_next(
    space: Space, changes: Sequence[Proposed], starts: Sequence[tuple[str, Mapping[str, Any]]], head: Sequence[str],
    name: str,
) -> NextSpace:  # fmt: skip
    """The text of `space` with the changes, named `name`.

    starts: a label and values by setting each; they stand for those that were there. Of a start stays what the new
    space searches. head: sentences for the top of the file. Comments and structure stay; a change that would make the
    file invalid, or cost its comments where an alias shares the text, is left out.
    """
    text, left_out, done = _without_starts(space), {}, []
    for change in changes:
        try:
            changed = set_values(text, [_edit(space, change.name, change.new)])
            parse_space(changed, "")
        except BadInput as error:
            left_out[change.name] = error.problems[0].message
            continue
        if "#" in text and "#" not in changed:
            left_out[change.name] = "an alias shares its text with another place"
            continue
        text = changed
        done.append(change)
    text = set_values(text, [Edit("name", _yaml(name))])
    listed = [_start(label, values, parse_space(text, "")) for label, values in starts[: space.fixed.search.trials]]
    if listed:
        text = set_values(text, [Edit("search.start_from", "\n".join(f"- {start}" for start in listed))])
    said = [(c.name, f"{MARK}, {c.name} was {c.old}: {c.reason}") for c in done]
    if listed:
        said.append(("search.start_from", f"{MARK}, these are the best of {space.fixed.name}"))
    text = _commented(text, [f"{MARK} from {space.fixed.name}: {line}" for line in head], said)
    return NextSpace(text, parse_space(text, ""), left_out)


def _without_starts(space: Space) -> str:
    """Starting points may name what is about to change; without them a change is judged by itself."""
    return set_values(space.text, [Edit("search.start_from", "[]")]) if space.starts else space.text


def _edit(space: Space, name: str, new: Any) -> Edit:
    parameter = next((p for p in space.parameters if p.name == name), None)
    if parameter is None:
        raise BadInput(f"{name} is not searched in this space")
    old = parameter.distribution
    if isinstance(old, Choice):
        known = [text_of(label) for label in old.labels]
        values = new["choice"] if isinstance(new, Mapping) else [new]
        wanted = [text_of(value) for value in values]
        if set(wanted) <= set(known):
            if isinstance(new, Mapping):
                return Edit(name, keep=tuple(wanted))
            option = old.options[known.index(wanted[0])]
            label = old.labels[known.index(wanted[0])]
            # An option that is a value takes the place of the choice; a section stays as its only option.
            return Edit(name, _yaml(label)) if option == label else Edit(name, keep=tuple(wanted))
    return Edit(name, _yaml(new))


def _start(label: str, values: Mapping[str, Any], space: Space) -> str:
    """A starting point in flow form, of what the space searches."""
    found: dict[str, Plain] = {}
    for parameter in space.parameters:
        if parameter.name in values and all(c.name in found and c.holds(found[c.name]) for c in parameter.active_when):
            value = _fitting(parameter, values[parameter.name])
            if value is not None:
                found[parameter.name] = value[0]
    return _yaml({"label": label, **found})


def _fitting(parameter: Parameter, value: Any) -> tuple[Plain] | None:
    """The value as the parameter has it, in a tuple for it may be null; None where it has no such value."""
    distribution = parameter.distribution
    if isinstance(distribution, Choice):
        return next(((label,) for label in distribution.labels if text_of(label) == text_of(value)), None)
    short = float(f"{value:.4g}") if isinstance(value, float) else value
    return next(((v,) for v in (short, value) if distribution.contains(v)), None)


def _yaml(value: Any) -> str:
    """A value in YAML's flow form: 1.0e-5, sgd, {choice: [16, 32]}."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_yaml(key)}: {_yaml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_yaml, value)) + "]"
    if isinstance(value, float):
        text = repr(value)
        whole, exponent, power = text.partition("e")
        return f"{whole if '.' in whole else whole + '.0'}e{int(power)}" if exponent else text
    if isinstance(value, str) and _BARE.fullmatch(value) and value.lower() not in ("true", "false", "null"):
        return value
    return json.dumps(value)


def _commented(text: str, head: Sequence[str], said: Sequence[tuple[str, str]]) -> str:
    """The text with comments: `head` below the comments that it begins with, the others above the lines of what they
    speak of. Where a line is part of a longer text, so that a comment would become one, all stand at the head.
    """
    meant = plain(read(text, "")[0])
    lines = [line for line in text.split("\n") if not _OURS.match(line)]
    if not _same("\n".join(lines), meant):
        lines = text.split("\n")
    builder = Builder()
    builder.build(read("\n".join(lines), "")[0])
    beside = list(lines)
    places = [(builder.place_of(name).line - 1, n, comment) for n, (name, comment) in enumerate(said)]
    for line, _, comment in sorted(places, reverse=True):
        indent = beside[line][: len(beside[line]) - len(beside[line].lstrip())]
        beside.insert(line, indent + _one_line(comment))
    for made in (_headed(beside, head), _headed(lines, [*head, *(comment for _, comment in said)])):
        if _same(made, meant):
            return made
    return text


def _headed(lines: Sequence[str], head: Sequence[str]) -> str:
    first = next((n for n, line in enumerate(lines) if not line.startswith("#")), 0)
    return "\n".join([*lines[:first], *map(_one_line, head), *lines[first:]])


def _one_line(comment: str) -> str:
    """What ends a line in YAML, or cannot be printed, is a space."""
    return " ".join("".join(c if c.isprintable() else " " for c in comment).split())


def _same(text: str, meant: Any) -> bool:
    try:
        root, problems = read(text, "")
    except BadInput:
        return False
    return not problems and repr(plain(root)) == repr(meant)
