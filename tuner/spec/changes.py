"""Finds what `--set NAME=YAML` speaks of in a file's tree, and changes it there (grammar R12).

On a choice a label narrows it to that option, which keeps its distributions; anything else replaces what is there.
`edit.set_values` makes the same change in the user's text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tuner.errors import BadInput, Problem
from tuner.spec.distributions import text_of
from tuner.spec.nearest import did_you_mean
from tuner.spec.space_file import Listing, Node, Place, Scalar, Table, plain, read
from tuner.spec.trial_config import KINDS
from tuner.spec.words import body_of, read_options, word_of

Key = str | int
_STEP = re.compile(r"(?:^|\.)([^.\[\]]+)|\[([^\[\]]*)\]")


@dataclass(frozen=True)
class Change:
    """Put `value` at `route`, the keys down from the root of the file, all of which exist but perhaps the last.

    `missing` are keys to make below it. `kind` is the bare word that stood there for a section: it becomes `name`.
    With `keep` the body of a choice stands at the route, of which only these entries stay.
    """

    route: tuple[Key, ...]
    missing: tuple[str, ...] = ()
    kind: str = ""
    keep: tuple[Key, ...] | None = None
    text: str = ""
    value: Node | None = None


@dataclass(frozen=True)
class Edit:
    """What a program changes: `text`, as YAML, stands for all that is at the name, or only the options `keep` stay."""

    name: str
    text: str = ""
    keep: tuple[str, ...] = ()


def apply_sets(root: Node, sets: Sequence[str | Edit]) -> tuple[Node, list[Change], list[Problem]]:
    """The tree with each `NAME=YAML` or Edit applied in order, the changes made, and what is wrong with the rest."""
    changes: list[Change] = []
    problems: list[Problem] = []
    for number, text in enumerate(sets, start=1):
        try:
            change = _read_change(root, text, Place(f"--set {number}", 0, 0))
        except BadInput as error:
            problems += error.problems
        else:
            root = _changed(root, change.route, change)
            changes.append(change)
    return root, changes, problems


def _read_change(root: Node, wish: str | Edit, place: Place) -> Change:
    text = f"{wish.name}={wish.text or 'null'}" if isinstance(wish, Edit) else wish
    name, equals, value_text = text.partition("=")  # a label holds no =
    name = name.strip()
    found = list(_STEP.finditer(name))
    if not equals or not name or "".join(m[0] for m in found) != name:
        raise place.error(f"{text!r}: write NAME=VALUE, such as search.trials=5 or train.optimizer=sgd")
    if not value_text.strip():
        raise place.error(f"{name}: no value; write {name}=null for nothing")
    value, problems = read(value_text, place.source, lines=False)
    if problems:
        raise BadInput(problems)
    change, node = _find(root, [(m[1], m[2]) for m in found], name, place)
    if isinstance(wish, Edit) and wish.keep:
        return _kept(change, node, wish, place)
    if node is not None and isinstance(wish, str):
        change = _narrowed(change, node, value, name)
    return replace(change, text=value_text, value=value)


def _find(
    root: Node, steps: list[tuple[str | None, str | None]], name: str, place: Place
) -> tuple[Change, Node | None]:
    """The route to what the name speaks of, and what is there: None where it is to be made."""
    node, so_far = root, ""
    route: tuple[Key, ...] = ()
    for i, (key, label) in enumerate(steps):
        rest = tuple(k for k, _ in steps[i:] if k is not None)
        made = _made_below(node, so_far)
        if made is not None and len(rest) == len(steps) - i:
            return Change(route, rest, made), None
        if word_of(node) == "choice":
            options = list(read_options(body_of(node), so_far))
            labels = [text_of(option.label) for option in options]
            if label is None and len(labels) > 1:
                known = " or ".join(f"{so_far}[{known}]" for known in labels)
                raise place.error(f"{name}: {so_far} is a choice; name the option: {known}")
            if label is not None and label not in labels:
                raise place.error(f"{name}: no such option: {label}{did_you_mean(label, labels)}")
            at = labels.index(label) if label is not None else 0
            route, node = (*route, "choice", _entry(node, at)), options[at].node
            so_far = f"{so_far}[{labels[at]}]"
            if label is not None:
                continue
            made = _made_below(node, so_far)
            if made is not None and len(rest) == len(steps) - i:
                return Change(route, rest, made), None
        if label is not None or key is None:
            raise place.error(f"{name}: {so_far} is no choice in this file")
        if isinstance(node, Listing) and key.isdigit() and int(key) < len(node.items):
            route, node = (*route, int(key)), node.items[int(key)]
        elif isinstance(node, Table) and word_of(node) is None and key in node.entries:
            route, node = (*route, key), node.entries[key]
        elif isinstance(node, Table) and word_of(node) is None and len(rest) == len(steps) - i:
            return Change((*route, key), rest[1:]), None
        else:
            what = f"a list of {len(node.items)}" if isinstance(node, Listing) else "one value"
            raise place.error(f"{name}: {so_far} is {what}; it has no {key}")
        so_far = f"{so_far}.{key}" if so_far else key
    return Change(route), node


def _made_below(node: Node, name: str) -> str | None:
    """The `name` of the section that a bare word stands for; empty for null, None for anything else."""
    if not isinstance(node, Scalar):
        return None
    if node.value is None:
        return ""
    return node.value if isinstance(node.value, str) and re.sub(r"\[[^\]]*\]", "", name) in KINDS else None


def _narrowed(change: Change, node: Node, value: Node, name: str) -> Change:
    """The change as one that narrows a choice, where the value is one of its labels."""
    route = change.route
    names = node.entries.get("name") if isinstance(node, Table) else None
    if names is not None and word_of(names) == "choice":  # name: {choice: [adam, sgd]} beside shared fields
        node, route = names, (*route, "name")
    if word_of(node) != "choice" or isinstance(value, Table):
        return change
    wanted = value.value if isinstance(value, Scalar) else text_of(plain(value))
    for index, option in enumerate(read_options(body_of(node), name)):
        same = option.label == wanted and isinstance(option.label, bool) == isinstance(wanted, bool)
        if same or (option.named and option.label == text_of(wanted)):
            return Change((*route, "choice"), keep=(_entry(node, index),))
    return change


def _kept(change: Change, node: Node | None, wish: Edit, place: Place) -> Change:
    """The change that leaves only some options of the choice there, by their labels."""
    if node is None or word_of(node) != "choice":
        raise place.error(f"{wish.name}: is no choice in this file")
    options = enumerate(read_options(body_of(node), wish.name))
    entries = tuple(_entry(node, n) for n, option in options if text_of(option.label) in wish.keep)
    if not entries:
        raise place.error(f"{wish.name}: has no option {', '.join(wish.keep)}")
    return replace(change, route=(*change.route, "choice"), keep=entries)


def _entry(choice: Node, index: int) -> Key:
    body = body_of(choice)
    return list(body.entries)[index] if isinstance(body, Table) else index


def _changed(node: Node, route: tuple[Key, ...], change: Change) -> Node:
    if not route:
        return _new(node, change)
    key, rest = route[0], route[1:]
    if isinstance(node, Listing):
        items = list(node.items)
        items[int(key)] = _changed(items[int(key)], rest, change)
        return Listing(tuple(items), node.place)
    assert isinstance(node, Table) and isinstance(key, str)
    there = node.entries[key] if change.value is None else node.entries.get(key, change.value)
    inner = _changed(there, rest, change)
    moved = {key: change.value.place} if change.value is not None and not rest and change.keep is None else {}
    return Table({**node.entries, key: inner}, {**node.keys, **moved}, node.place)


def _new(node: Node, change: Change) -> Node:
    """What stands at the end of the route after the change."""
    if change.keep is not None and isinstance(node, Listing):
        return Listing(tuple(node.items[int(key)] for key in change.keep), node.place)
    if change.keep is not None and isinstance(node, Table):
        keys = list(map(str, change.keep))
        return Table({k: node.entries[k] for k in keys}, {k: node.keys[k] for k in keys}, node.place)
    assert change.value is not None
    new, place = change.value, change.value.place
    for key in reversed(change.missing):
        new = Table({key: new}, {key: place}, place)
    if change.kind and isinstance(new, Table):
        new = Table({"name": Scalar(change.kind, place), **new.entries}, {"name": place, **new.keys}, place)
    return new
