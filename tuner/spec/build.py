"""From the tree of a file to the tree of a space: short forms written out, distributions named, lists cut to blocks.

What cannot be built is reported once and left out of the tree as `BROKEN`, so that the rest can still be checked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic.fields import FieldInfo

from tuner.errors import BadInput, Problem
from tuner.spec.distributions import Choice, Plain, SameAs, text_of
from tuner.spec.fields import is_per_block, item_of, why_not_searched
from tuner.spec.nearest import did_you_mean
from tuner.spec.parameter import Condition, Parameter, PerBlock
from tuner.spec.section import Section, kinds_of, open_kind_of, sections_of
from tuner.spec.space_file import Listing, Node, Place, Scalar, Table
from tuner.spec.trial_config import SpaceConfig
from tuner.spec.words import body_of, check_words, read_options, read_range, shown, word_of

BROKEN = object()
"""Stands for a part of the file that has been reported."""


@dataclass(frozen=True)
class At:
    """Where the builder is: the name and path so far, what must hold to get here, where it stands in the text."""

    name: str
    path: str
    place: Place
    when: tuple[Condition, ...] = ()
    label: str = ""  # of the option this is; fills `name` of a section that comes in kinds

    def field(self, key: str, place: Place) -> At:
        """A field or an item of this."""
        name, path = (f"{self.name}.{key}", f"{self.path}.{key}") if self.name else (key, key)
        return At(name, path, place, self.when)

    def option(self, label: Plain, place: Place, *, is_distribution: bool) -> At:
        """An option of the choice that stands here. One that is itself searched gets a column of its own."""
        text = text_of(label)
        path = f"{self.path}[{text}]" if is_distribution else self.path
        when = (*self.when, Condition(self.name, (label,)))
        return At(f"{self.name}[{text}]", path, place, when, text)


@dataclass
class Builder:
    """Walks a file's tree along the classes. `places` says by name where things stand, `validated` which sections
    have rules across their fields, `kind_choices` which parameters choose the `name` of a section."""

    problems: list[Problem] = field(default_factory=list)
    parameters: list[Parameter] = field(default_factory=list)
    places: dict[str, Place] = field(default_factory=dict)
    broken: set[str] = field(default_factory=set)
    validated: set[str] = field(default_factory=set)
    kind_choices: set[str] = field(default_factory=set)
    same_as: list[tuple[SameAs, At]] = field(default_factory=list)

    def build(self, root: Node) -> dict[str, Any]:
        """The whole tree."""
        at = At("", "", root.place)
        if not isinstance(root, Table):
            self.report(root.place, "a space file is a mapping; begin with name: my-search", at)
            return {}
        tree = self.value(root, SpaceConfig, at)
        return tree if isinstance(tree, dict) else {}

    def report(self, place: Place, message: str, at: At | None = None) -> Any:
        """Note a problem; the part at `at` is left out."""
        self.problems.append(place.problem(message))
        if at is not None:
            self.broken.add(at.name)
        return BROKEN

    def place_of(self, name: str) -> Place:
        """Where the thing of this name stands, or the nearest one around it."""
        while name not in self.places:
            name = name[: max(name.rfind("."), name.rfind("["), 0)]
        return self.places[name]

    def refused(self, error: BadInput, at: At) -> Any:
        """Note the problems of an error; the part at `at` is left out."""
        self.problems += error.problems
        self.broken.add(at.name)
        return BROKEN

    def value(self, node: Node, annotation: Any, at: At, per_block: FieldInfo | None = None, depth: Any = None) -> Any:
        """The tree of one value of this type; what is searched in a broken one is no parameter."""
        before = len(self.parameters)
        tree = self._value(node, annotation, at, per_block, depth)
        if tree is BROKEN:
            del self.parameters[before:]
        return tree

    def _value(self, node: Node, annotation: Any, at: At, per_block: FieldInfo | None, depth: Any) -> Any:
        self.places[at.name] = at.place
        kinds, classes = kinds_of(annotation), sections_of(annotation)
        try:
            word = word_of(node)
            if word is not None:
                return self.distribution(word, body_of(node), annotation, at, per_block, depth)
            if isinstance(node, Table):
                known = [name for cls in classes for name in cls.known()]
                check_words(node, at.name or "this file", known)
        except BadInput as error:
            return self.refused(error, at)
        if kinds and (at.label or not isinstance(node, Scalar) or node.value is not None):
            return self.kind(node, kinds, open_kind_of(annotation), at)
        if isinstance(node, Table):
            if classes:
                return self.section(node, {"": classes[0]}, at)
            return {k: self.value(v, Any, at.field(k, node.keys[k])) for k, v in node.entries.items()}
        if isinstance(node, Listing):
            if per_block is not None:
                return self.blocks(node, annotation, at, depth)
            items = [self.value(v, item_of(annotation, i), at.field(str(i), v.place)) for i, v in enumerate(node.items)]
            return BROKEN if any(item is BROKEN for item in items) else items
        presets = getattr(classes[0], "presets", None) if classes else None
        if presets and isinstance(node.value, str):
            if node.value not in presets:
                what = at.path.rpartition(".")[2]
                return self.report(
                    at.place, f"{at.name}: no such {what}: {node.value}{did_you_mean(node.value, presets)}", at
                )
            return presets[node.value]
        return node.value

    # ------------------------------------------------------------ sections

    def kind(self, node: Node, kinds: Mapping[str, type[Section]], own: type[Section] | None, at: At) -> Any:
        """A section that comes in kinds: a bare word, a mapping with `name`, or an option whose label is the name.

        `own`: the kind of what the user wrote, named module:function.
        """
        what = at.path.rpartition(".")[2]
        given = node.entries.get("name") if isinstance(node, Table) else node
        word = given.value if isinstance(given, Scalar) else at.label if given is None else None
        if own and isinstance(word, str) and ":" in word:
            kinds = {**kinds, word: own}
        if isinstance(node, Scalar) and at.label and node.value is None:
            node = Table({}, {}, node.place)
        if isinstance(node, Scalar):
            if node.value in kinds:
                return {"name": node.value}
            word = shown(node.value)
            return self.report(at.place, f"{at.name}: no such {what}: {word}{did_you_mean(word, kinds)}", at)
        if isinstance(node, Listing):
            return self.report(at.place, f"{at.name}: takes a name or a mapping with name, got a list", at)
        name = node.entries.get("name")
        if name is None:
            if at.label in kinds:
                return {"name": at.label, **self.section(node, {at.label: kinds[at.label]}, at)}
            if at.label:
                message = (
                    f"no such {what}: {at.label}{did_you_mean(at.label, kinds)}; or give the option a name of its own"
                )
            else:
                message = f"name is missing: one of {', '.join(kinds)}"
            return self.report(at.place, f"{at.name}: {message}", at)
        if isinstance(name, Scalar):
            if not isinstance(name.value, str) or name.value not in kinds:
                word = shown(name.value)
                return self.report(
                    node.keys["name"], f"{at.name}: no such {what}: {word}{did_you_mean(word, kinds)}", at
                )
            return self.section(node, {name.value: kinds[name.value]}, at)
        if word_of(name) != "choice":
            return self.report(
                node.keys["name"], f"{at.name}.name: takes one of {', '.join(kinds)}, or a choice of them", at
            )
        return self.choice_of_kinds(node, name, kinds, at)

    def choice_of_kinds(self, node: Table, name: Node, kinds: Mapping[str, type[Section]], at: At) -> Any:
        """`name: {choice: [adam, sgd]}` beside shared fields, each of which must be valid for every name."""
        try:
            labels = [option.label for option in read_options(body_of(name), f"{at.name}.name")]
        except BadInput as error:
            return self.refused(error, at)
        for label in labels:
            if label not in kinds:
                what = f"no such {at.path.rpartition('.')[2]}: {shown(label)}{did_you_mean(shown(label), kinds)}"
                return self.report(node.keys["name"], f"{at.name}.name: {what}", at)
        self.kind_choices.add(f"{at.name}.name")
        return self.section(node, {str(label): kinds[str(label)] for label in labels}, at)

    def section(self, node: Table, classes: Mapping[str, type[Section]], at: At) -> dict[str, Any]:
        """The fields of a section; with several classes each field must be known to all of them."""
        cls = next(iter(classes.values()))
        if any(c.__pydantic_decorators__.model_validators for c in classes.values()):
            self.validated.add(at.name)
        listed = any(is_per_block(info) for info in cls.model_fields.values())
        # Lists that have an item a block need the depth first: trials ask for it before them.
        keys = sorted(node.entries, key=lambda key: key != "depth") if listed else list(node.entries)
        tree: dict[str, Any] = {}
        for key in keys:
            here = at.field(key, node.keys[key])
            lacking = [kind for kind, c in classes.items() if c.field(key) is None]
            if lacking:
                self.unknown(key, lacking, classes, here, at)
                tree[key] = BROKEN
                continue
            info = cls.field(key)
            assert info is not None
            block = info if is_per_block(info) else None
            depth = tree.get("depth", cls.model_fields["depth"].default) if block else None
            tree[key] = self.value(node.entries[key], info.annotation, here, block, depth)
        return tree

    def unknown(self, key: str, lacking: list[str], classes: Mapping[str, type[Section]], here: At, at: At) -> None:
        """Report a key that is no field of every class that the section may be."""
        first, *others = classes.values()
        fields = [f for f in first.known() if f != "name" or not at.name if all(c.field(f) for c in others)]
        title = " or ".join(lacking) or at.path.rpartition(".")[2]
        if len(lacking) < len(classes):
            options = ", ".join(f"{kind}: {{...}}" for kind in classes)
            hint = f", which {at.name}.name may be; give each an option of its own: {{choice: {{{options}}}}}"
        else:
            hint = did_you_mean(key, fields)
        self.report(here.place, f"{here.name}: no such field{f' of {title}' if title else ''}{hint}", here)

    # ------------------------------------------------------------ distributions

    def distribution(self, word: str, body: Node, annotation: Any, at: At, block: FieldInfo | None, depth: Any) -> Any:
        """What is searched here: a Parameter, or SameAs."""
        why = why_not_searched(at.path)
        if why:
            return self.report(at.place, f"{at.name or 'this file'}: cannot be searched: {why}", at)
        if word == "same_as":
            if not isinstance(body, Scalar) or not isinstance(body.value, str):
                return self.report(body.place, f"{at.name}: same_as takes a path, such as train.optimizer.lr", at)
            target = SameAs(body.value)
            self.same_as.append((target, replace(at, place=body.place)))
            return target
        if word != "choice":
            parameter = Parameter(at.name, at.path, read_range(word, body, at.name), at.when)
            self.parameters.append(parameter)
            return parameter
        before = len(self.parameters)
        labels, trees = [], []
        for option in read_options(body, at.name):
            inner = at.option(option.label, option.place, is_distribution=word_of(option.node) is not None)
            labels.append(option.label)
            trees.append(self.value(option.node, annotation, inner, block, depth))
        parameter = Parameter(at.name, at.path, Choice(tuple(labels), tuple(trees)), at.when)
        self.parameters.insert(before, parameter)
        return parameter

    def blocks(self, node: Listing, annotation: Any, at: At, depth: Any) -> Any:
        """A list with an item a block: as long as the greatest depth, item i exists where depth > i (grammar R5)."""
        ends = _extent(depth)
        if ends is None and isinstance(depth, Parameter | SameAs):
            what = "beside a list per block, depth must be a number, a choice of numbers, or int"
            return self.report(at.place, f"{at.name}: {what}", at)
        items = []
        for i, item in enumerate(node.items):
            here = at.field(str(i), item.place)
            if ends is not None and isinstance(depth, Parameter) and i >= ends[0]:
                here = replace(here, when=(*here.when, Condition(depth.name, above=i)))
            items.append(self.value(item, item_of(annotation, i), here))
        if ends is None or any(item is BROKEN for item in items):
            return BROKEN if depth is BROKEN or BROKEN in items else items
        least, greatest = ends
        if len(items) != greatest:
            reach = f"depth is {greatest}" if least == greatest else f"depth goes up to {greatest}"
            rule = f"write {greatest} items, or one value for all blocks"
            return self.report(at.place, f"{at.name}: lists {len(items)} blocks, {reach}; {rule}", at)
        return PerBlock(tuple(items), depth)


def _extent(depth: Any) -> tuple[int, int] | None:
    """The least and the greatest depth; None when it is no number of at least 1."""
    ends = depth.distribution.values() if isinstance(depth, Parameter) else (depth,)
    whole = [v for v in ends if type(v) is int and v >= 1]
    return (min(whole), max(whole)) if len(whole) == len(ends) else None
