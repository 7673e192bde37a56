"""JSON Schema of a space file, for editors: the class's own schema with each searchable value opened to distributions.

`python -m tuner.spec.schema` writes search_spaces/schema.json. Draft 7, which editors' YAML servers know.
"""

from __future__ import annotations

import json
from typing import Any

from tuner.spec.augment import Augment
from tuner.spec.distributions import WORDS
from tuner.spec.edit import READY_MADE
from tuner.spec.fields import why_not_searched
from tuner.spec.section import USER_CODE, Section, kinds_of, listed_sections_of, open_kind_of, sections_of
from tuner.spec.trial_config import SpaceConfig

Schema = dict[str, Any]


def schema() -> Schema:
    """The schema as plain data."""
    definitions: dict[str, Schema] = {}
    root = _section(SpaceConfig, "", definitions)
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "hypertune space file",
        **root,
        "$defs": dict(sorted(definitions.items())),
    }


def _section(cls: type[Section], path: str, definitions: dict[str, Schema]) -> Schema:
    if issubclass(cls, Augment):
        return _augment(cls)
    own = cls.model_json_schema()
    properties = {
        name: _field(cls, name, f"{path}.{name}" if path else name, own["properties"][name], definitions)
        for name in cls.known()
    }
    closed = cls.model_config.get("extra") != "allow"
    made: Schema = {"type": "object", "description": cls.__doc__ or "", "properties": properties}
    made |= {"additionalProperties": False} if closed else {}
    return {**made, "required": own["required"]} if "required" in own else made


def _augment(cls: type[Augment]) -> Schema:
    """Transforms by name with the names of their arguments; what those take would be a megabyte of schema."""
    properties = {}
    for name in cls.known():
        field = cls.field(name)
        assert field is not None
        (section,) = sections_of(field.annotation)
        arguments: Schema = {argument: {} for argument in (*section.known(), *WORDS)}
        properties[name] = {
            "type": ["object", "boolean", "null"],
            "description": field.description or "",
            "properties": arguments,
            "additionalProperties": False,
        }
    return {
        "type": "object",
        "description": cls.__doc__ or "",
        "properties": properties,
        "additionalProperties": False,
    }


def _field(cls: type[Section], name: str, path: str, own: Schema, definitions: dict[str, Schema]) -> Schema:
    field = cls.field(name)
    assert field is not None
    annotation = field.annotation
    kinds, classes = kinds_of(annotation), sections_of(annotation)
    for inner in (*classes, *listed_sections_of(annotation)):
        if inner.__name__ not in definitions:
            definitions[inner.__name__] = {}  # a place held, so that a class may hold itself
            definitions[inner.__name__] = _section(inner, path, definitions)
    searchable = not why_not_searched(path) and name != "name"
    key = f"{cls.__name__}.{name}"
    if kinds:
        value = _of_kinds(kinds, open_kind_of(annotation), definitions, choosable=searchable)
    elif classes:
        value = _of_class(classes[0], own, key, definitions, searchable)
    else:
        value = _leaf(own, key, definitions, open_items=searchable)
    about: Schema = {k: own[k] for k in ("description", "default") if k in own and not classes}
    if not searchable:
        return {**value, **about}
    definitions[key] = _opened(value, key, section=bool(classes), nameable=bool(kinds))
    return {"$ref": f"#/$defs/{key}", **about}


def _of_kinds(
    kinds: dict[str, type[Section]], own: type[Section] | None, definitions: dict[str, Schema], *, choosable: bool
) -> Schema:
    """A bare word, one of the sections, or the user's own code."""
    classes = dict.fromkeys(kinds.values())
    options: list[Schema] = [{"enum": list(kinds)}, *({"$ref": f"#/$defs/{cls.__name__}"} for cls in classes)]
    if own:
        options += [{"type": "string", "pattern": USER_CODE}, {"$ref": f"#/$defs/{own.__name__}"}]
    if choosable and len(kinds) > 1:  # name: {choice: [adam, sgd]} beside shared fields
        names = {"type": "array", "items": {"enum": list(kinds)}, "minItems": 1}
        name = {
            "type": "object",
            "properties": {"choice": names},
            "required": ["choice"],
            "additionalProperties": False,
        }
        shared = {k: v for cls in kinds.values() for k, v in definitions[cls.__name__]["properties"].items()}
        properties = {**shared, "name": name}
        options.append(
            {"type": "object", "properties": properties, "required": ["name"], "additionalProperties": False}
        )
    return {"anyOf": options}


def _of_class(cls: type[Section], own: Schema, key: str, definitions: dict[str, Schema], searchable: bool) -> Schema:
    """A section, the name of a preset of it, or what else may stand there."""
    reference = {"$ref": f"#/$defs/{cls.__name__}"}
    plain = [part for part in own.get("anyOf", ()) if "$ref" not in part]
    presets = getattr(cls, "presets", None)
    others = [{"enum": list(presets)}] if presets else []
    others += [_leaf(part, key, definitions, open_items=searchable) for part in plain]
    return {"anyOf": [reference, *others]} if others else reference


def _leaf(own: Schema, key: str, definitions: dict[str, Schema], *, open_items: bool) -> Schema:
    """A value's schema without pydantic's titles; the items of a searchable list may be searched too."""
    kept = {k: v for k, v in own.items() if k not in ("title", "default", "description", "per_block")}
    if "anyOf" in kept:
        kept["anyOf"] = [_leaf(part, key, definitions, open_items=open_items) for part in kept["anyOf"]]
    if "prefixItems" in kept:
        kept["items"] = [_item(part, key, definitions, open_items) for part in kept.pop("prefixItems")]
    elif isinstance(kept.get("items"), dict):
        kept["items"] = _item(kept["items"], key, definitions, open_items)
    return kept


def _item(own: Schema, key: str, definitions: dict[str, Schema], searchable: bool) -> Schema:
    if not searchable:
        return own
    definitions[f"{key}.item"] = _opened(own, f"{key}.item", section="$ref" in own, nameable=False)
    return {"$ref": f"#/$defs/{key}.item"}


def _opened(value: Schema, key: str, *, section: bool, nameable: bool) -> Schema:
    """If an object (of a section: one with a word of ours), then a distribution of this type, else the value itself."""
    condition: Schema = {"type": "object"}
    if section:
        condition["anyOf"] = [{"required": [word]} for word in WORDS]
    option: Schema = {"$ref": f"#/$defs/{key}"}
    labelled = {"anyOf": [option, {"type": "null"}]} if nameable else option
    words: Schema = {
        "choice": {
            "anyOf": [
                {"type": "array", "items": option, "minItems": 1},
                {"type": "object", "additionalProperties": labelled, "minProperties": 1},
            ]
        },
        "same_as": {"type": "string"},
    }
    number = next((p for p in value.get("anyOf", [value]) if p.get("type") in ("integer", "number")), None)
    if number is not None:
        whole = {**number, "type": "integer"}
        step = {"type": number["type"], "exclusiveMinimum": 0}
        words |= {"int": _range(whole, {**step, "type": "integer"}), "logint": _range(whole)}
        if number["type"] == "number":
            words |= {"uniform": _range(number, step), "loguniform": _range(number)}
    distribution = {
        "type": "object",
        "properties": words,
        "additionalProperties": False,
        "minProperties": 1,
        "maxProperties": 1,
    }
    return {"if": condition, "then": distribution, "else": value}


def _range(end: Schema, *step: Schema) -> Schema:
    return {"type": "array", "items": [end, end, *step], "minItems": 2, "maxItems": 2 + len(step)}


def main() -> None:
    """Write the schema beside the ready-made spaces."""
    (READY_MADE / "schema.json").write_text(json.dumps(schema(), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
