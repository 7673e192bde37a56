"""Transforms applied to one image at a time by the libraries that have them: Albumentations and torchvision.

Between 1,000 and 30,000 images/s on one core at 32 x 32. Importing Albumentations takes 2.5 s, so only a trial that
needs it, and the check before a run, do.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor

from tuner.errors import BadInput, Problem
from tuner.spec.augment import Augment
from tuner.spec.section import Section
from tuner.spec.transforms import OURS, PRESETS, RandomCrop, arguments_of
from tuner.spec.words import shown
from tuner.training.transforms import Draw, fill_of

BY_TORCHVISION = ("TrivialAugment", "RandAugment")
SIZED = ("RandomResizedCrop", "RandomSizedCrop")  # they are told the size to give


@cache
def albumentations() -> Any:
    """The library, imported quietly and without asking the network for a newer version of itself."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import albumentations as library
        import cv2
    cv2.setNumThreads(1)  # a trial has its own cores; threads of OpenCV would take its neighbours'
    return library


class PerImage:
    """One transform of Albumentations or torchvision as a step of a batch.

    Each transform has a seed of its own for each batch: Albumentations' Compose gives one seed to all of its
    transforms, whose draws then go together: of two at p 0.5 both are applied or none.
    """

    def __init__(self, name: str, section: Section, image_size: int, channels: int) -> None:
        self.transform = None if name in BY_TORCHVISION else _make(name, section, image_size, channels)
        self.of_tensors = _of_torchvision(name, section) if name in BY_TORCHVISION else None

    def __call__(self, values: Tensor, draw: Draw) -> Tensor:
        """Bytes of the same shape (N, S, S, C) on the same device."""
        seed = int(torch.randint(2**31, (), generator=draw.generator, device=draw.generator.device))
        if values.is_floating_point():
            values = values.round().clamp_(0, 255).to(torch.uint8)
        images = values.cpu()
        if self.transform is None:
            assert self.of_tensors is not None
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(seed)
                changed = [self.of_tensors(image.permute(2, 0, 1)).permute(1, 2, 0) for image in images]
            return torch.stack(changed).to(values.device)
        self.transform.set_random_seed(seed)
        made = _apply(self.transform, images.numpy())
        return torch.from_numpy(np.stack(made)).to(values.device)


def check(augment: Augment, image_size: int, channels: int) -> None:
    """Tries each of Albumentations' transforms on one image, with presets taken to be right.

    Raises:
        BadInput: an argument's value, by its path, or a transform that does not work on such images; all at once.
    """
    problems = [
        Problem("", 0, 0, f"data.augment.{name}{what}")
        for name, section in augment.named
        if name not in OURS and name not in PRESETS
        for what in _wrong(name, section, image_size, channels)
    ]
    for name, section in augment.transforms:
        if isinstance(section, RandomCrop) and section.padding > image_size // 2:
            rule = f"{section.padding} pixels on images of {image_size} x {image_size} leave little of them"
            problems.append(Problem("", 0, 0, f"data.augment.{name}.padding: {rule}; write at most {image_size // 2}"))
    if problems:
        raise BadInput(problems)


def _wrong(name: str, section: Section, image_size: int, channels: int) -> Iterator[str]:
    """What is wrong with one transform, each as the rest of a sentence that begins with its path."""
    try:
        transform = _make(name, section, image_size, channels)
    except ValueError as error:
        # The library puts the text of pydantic's error into one of its own.
        cause = error if isinstance(error, ValidationError) else error.__context__
        if not isinstance(cause, ValidationError):
            yield f": {_one_line(error)}"
            return
        for e in cause.errors():
            argument = str(e["loc"][0]) if e["loc"] else ""
            known = argument in type(section).model_fields
            got = f", got {shown(getattr(section, argument))}" if known else ""
            place = f".{argument}" if known else f": {argument}" if argument else ""
            yield f"{place}: {_one_line(e['msg'])}{got}"
        return
    image = np.random.default_rng(0).integers(0, 256, (image_size, image_size, channels), dtype=np.uint8)
    transform.set_random_seed(0)
    transform.p = 1.0
    try:
        (made,) = _apply(transform, image[None])
    except Exception as error:  # whatever the library raises: the user learns what it says
        yield f": does not work on images of {image_size} x {image_size} x {channels}: {_one_line(error)}"
        return
    if made.shape != image.shape or made.dtype != image.dtype:
        yield f": makes {made.dtype} images of {made.shape} of {image.dtype} ones of {image.shape}"


def _one_line(text: object) -> str:
    words = " ".join(str(text).removeprefix("Value error, ").split()).rstrip(".")
    return words if words[:2].isupper() else words[:1].lower() + words[1:]


def _make(name: str, section: Section, image_size: int, channels: int) -> Any:
    name = "Erasing" if name == "RandomErasing" else name
    arguments = arguments_of(name, section)
    if isinstance(fill := arguments.get("fill"), tuple):
        arguments["fill"] = tuple(fill_of(fill, channels, torch.device("cpu")).tolist())
    if name in SIZED:
        arguments["size"] = (image_size, image_size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # such as that ShiftScaleRotate is an Affine
        return getattr(albumentations(), name)(**arguments)


def _apply(transform: Any, images: Any) -> list[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # such as that grey images have no hue
        made = [transform(image=image)["image"] for image in images]
    # Some leave out the last axis of grey images.
    return [
        new.reshape(image.shape) if new.size == image.size else new for new, image in zip(made, images, strict=True)
    ]


def _of_torchvision(name: str, section: Any) -> Any:
    from torchvision.transforms import InterpolationMode, v2

    mode = InterpolationMode.NEAREST if section.interpolation == "nearest" else InterpolationMode.BILINEAR
    options = section.model_dump(exclude={"p", "interpolation"})
    cls = v2.TrivialAugmentWide if name == "TrivialAugment" else v2.RandAugment
    return v2.RandomApply([cls(interpolation=mode, **options)], p=section.p)
