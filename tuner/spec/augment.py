"""`data.augment`: transforms of the training images by name, in the order of the file, and presets of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, TypeAlias

from pydantic import (
    ModelWrapValidatorHandler,
    PrivateAttr,
    SerializationInfo,
    ValidationError,
    model_serializer,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import InitErrorDetails, PydanticCustomError

from tuner.spec.nearest import nearest
from tuner.spec.section import ANYTHING, Section
from tuner.spec.transforms import (
    ALIASES,
    PRESETS,
    REFUSED,
    FlipCrop,
    HorizontalFlip,
    RandomCrop,
    Standard,
    names,
    section_of,
)

Named: TypeAlias = tuple[tuple[str, Section], ...]

# A bare word instead of a mapping of transforms (grammar R10); with magnitudes: {flip_crop: {padding: 2}}.
AUGMENT_PRESETS: dict[str, dict[str, dict[str, Any]]] = {"none": {}, **{name: {name: {}} for name in PRESETS}}

# Of CIFAR-10, as the recipe that `standard` repeats fills its hole.
MEAN_COLOUR = (125, 123, 114)


class Augment(Section):
    """Augmentation of the training images: transforms by name in the order they are applied; null means not used.

    Which there are is `known()`; each has a class of its own, `field(name)`, made when the file names it. A transform
    is an attribute too, None where it is not used: `augment.HorizontalFlip.p`.
    """

    # A bare word instead of the mapping stands for one of these.
    presets: ClassVar[dict[str, dict[str, dict[str, Any]]]] = AUGMENT_PRESETS

    _named: Named = PrivateAttr(())

    @classmethod
    def field(cls, name: str) -> FieldInfo | None:
        """The field of a transform. One that cannot be used takes anything and is refused with its reason later."""
        section = section_of(name)
        if section is None:
            return ANYTHING if name in REFUSED else None
        about = (section.__doc__ or "").partition("\n")[0]
        return FieldInfo(annotation=section | bool | None, default=None, description=about)  # type: ignore[arg-type]

    @classmethod
    def known(cls) -> tuple[str, ...]:
        """The transforms and presets there are."""
        return names()

    @classmethod
    def model_json_schema(cls, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Schema of the mapping, a property for each transform."""
        properties = {}
        for name in names():
            info = cls.field(name)
            assert info is not None
            options = [{"$ref": f"#/$defs/{_class(name).__name__}"}, {"type": "boolean"}, {"type": "null"}]
            properties[name] = {"anyOf": options, "default": None, "description": info.description}
        return {"type": "object", "description": cls.__doc__, "properties": properties, "additionalProperties": False}

    @property
    def named(self) -> Named:
        """What the file names and uses, in order."""
        return self._named

    @property
    def transforms(self) -> Named:
        """What is applied, in order: presets written out, aliases under Albumentations' name."""
        return tuple(step for name, section in self._named for step in _written_out(name, section))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or section_of(name) is None:
            return super().__getattr__(name)  # type: ignore[misc]
        return dict(self._named).get(name)

    def __reduce__(self) -> Any:
        # The classes of the transforms are made when asked for, so pickle does not find them by name.
        return type(self).model_validate, (self.model_dump(mode="json"),)

    @model_validator(mode="wrap")
    @classmethod
    def _read(cls, value: Any, handler: ModelWrapValidatorHandler[Augment]) -> Augment:
        if not isinstance(value, Mapping):
            return handler(value)
        errors: list[InitErrorDetails] = []
        named = []
        for name, written in value.items():
            if written is None or written is False:
                _check_known(name, written, errors)
                continue
            section = _checked(name, {} if written is True else written, errors)
            if section is not None:
                named.append((name, section))
        _check_together(tuple(named), value, errors)
        if errors:
            raise ValidationError.from_exception_data(cls.__name__, errors)
        made = handler({})
        made._named = tuple(named)
        return made

    @model_serializer
    def _write(self, info: SerializationInfo) -> dict[str, Any]:
        return {name: section.model_dump(mode=info.mode) for name, section in self._named}


def _class(name: str) -> type[Section]:
    section = section_of(name)
    assert section is not None
    return section


def _checked(name: str, written: Any, errors: list[InitErrorDetails]) -> Section | None:
    """The arguments of one transform; what is wrong with them joins the errors."""
    if not _check_known(name, written, errors):
        return None
    try:
        return _class(name).model_validate(written)
    except ValidationError as error:
        for e in error.errors(include_url=False):
            about = InitErrorDetails(type=e["type"], loc=(name, *e["loc"]), input=e["input"], ctx=e.get("ctx", {}))
            errors.append(about)
        return None


def _check_known(name: str, written: Any, errors: list[InitErrorDetails]) -> bool:
    if section_of(name) is not None:
        return True
    if name in REFUSED:
        what = REFUSED[name]
    else:
        near = nearest(name, names())
        what = f"no such transform: {name}" + (f"; did you mean {near}?" if near else "")
    errors.append(
        InitErrorDetails(type=PydanticCustomError("transform", "{what}", {"what": what}), loc=(name,), input=0)
    )
    return False


def _check_together(named: Named, value: Any, errors: list[InitErrorDetails]) -> None:
    """Rules across transforms: nothing twice by a preset, and nothing after what normalises."""
    wrong = ["Normalize comes last: values are bytes until then"] if "Normalize" in [n for n, _ in named[:-1]] else []
    entries: dict[str, list[str]] = {}
    for name, section in named:
        for part, _ in _written_out(name, section):
            entries.setdefault(part, []).append(name)
    for part, names_of_it in entries.items():
        presets = [name for name in names_of_it if name in PRESETS]
        if presets and len(names_of_it) > 1:
            wrong.append(f"{presets[0]} has {part} already; write either the preset or its transforms")
    for message in wrong[:1]:
        errors.append(InitErrorDetails(type="value_error", loc=(), input=value, ctx={"error": ValueError(message)}))


def _written_out(name: str, section: Section) -> Iterator[tuple[str, Section]]:
    """The transforms of a preset; of anything else itself."""
    if isinstance(section, FlipCrop):
        yield "HorizontalFlip", HorizontalFlip()
        yield "RandomCrop", RandomCrop(padding=section.padding)
    elif isinstance(section, Standard):
        limits = {key: getattr(section, key) for key in ("shift_limit", "scale_limit", "rotate_limit", "p")}
        side = (section.hole, section.hole)
        hole = {"num_holes_range": (1, 1), "hole_height_range": side, "hole_width_range": side, "fill": MEAN_COLOUR}
        yield "HorizontalFlip", HorizontalFlip(p=section.flip)
        yield "ShiftScaleRotate", _class("ShiftScaleRotate").model_validate(limits)
        yield "CoarseDropout", _class("CoarseDropout").model_validate({**hole, "p": section.hole_p})
    else:
        yield ALIASES.get(name, name), section
