"""Section: the base of all classes of a space file, and the types that their fields share."""

from __future__ import annotations

import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo

# YAML gives lists; strict mode would want tuples. Items stay strict: "3" is no number, true is no 1.
Items = Field(strict=False)
Fraction = Annotated[float, Field(ge=0, lt=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Rate = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
# One value for all blocks, or one a block (grammar R5).
PER_BLOCK: dict[str, Any] = {"per_block": True}

# Code of the user's own, by module and function.
USER_CODE = r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$"


class Section(BaseModel):
    """Base of all sections: frozen, strict types, no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, protected_namespaces=())

    @classmethod
    def field(cls, name: str) -> FieldInfo | None:
        """The field of this name, None where there is none; overridden where they are too many to be written down."""
        if cls.model_config.get("extra") == "allow":
            return cls.model_fields.get(name, ANYTHING)
        return cls.model_fields.get(name)

    @classmethod
    def known(cls) -> tuple[str, ...]:
        """Names of its fields."""
        return tuple(cls.model_fields)


ANYTHING = FieldInfo(annotation=Any)
"""An argument of the user's own code."""


UNIONS = (Union, types.UnionType)


def sections_of(annotation: Any) -> tuple[type[Section], ...]:
    """The section classes that a field of this type may hold."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return (annotation,)
    if get_origin(annotation) is Annotated:
        return sections_of(get_args(annotation)[0])
    if get_origin(annotation) in UNIONS:
        return tuple(cls for part in get_args(annotation) for cls in sections_of(part))
    return ()


def listed_sections_of(annotation: Any) -> tuple[type[Section], ...]:
    """The section classes of the items of a field that takes a list of sections."""
    if get_origin(annotation) is Annotated:
        return listed_sections_of(get_args(annotation)[0])
    if get_origin(annotation) in UNIONS:
        return tuple(cls for part in get_args(annotation) for cls in listed_sections_of(part))
    return sections_of(get_args(annotation)[0]) if get_origin(annotation) is tuple else ()


def kinds_of(annotation: Any) -> dict[str, type[Section]]:
    """The kinds of a section that comes in kinds, by `name`; empty for any other field."""
    kinds = {}
    for cls in sections_of(annotation):
        name = cls.model_fields.get("name")
        if name is not None and get_origin(name.annotation) is Literal:
            kinds.update(dict.fromkeys(get_args(name.annotation), cls))
    return kinds


def open_kind_of(annotation: Any) -> type[Section] | None:
    """Of a section that comes in kinds the one for the user's own code, whose `name` is module:function."""
    named = (cls for cls in sections_of(annotation) if "name" in cls.model_fields)
    return next((cls for cls in named if get_origin(cls.model_fields["name"].annotation) is not Literal), None)
