"""Augmenter: the transforms of `data.augment` applied to batches, in the order of the file, normalised at the end.

The common transforms are tensor code for a whole batch (transforms.py), the rest is applied image by image
(per_image.py). Every image has its own draw: torchvision's transforms on a batch draw once for all of it.
benchmarks/input_path.py measures it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tuner.spec.augment import Augment
from tuner.spec.transforms import arguments_of
from tuner.training.images import Images
from tuner.training.per_image import PerImage
from tuner.training.transforms import (
    GREY,
    PADDING,
    Affine,
    BrightnessContrast,
    Crop,
    Draw,
    Flip,
    Gather,
    Jitter,
    Limits,
    Step,
    coarse_dropout,
    erasing,
    fill_of,
)

MOST_HOLES = 16  # each is a pass over the batch; with more, image by image is as fast


class Augmenter:
    """Draws from the generator alone, so that a trial that goes on after an interruption draws as if there was none.

    An alternating flip mirrors each image in every other epoch; in which ones is drawn from the generator's seed.
    """

    def __init__(self, augment: Augment, images: Images) -> None:
        self.images = images
        parts = [_part(name, section, images) for name, section in augment.transforms if name != "Normalize"]
        self.steps = tuple(_together(parts))
        self.alternates = any(isinstance(part, Flip) and part.alternate for part in parts)
        self._states: tuple[int, Tensor] | None = None

    def __call__(
        self, pixels: Tensor, generator: torch.Generator, *, index: Tensor | None = None, epoch: int = 0
    ) -> Tensor:
        """Normalised images (N, C, S, S), channels last, of bytes (N, S, S, C), each changed by draws of its own.

        index: which images they are (N,), epoch: from 0; only an alternating flip needs them.
        """
        odd = None
        if self.alternates and index is not None:
            odd = (self._first_states(generator)[index] + epoch) % 2 == 1
        draw = Draw(generator, odd)
        values = pixels
        for step in self.steps:
            values = step(values, draw)
        return self.images.normalise(values)

    def _first_states(self, generator: torch.Generator) -> Tensor:
        """1 for images that an alternating flip mirrors in the even epochs; a resumed generator has the same seed."""
        seed = generator.initial_seed()
        if self._states is None or self._states[0] != seed:
            drawn = torch.randint(0, 2, (len(self.images),), generator=torch.Generator().manual_seed(seed))
            self._states = seed, drawn.to(self.images.device)
        return self._states[1]


def _together(parts: Iterable[Flip | Crop | Step]) -> Iterator[Step]:
    """One step for what is one gather or one resampling: flips, with the crop or the affine transform beside them."""
    run: list[Any] = []
    for part in parts:
        geometry = isinstance(part, Flip | Crop | Affine)
        if run and not (geometry and (isinstance(part, Flip) or all(isinstance(p, Flip) for p in run))):
            yield _one(run)
            run = []
        if geometry:
            run.append(part)
        else:
            assert not isinstance(part, Flip | Crop)
            yield part
    if run:
        yield _one(run)


def _one(run: list[Any]) -> Step:
    for number, part in enumerate(run):
        if isinstance(part, Affine):
            return replace(part, before=tuple(run[:number]), after=tuple(run[number + 1 :]))
    return Gather(tuple(run))


def _part(name: str, section: Any, images: Images) -> Flip | Crop | Step:
    """The batched form of a transform, or else the library's own."""
    arguments = arguments_of(name, section)
    channels, device = images.shape[2], images.device
    match name:
        case "HorizontalFlip":
            return Flip(0, section.p, section.alternate)
        case "VerticalFlip":
            return Flip(1, section.p)
        case "RandomCrop":
            return Crop(section.padding, section.p, images.colour)
        case "Affine" | "ShiftScaleRotate" | "Rotate":
            if section.interpolation == "linear" and section.border_mode in PADDING and not _balanced(section):
                fill = fill_of(section.fill, channels, device) if np.any(section.fill) else None
                return Affine(_limits(name, arguments), section.p, section.border_mode, fill)
        case "CoarseDropout" | "Erasing":
            if not isinstance(section.fill, str) and arguments.get("num_holes_range", (1, 1))[1] <= MOST_HOLES:
                make = coarse_dropout if name == "CoarseDropout" else erasing
                return make(arguments, fill_of(section.fill, channels, device))
        case "RandomBrightnessContrast":
            if not section.ensure_safe_range:
                limits = arguments["brightness_limit"], arguments["contrast_limit"]
                return BrightnessContrast(*limits, section.brightness_by_max, section.p)
        case "ColorJitter":
            if arguments["saturation"] == (1, 1) and arguments["hue"] == (0, 0):
                shares = torch.tensor(GREY if channels == 3 else (1.0,), device=device)
                return Jitter(arguments["brightness"], arguments["contrast"], section.p, shares)
    return PerImage(name, section, images.shape[0], channels)


def _balanced(section: Any) -> bool:
    return bool(getattr(section, "balanced_scale", False))


def _limits(name: str, arguments: dict[str, Any]) -> Limits:
    """What an affine transform draws between, of the arguments of the three that there are."""
    if name == "Rotate":
        return Limits(rotate=arguments["limit"])
    if name == "ShiftScaleRotate":
        both = arguments["shift_limit"]
        shift = tuple(both if own is None else own for own in (arguments["shift_limit_x"], arguments["shift_limit_y"]))
        low, high = arguments["scale_limit"]
        return Limits(shift, scale=((1 + low, 1 + high),) * 2, rotate=arguments["rotate_limit"])
    pixels = arguments["translate_px"]
    share = arguments["translate_percent"]
    return Limits(
        shift=_axes((0, 0) if pixels is None and share is None else share if pixels is None else pixels),
        pixels=pixels is not None,
        scale=_axes(arguments["scale"]),
        same_scale=arguments["keep_ratio"],
        rotate=arguments["rotate"],
        shear=_axes(arguments["shear"]),
    )


def _axes(value: Any) -> Any:
    return (value["x"], value["y"]) if isinstance(value, dict) else (value, value)
