"""The fields of `data.augment`: transforms of the training images by name, and presets."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field, model_validator

from tuner.spec.section import Section


class Flip(Section):
    """Mirrors an image left to right with probability p."""

    p: float = Field(0.5, ge=0, le=1, description="probability")


class Crop(Section):
    """Pads by `padding` pixels on each side (zeros after normalisation) and crops back to size, per image."""

    padding: int = Field(4, ge=1, description="pixels of padding on each side")
    p: float = Field(1.0, ge=0, le=1, description="probability")


class FlipCrop(Section):
    """The usual pair for small photographs: a flip for half of the images, a crop of each."""

    padding: int = Field(4, ge=1, description="pixels of padding on each side")


# A bare word instead of a mapping of transforms (grammar R10); with magnitudes: {flip_crop: {padding: 2}}.
AUGMENT_PRESETS: dict[str, dict[str, dict[str, Any]]] = {"none": {}, "flip_crop": {"flip_crop": {}}}


class Augment(Section):
    """Augmentation of the training images, transforms by name; null means not used."""

    # A bare word instead of the mapping stands for one of these.
    presets: ClassVar[dict[str, dict[str, dict[str, Any]]]] = AUGMENT_PRESETS

    HorizontalFlip: Flip | None = Field(None, description="mirror left to right")
    RandomCrop: Crop | None = Field(None, description="pad, then crop back to size")
    flip_crop: FlipCrop | None = Field(None, description="preset: both of them")

    @model_validator(mode="after")
    def _not_twice(self) -> Augment:
        if self.flip_crop and (self.HorizontalFlip or self.RandomCrop):
            raise ValueError("flip_crop flips and crops already; write either the preset or its transforms")
        return self

    @property
    def flip(self) -> Flip | None:
        """The flip to apply, whoever asked for it."""
        return Flip() if self.flip_crop else self.HorizontalFlip

    @property
    def crop(self) -> Crop | None:
        """The crop to apply, whoever asked for it."""
        return Crop(padding=self.flip_crop.padding) if self.flip_crop else self.RandomCrop
