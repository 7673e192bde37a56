"""Source: what the changes of the training images are, for the template that writes them out."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from tuner.errors import BadInput
from tuner.spec.augment import Augment
from tuner.spec.transforms import arguments_of
from tuner.training.augment import Augmenter
from tuner.training.per_image import PerImage
from tuner.training.transforms import PADDING, Affine, Crop, Flip, Gather, Holes, Jitter, fill_of

Step = dict[str, Any]
WAYS = ("mirrored", "turned_over")
CPU = torch.device("cpu")


class _Bare:
    """All that an Augmenter asks of images before it sees some."""

    device = CPU

    def __init__(self, size: int, channels: int) -> None:
        self.shape = (size, size, channels)
        self.colour = torch.zeros(channels)


def write_steps(augment: Augment, colour: tuple[int, ...], size: int) -> list[Step]:
    """What the template needs of each change of a batch, in their order; colour: of the borders of crops.

    Raises:
        BadInput: holes that no image has room for.
    """
    bare: Any = _Bare(size, len(colour))
    holes = iter([item for item in augment.transforms if item[0] in ("CoarseDropout", "Erasing")])
    steps: list[Step] = []
    for step in Augmenter(augment, bare).steps:
        match step:
            case Gather():
                made = _gather(step, colour)
            case Affine():
                made = _affine(step)
            case Holes():
                made = _holes(*next(holes), size=size, channels=len(colour))
            case Jitter():
                made = {"kind": "jitter", "shares": tuple(round(v, 6) for v in step.shares.tolist()), **_ends(step)}
                made["about"] = "Change brightness and contrast by factors."
            case _:
                made = {"kind": "brightness_contrast", "by_max": getattr(step, "by_max", True), **_ends(step)}
                made["about"] = "Change contrast and brightness."
        name = made.get("name", made["kind"])
        times = sum(1 for known in steps if re.sub(r"_\d+$", "", known["name"]) == name)
        steps.append({"alternate": False, **made, "name": f"{name}_{times + 1}" if times else name})
    return steps


def _ends(step: Any) -> Mapping[str, Any]:
    return {"brightness": step.brightness, "contrast": step.contrast, "p": step.p}


def alternates(augment: Augment) -> bool:
    """Whether a flip goes by the places of the images among all."""
    return any(getattr(section, "alternate", False) for _, section in augment.transforms)


def find_helpers(steps: Sequence[Step]) -> set[str]:
    """The draws that these changes make."""
    found: set[str] = set()
    for step in steps:
        if step["kind"] == "gather":
            drawn = [part for part in step["parts"] if not part.get("alternate")]
            found |= {"chance"} if drawn else set()
            found |= {"whole"} if any(part["kind"] == "crop" for part in drawn) else set()
        elif step["kind"] == "holes":
            found |= {"chance", "whole", "uniform"}
        else:
            found |= {"chance", "uniform"} | ({"whole"} if step.get("pixels") else set())
    return found


def _flip(flip: Flip) -> Step:
    return {"kind": "flip", "axis": flip.axis, "p": flip.p, "alternate": flip.alternate, "name": WAYS[flip.axis]}


def _gather(step: Gather, colour: tuple[int, ...]) -> Step:
    parts = []
    for part in step.parts:
        if isinstance(part, Crop):
            parts.append({"kind": "crop", "padding": part.padding, "p": part.p, "colour": colour, "name": "crop"})
        else:
            parts.append(_flip(part))
    words = {"mirrored": "mirror left to right", "turned_over": "mirror top to bottom", "crop": "shift"}
    about = ", then ".join(words[str(part["name"])] for part in parts)
    if any(part["kind"] == "crop" for part in parts):
        about += ", the mean colour at the border"
    kinds = dict.fromkeys("crop" if part["kind"] == "crop" else "flip" for part in parts)
    alternate = any(part.get("alternate") for part in parts)
    name = "_and_".join("shift" if kind == "crop" else kind for kind in kinds)
    return {
        "kind": "gather",
        "name": name,
        "parts": parts,
        "alternate": alternate,
        "about": f"{about[0].upper()}{about[1:]}.",
    }


def _affine(step: Affine) -> Step:
    mode, corners = PADDING[step.border]
    shears = [None if tuple(ends) == (0, 0) else ends for ends in step.limits.shear]
    flips = [{**_flip(flip), "before": True} for flip in step.before]
    flips += [{**_flip(flip), "before": False} for flip in step.after]
    return {
        "kind": "affine",
        "name": "affine",
        "about": f"{'Mirror, scale' if flips else 'Scale'}, turn and move each image about its centre, bilinear.",
        "limits": step.limits,
        "shears": list(zip("xy", shears, strict=True)) if any(shears) else [],
        "shifts": list(zip("xy", step.limits.shift, strict=True)),
        "pixels": step.limits.pixels,
        "p": step.p,
        "mode": mode,
        "corners": corners,
        "fill": None if step.fill is None else tuple(step.fill.tolist()),
        "flips": flips,
        "alternate": any(flip["alternate"] for flip in flips),
    }


def _holes(name: str, section: Any, *, size: int, channels: int) -> Step:
    arguments = arguments_of(name, section)
    fill = tuple(int(value) for value in fill_of(section.fill, channels, CPU).round().byte().tolist())
    made: Step = {"kind": "holes", "name": "cut_holes", "p": arguments["p"], "fill": fill, "area": None}
    made["about"] = "Fill rectangles of each image with a colour."
    if name == "CoarseDropout":
        height, width = arguments["hole_height_range"], arguments["hole_width_range"]
        if in_pixels := height[1] >= 1:
            height, width = ((int(ends[0]), int(min(ends[1], size))) for ends in (height, width))
        return {**made, "count": arguments["num_holes_range"], "pixels": in_pixels, "height": height, "width": width}
    (low, high), (narrow, wide) = arguments["scale"], arguments["ratio"]
    total = size * size
    most = min(total * high, total * narrow, total * wide, total / narrow, total / wide)
    if most < total * low:
        raise BadInput(f"data.augment.{name}: no hole of these sizes fits images of {size} pixels; leave it out")
    return {**made, "count": (1, 1), "pixels": False, "area": (total * low, most), "ratio": (narrow, wide)}


def find_foreign(augment: Augment) -> Iterator[str]:
    """Names of the changes that work image by image, through another library."""
    bare: Any = _Bare(32, 3)
    for name, section in augment.transforms:
        alone = Augment.model_validate({name: section.model_dump(mode="json")})
        if any(isinstance(step, PerImage) for step in Augmenter(alone, bare).steps):
            yield name
