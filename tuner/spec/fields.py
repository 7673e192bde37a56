"""What fields there are, read off the classes of trial_config: for the checks, and in words for `hypertune fields`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, get_args, get_origin

from pydantic.fields import FieldInfo

from tuner.errors import BadInput
from tuner.spec.nearest import did_you_mean
from tuner.spec.section import UNIONS, Section, kinds_of, open_kind_of, sections_of
from tuner.spec.trial_config import SpaceConfig
from tuner.spec.words import shown

# What may be searched (grammar R8), and why the rest may not.
_OPEN = ("model", "train", "data.augment", "data.image_size")
_CLOSED = {
    "name": "it is the name of the whole run",
    "seed": "trials would differ by luck, not by their settings",
    "data": "trials would see other images and could not be compared; of data, augment and image_size may be searched",
    "search": "it says how trials are chosen, not what a trial is",
    "resources": "it says where trials run, not what a trial is",
}


def why_not_searched(path: str) -> str:
    """Why the field at this path may not be searched; empty where it may."""
    if any(path == root or path.startswith((f"{root}.", f"{root}[")) for root in _OPEN):
        return ""
    return _CLOSED.get(path.split(".")[0], "the whole file is one space")


def item_of(annotation: Any, index: int) -> Any:
    """The type of a list's item, Any where the type holds no list."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is tuple:
        if len(inner) == 2 and inner[1] is Ellipsis:
            return inner[0]
        return inner[index] if index < len(inner) else Any
    if origin is list:
        return inner[0]
    if origin is Annotated:
        return item_of(inner[0], index)
    if origin in UNIONS:
        return next((found for part in inner if (found := item_of(part, index)) is not Any), Any)
    return Any


def is_per_block(field: FieldInfo) -> bool:
    """Whether a list here has an item a block (grammar R5)."""
    return isinstance(field.json_schema_extra, dict) and bool(field.json_schema_extra.get("per_block"))


@dataclass(frozen=True)
class Row:
    """One field in words. `allowed` is its range or its values, `searchable` whether a distribution may stand there."""

    name: str
    type: str
    default: str
    allowed: str
    searchable: bool
    description: str


def describe(path: str = "") -> tuple[Row, ...]:
    """The fields of a section, such as `train` or `model.cnn`; the kinds of one that comes in kinds; or one field.

    Raises:
        BadInput: there is no such section or field.
    """
    cls: type[Section] = SpaceConfig
    kinds: dict[str, type[Section]] = {}
    place = ""
    for part in [p for p in path.split(".") if p]:
        if kinds:
            if part not in kinds:
                raise BadInput(f"{path}: no such {place.rpartition('.')[2]}: {part}{did_you_mean(part, kinds)}")
            cls, kinds = kinds[part], {}
            continue
        field = cls.field(part)
        if field is None:
            title = f" of {place}" if place else ""
            raise BadInput(f"{path}: no such field{title}: {part}{did_you_mean(part, cls.known())}")
        place = f"{place}.{part}" if place else part
        annotation = field.annotation
        kinds = kinds_of(annotation)
        inner = sections_of(annotation) or sections_of(item_of(annotation, 0))
        if not inner:
            return (_row(cls, part, place),)
        cls = inner[0]
    if kinds:
        searchable = not why_not_searched(place)
        rows = [Row(name, "kind", "", "", searchable, _summary((cls,))) for name, cls in kinds.items()]
        own = open_kind_of(annotation)
        return (*rows, *([Row("module:function", "kind", "", "", searchable, _summary((own,)))] if own else []))
    return tuple(_row(cls, name, f"{place}.{name}" if place else name) for name in cls.known())


def _row(cls: type[Section], name: str, path: str) -> Row:
    field = cls.field(name)
    assert field is not None
    kinds, inner = kinds_of(field.annotation), sections_of(field.annotation)
    schema = cls.model_json_schema()
    about = schema["properties"][name]
    if field.is_required():
        default = "required"
    elif field.default_factory is not None:
        made: Any = field.get_default(call_default_factory=True)
        default = made.name if kinds else "" if inner else shown(made)
    else:
        default = shown(field.default)
    words = "one of its kinds" if kinds else _type(about)
    allowed = ", ".join(kinds) if kinds else _allowed(about)
    return Row(name, words, default, allowed, not why_not_searched(path), field.description or _summary(inner))


def _summary(classes: tuple[type[Section], ...]) -> str:
    return (classes[0].__doc__ or "").partition("\n")[0] if classes else ""


_TYPES = {
    "integer": "whole number",
    "number": "number",
    "string": "text",
    "boolean": "true or false",
    "null": "null",
    "array": "list",
    "object": "mapping",
}


def _type(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_type(part) for part in schema["anyOf"]))
    if "$ref" in schema or "allOf" in schema:
        return "section"
    if "enum" in schema or "const" in schema:
        return (
            "number" if all(isinstance(v, int | float) for v in schema.get("enum", [schema.get("const")])) else "word"
        )
    if schema.get("type") == "array" and "$ref" in (schema.get("items") or {}):
        return "list of sections"
    if schema.get("type") == "array" and isinstance(schema.get("items"), dict) and "type" in schema["items"]:
        return f"list of {_type(schema['items'])}s".replace("texts", "words")
    return _TYPES.get(schema.get("type", ""), "any")


def _allowed(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        return "; ".join(dict.fromkeys(text for part in schema["anyOf"] if (text := _allowed(part))))
    if "enum" in schema:
        return ", ".join(shown(v) for v in schema["enum"])
    if "const" in schema:
        return shown(schema["const"])
    if schema.get("type") == "array":
        return _allowed(schema["items"]) if isinstance(schema.get("items"), dict) else ""
    if "propertyNames" in schema:
        return f"in a mapping {_allowed(schema['propertyNames']).replace('; ', ', ')}"
    ends = (
        ("at least ", "minimum"),
        ("above ", "exclusiveMinimum"),
        ("at most ", "maximum"),
        ("below ", "exclusiveMaximum"),
    )
    return ", ".join(text + shown(schema[key]) for text, key in ends if key in schema)
