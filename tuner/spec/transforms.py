"""The transforms of `data.augment` by name: a section class each, made when one is asked for.

Albumentations' own transforms come from transforms.json (name -> argument -> [type, default]; no default: required),
as importing the library takes 2.5 s. `python -m tuner.training.catalogue` writes it; a test holds the two together.
"""

from __future__ import annotations

import json
import types
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Union

from pydantic import Field, create_model, model_validator

from tuner.spec.section import Items, Section, Share

P = "probability"
LIBRARY = Path(__file__).with_name("transforms.json")
INTERPOLATIONS = {
    "nearest": 0,
    "linear": 1,
    "cubic": 2,
    "area": 3,
    "lanczos4": 4,
    "linear_exact": 5,
    "nearest_exact": 6,
}
"""OpenCV's numbers, which Albumentations takes."""
BORDERS = {"constant": 0, "replicate": 1, "reflect": 2, "wrap": 3, "reflect_101": 4}


class HorizontalFlip(Section):
    """Mirrors an image left to right; with alternate each image in every other epoch, for some from the first on."""

    p: Share = Field(0.5, description=P)
    alternate: bool = Field(False, description="every image in every other epoch, instead of by chance")

    @model_validator(mode="after")
    def _one_rule(self) -> HorizontalFlip:
        if self.alternate and self.p != 0.5:
            raise ValueError("alternate flips each image in every other epoch; leave p out")
        return self


class RandomCrop(Section):
    """Pads by `padding` pixels of the mean colour on each side and crops back to size, per image."""

    padding: int = Field(4, ge=1, description="pixels of padding on each side")
    p: Share = Field(1.0, description=P)


class TrivialAugment(Section):
    """One of fourteen transforms at a random strength for each image (arXiv 2103.10158), by torchvision."""

    num_magnitude_bins: int = Field(31, ge=2, description="number of strengths")
    interpolation: Literal["nearest", "linear"] = Field("nearest", description="of what turns or shears")
    p: Share = Field(1.0, description=P)


class RandAugment(Section):
    """`num_ops` random transforms of one strength for each image (arXiv 1909.13719), by torchvision."""

    num_ops: int = Field(2, ge=1, description="transforms an image")
    magnitude: int = Field(9, ge=0, description="strength, below num_magnitude_bins")
    num_magnitude_bins: int = Field(31, ge=2, description="number of strengths")
    interpolation: Literal["nearest", "linear"] = Field("nearest", description="of what turns or shears")
    p: Share = Field(1.0, description=P)

    @model_validator(mode="after")
    def _a_strength_that_exists(self) -> RandAugment:
        if self.magnitude >= self.num_magnitude_bins:
            raise ValueError(
                f"magnitude must be below num_magnitude_bins, got {self.magnitude} and {self.num_magnitude_bins}"
            )
        return self


class Normalize(Section):
    """What every batch gets at the end anyway, validation as well; data.normalize says by which mean and deviation."""


class FlipCrop(Section):
    """Preset: HorizontalFlip for half of the images, RandomCrop of each, the usual pair for small photographs."""

    padding: int = Field(4, ge=1, description="pixels of padding on each side")


class Standard(Section):
    """Preset: HorizontalFlip, ShiftScaleRotate with a black border, CoarseDropout with one square hole, Normalize."""

    flip: Share = Field(0.5, description="probability of the flip")
    shift_limit: float = Field(0.1, ge=0, le=1, description="greatest shift, as a share of the side")
    scale_limit: float = Field(0.1, ge=0, lt=1, description="greatest change of the scale")
    rotate_limit: float = Field(15, ge=0, le=180, description="greatest angle in degrees")
    p: Share = Field(0.5, description="probability of shift, scale and rotation")
    hole: float = Field(0.5, gt=0, lt=1, description="side of the hole, as a share of the image's")
    hole_p: Share = Field(0.5, description="probability of the hole")


class Axes(Section):
    """Limits for each axis: a number or a pair."""

    x: Annotated[tuple[float, float], Items] | float
    y: Annotated[tuple[float, float], Items] | float


OURS: dict[str, type[Section]] = {
    "HorizontalFlip": HorizontalFlip,
    "RandomCrop": RandomCrop,
    "TrivialAugment": TrivialAugment,
    "RandAugment": RandAugment,
    "Normalize": Normalize,
}
PRESETS: dict[str, type[Section]] = {"flip_crop": FlipCrop, "standard": Standard}
ALIASES = {"RandomErasing": "Erasing"}

_SIZE = "changes the size of the images, which a network takes at one size; data.image_size sets it"
_SAME_SIZE = f"{_SIZE}; RandomResizedCrop and RandomCrop give the same size back"
_BOXES = "needs boxes, masks or keypoints, which images for classification do not have"
_OTHERS = "needs other images or texts beside the one it changes; train.mixup and train.cutmix mix images"
_VOLUME = "is for volumes, not for images"
_BYTES = "changes the type of the values; images are normalised and become tensors anyway, data.normalize says how"
REFUSED = {
    **dict.fromkeys(("CenterCrop", "Crop", "RandomCropFromBorders"), _SAME_SIZE),
    **dict.fromkeys(("LongestMaxSize", "Pad", "PadIfNeeded", "RandomScale", "Resize", "SmallestMaxSize"), _SIZE),
    **dict.fromkeys(("AtLeastOneBBoxRandomCrop", "BBoxSafeRandomCrop", "ConstrainedCoarseDropout"), _BOXES),
    **dict.fromkeys(("CropNonEmptyMaskIfExists", "MaskDropout", "RandomCropNearBBox"), _BOXES),
    "RandomSizedBBoxSafeCrop": _BOXES,
    **dict.fromkeys(("FDA", "HistogramMatching", "Mosaic", "OverlayElements"), _OTHERS),
    **dict.fromkeys(("PixelDistributionAdaptation", "TextImage"), _OTHERS),
    **dict.fromkeys(("CenterCrop3D", "CoarseDropout3D", "CubicSymmetry", "Pad3D", "PadIfNeeded3D"), _VOLUME),
    "RandomCrop3D": _VOLUME,
    **dict.fromkeys(("FromFloat", "ToFloat", "ToTensor3D", "ToTensorV2"), _BYTES),
    "ToRGB": "changes the number of channels; data.channels: 3 gives every image three",
    "Lambda": "takes code of your own, which a space file cannot hold",
}
"""Transforms of Albumentations that cannot be used here, and why."""

# What a bare number M stands for: around 0 it is -M to M, around 1 it is 1 - M to 1 + M (grammar R10). Albumentations
# reads all of these so but those of Affine, where a bare number is one fixed value: rotate=15 always turns by +15.
AROUND: dict[str, dict[str, int]] = {
    "Affine": {"scale": 1, "translate_percent": 0, "translate_px": 0, "rotate": 0, "shear": 0},
    "ShiftScaleRotate": dict.fromkeys(
        ("shift_limit", "shift_limit_x", "shift_limit_y", "scale_limit", "rotate_limit"), 0
    ),
    "Rotate": {"limit": 0},
    "RandomBrightnessContrast": {"brightness_limit": 0, "contrast_limit": 0},
    "ColorJitter": {"brightness": 1, "contrast": 1, "saturation": 1, "hue": 0},
}


@cache
def library() -> Mapping[str, Mapping[str, list[Any]]]:
    """Albumentations' transforms: name -> argument -> [type, default]."""
    found: dict[str, dict[str, list[Any]]] = json.loads(LIBRARY.read_text(encoding="utf-8"))
    return found


def names() -> tuple[str, ...]:
    """Everything that may stand in data.augment."""
    return (*PRESETS, *sorted({*OURS, *ALIASES, *library()}))


@cache
def section_of(name: str) -> type[Section] | None:
    """The class of a transform's arguments; None where there is no such transform."""
    if name in ALIASES:
        return section_of(ALIASES[name])
    if name in OURS or name in PRESETS:
        return OURS.get(name) or PRESETS[name]
    written = library().get(name)
    if written is None:
        return None
    around = AROUND.get(name, {})
    fields: dict[str, Any] = {}
    for argument, (kind, *default) in written.items():
        about: dict[str, Any] = {"ge": 0, "le": 1, "description": P} if argument == "p" else {}
        if argument in around:
            about["description"] = "a pair, or M for " + ("1 - M to 1 + M" if around[argument] else "-M to M")
        annotation = _type_of(kind, below=1 if (name, argument) == ("Affine", "scale") else None)
        fields[argument] = (annotation, Field(*map(_frozen, default), **about))
    return create_model(name, __base__=Section, __doc__=f"Albumentations' {name}.", **fields)


def arguments_of(name: str, section: Section) -> dict[str, Any]:
    """The arguments as Albumentations takes them: limits as pairs, OpenCV's numbers for words."""
    around = AROUND.get(name, {})
    found = {}
    for argument in type(section).model_fields:
        value = getattr(section, argument)
        if isinstance(value, Axes):
            value = {axis: _pair(getattr(value, axis), around[argument]) for axis in ("x", "y")}
        elif argument in around:
            value = _pair(value, around[argument])
        found[argument] = _numbered(argument, value)
    return found


def _pair(value: Any, around: int) -> Any:
    if not isinstance(value, int | float):
        return value
    return (max(1 - value, 0), 1 + value) if around else (-value, value)


def _numbered(argument: str, value: Any) -> Any:
    if isinstance(value, dict) and "interpolation" in argument:
        return {key: _numbered(argument, inner) for key, inner in value.items()}
    words = INTERPOLATIONS if "interpolation" in argument else BORDERS if argument == "border_mode" else {}
    return words.get(value, value) if isinstance(value, str) else value


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


_PLAIN: dict[str, Any] = {"int": int, "float": float, "bool": bool, "str": str, "null": None, "dict": dict[str, Any]}


def _type_of(kind: str, *, below: float | None) -> Any:
    """`float*2 | float`: a pair or a number; `float*`: any number of them; `axes`: x and y; else words."""
    kinds: dict[str, Any] = {**_PLAIN, "axes": Axes}
    if below is not None:
        kinds["float"] = Annotated[float, Field(lt=below)]
    parts: list[Any] = []
    words: list[str] = []
    for part in kind.split(" | "):
        base, star, count = part.partition("*")
        if base not in kinds:
            words.append(base)
        elif star:
            items = (_PLAIN[base],) * int(count) if count else (_PLAIN[base], ...)
            parts.append(Annotated[types.GenericAlias(tuple, items), Items])
        else:
            parts.append(kinds[base])
    if words:
        parts.append(Literal[tuple(words)])
    return Union[tuple(parts)]  # noqa: UP007  the parts are only known now
