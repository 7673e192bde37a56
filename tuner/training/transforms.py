"""Transforms of a whole batch in tensor code, on the training device, with draws of its own for each image.

They draw as Albumentations does (2.0.8) and give its pixels, but for rounding: values may be floats between steps.
Each maps values (N, S, S, C), bytes or floats from 0 to 255, and a `Draw` to values of the same shape.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

GREY = (0.299, 0.587, 0.114)  # red, green and blue in a grey


class Draw(NamedTuple):
    """What the draws of a batch come from; `odd` (N,) are images that an alternating flip mirrors in this epoch."""

    generator: torch.Generator
    odd: Tensor | None = None

    def uniform(self, count: int, low: float, high: float) -> Tensor:
        """(N,), even between the ends."""
        device = self.generator.device
        return torch.rand(count, generator=self.generator, device=device).mul_(high - low).add_(low)

    def whole(self, count: int, low: int, high: int) -> Tensor:
        """(N,), whole numbers, both ends included."""
        return torch.randint(low, high + 1, (count,), generator=self.generator, device=self.generator.device)

    def chance(self, count: int, p: float) -> Tensor:
        """(N,), true with probability p."""
        return torch.rand(count, generator=self.generator, device=self.generator.device) < p


Step = Callable[[Tensor, Draw], Tensor]


def fill_of(fill: float | Sequence[float], channels: int, device: torch.device) -> Tensor:
    """The colour (C,) to fill with; on grey images a colour is its grey."""
    values = [float(fill)] * channels if isinstance(fill, int | float) else list(fill)
    if channels == 1 and len(values) == 3:
        values = [sum(part * share for part, share in zip(values, GREY, strict=True))]
    return torch.tensor(values, dtype=torch.float32, device=device)


# ---------------------------------------------------------------- geometry


@dataclass(frozen=True)
class Flip:
    """Mirrors left to right (axis 0) or top to bottom (axis 1)."""

    axis: int
    p: float
    alternate: bool = False

    def mirrored(self, count: int, draw: Draw) -> Tensor:
        """Which images (N,)."""
        if self.alternate:
            assert draw.odd is not None
            return draw.odd
        return draw.chance(count, self.p)


@dataclass(frozen=True)
class Crop:
    """Pads by `padding` pixels of a colour and crops back to size."""

    padding: int
    p: float
    fill: Tensor


@dataclass(frozen=True)
class Gather:
    """Flips and at most one crop as one gather: for each pixel of the result the pixel of the padded image that lands
    there. 0.6 ms for 128 colour images at 32 x 32.
    """

    parts: tuple[Flip | Crop, ...]

    def __call__(self, values: Tensor, draw: Draw) -> Tensor:
        """The pixels that land in each place."""
        count, size, _, channels = values.shape
        # Half as many bytes as int64, the type of indices by default.
        across = down = torch.arange(size, dtype=torch.int32, device=values.device).expand(count, size)
        padding = 0
        for part in reversed(self.parts):
            if isinstance(part, Crop):
                padding = part.padding
                values = _padded(values, part)
                moved = draw.chance(count, part.p)
                across, down = (
                    positions + (draw.whole(count, -padding, padding) * moved).unsqueeze(1).int()
                    for positions in (across, down)
                )
                continue
            mirrored = part.mirrored(count, draw).unsqueeze(1)
            if part.axis == 0:
                across = torch.where(mirrored, size - 1 - across, across)
            else:
                down = torch.where(mirrored, size - 1 - down, down)
        side = size + 2 * padding
        first = torch.arange(count, dtype=torch.int32, device=values.device).unsqueeze(1) * (side * side)
        rows = first + (down + padding) * side + padding
        source = (rows.unsqueeze(2) + across.unsqueeze(1)).view(-1)
        return values.reshape(-1, channels).index_select(0, source).view(count, size, size, channels)


def _padded(values: Tensor, crop: Crop) -> Tensor:
    """Values with a border of the crop's colour, made in rows of values: a last axis of 3 takes nine times as long."""
    count, size, _, channels = values.shape
    side, edge = size + 2 * crop.padding, crop.padding * channels
    canvas = crop.fill.round().to(values.dtype).repeat(side).expand(count, side, -1).clone()
    canvas[:, crop.padding : -crop.padding, edge:-edge] = values.reshape(count, size, -1)
    return canvas.view(count, side, side, channels)


@dataclass(frozen=True)
class Limits:
    """What an affine transform draws between: shares of the side or whole pixels, factors, degrees; axes x and y."""

    shift: tuple[tuple[float, float], tuple[float, float]] = ((0, 0), (0, 0))
    pixels: bool = False
    scale: tuple[tuple[float, float], tuple[float, float]] = ((1, 1), (1, 1))
    same_scale: bool = False
    rotate: tuple[float, float] = (0, 0)
    shear: tuple[tuple[float, float], tuple[float, float]] = ((0, 0), (0, 0))


def draw_inverse(limits: Limits, count: int, size: int, draw: Draw) -> tuple[Tensor, Tensor]:
    """From a pixel of the result to where it comes from, about the centre: u = matrix (N, 2, 2) @ (v - shift (N, 2)).

    Forward, an image is scaled, turned (counterclockwise for positive degrees), sheared and shifted, in this order.
    """
    angle = draw.uniform(count, *limits.rotate) * (math.pi / 180)
    scale_x = draw.uniform(count, *limits.scale[0])
    scale_y = scale_x if limits.same_scale else draw.uniform(count, *limits.scale[1])
    shears = [draw.uniform(count, *ends) if ends != (0, 0) else None for ends in limits.shear]
    if limits.pixels:
        shift = [draw.whole(count, int(low), int(high)).float() for low, high in limits.shift]
    else:  # by whole pixels, towards zero
        shift = [(draw.uniform(count, *ends) * size).trunc() for ends in limits.shift]
    cos, sin = angle.cos(), angle.sin()
    # The inverse of turn @ scale, row by row.
    matrix = torch.stack((cos / scale_x, -sin / scale_x, sin / scale_y, cos / scale_y), 1).view(count, 2, 2)
    if shears != [None, None]:
        tan_x, tan_y = (torch.zeros_like(cos) if s is None else (-s * (math.pi / 180)).tan() for s in shears)
        one = torch.ones_like(cos)
        unsheared = torch.stack((one, -tan_x, -tan_y, one), 1).view(count, 2, 2) / (1 - tan_x * tan_y).view(-1, 1, 1)
        matrix = matrix @ unsheared
    return matrix, torch.stack(shift, 1)


# As grid_sample calls it, and whether the outermost pixels' centres are the corners.
PADDING = {"constant": ("zeros", False), "replicate": ("border", False), "reflect": ("reflection", False)}
PADDING["reflect_101"] = ("reflection", True)


@dataclass(frozen=True)
class Affine:
    """Flips before and after an affine transform and the transform itself, bilinear, as one grid_sample: 1.2 ms for
    128 colour images at 32 x 32. `fill`: colour of a constant border, None: black.
    """

    limits: Limits
    p: float
    border: str
    fill: Tensor | None
    before: tuple[Flip, ...] = ()
    after: tuple[Flip, ...] = ()

    def __call__(self, values: Tensor, draw: Draw) -> Tensor:
        """Values as floats."""
        count, size, _, _ = values.shape
        matrix, shift = draw_inverse(self.limits, count, size, draw)
        used = draw.chance(count, self.p)
        identity = torch.eye(2, device=values.device).expand(count, 2, 2)
        matrix = torch.where(used.view(-1, 1, 1), matrix, identity)
        offset = -(matrix @ (shift * used.unsqueeze(1)).unsqueeze(2)).squeeze(2)
        matrix, offset = self._flipped(matrix, offset, count, draw)
        grid = _grid(matrix, offset, size, self.border)
        mode, corners = PADDING[self.border]
        planes = values.permute(0, 3, 1, 2).float()
        if self.fill is not None:  # grid_sample's border is 0
            planes = planes - self.fill.view(-1, 1, 1)
        found = F.grid_sample(planes, grid, mode="bilinear", padding_mode=mode, align_corners=corners)
        if self.fill is not None:
            found = found + self.fill.view(-1, 1, 1)
        return found.permute(0, 2, 3, 1)

    def _flipped(self, matrix: Tensor, offset: Tensor, count: int, draw: Draw) -> tuple[Tensor, Tensor]:
        """With the flips: one before mirrors where a pixel comes from, one after where it lands."""
        for flips, is_before in ((self.before, True), (self.after, False)):
            for flip in flips:
                sign = torch.ones(count, 2, device=matrix.device)
                sign[:, flip.axis] = 1 - 2 * flip.mirrored(count, draw).float()
                matrix = matrix * sign.unsqueeze(2 if is_before else 1)
                offset = offset * sign if is_before else offset
        return matrix, offset


def _grid(matrix: Tensor, offset: Tensor, size: int, border: str) -> Tensor:
    """Where each pixel (N, S, S) comes from, x and y last, in grid_sample's units of half a side.

    By hand, as affine_grid takes 1.2 ms for 128 images at 32 x 32 and this 0.2.
    """
    corners = PADDING[border][1]
    half = (size - 1 if corners else size) / 2
    at = (torch.arange(size, device=matrix.device) - (size - 1) / 2) / half
    grid = torch.empty(len(matrix), size, size, 2, device=matrix.device)
    for axis in (0, 1):
        across = matrix[:, axis, 0, None] * at + (offset[:, axis, None] / half)
        down = matrix[:, axis, 1, None] * at
        torch.add(across.unsqueeze(1), down.unsqueeze(2), out=grid[..., axis])
    return grid


# ---------------------------------------------------------------- holes


@dataclass(frozen=True)
class Holes:
    """Fills rectangles; `sides` draws the number of holes (N,) and the height and width (N,) of the next one."""

    p: float
    fill: Tensor
    most: int
    draw_count: Callable[[int, Draw], Tensor]
    draw_sides: Callable[[int, int, Draw], tuple[Tensor, Tensor]]

    def __call__(self, values: Tensor, draw: Draw) -> Tensor:
        """Holes in the colour."""
        count, size, _, channels = values.shape
        holes = self.draw_count(count, draw) * draw.chance(count, self.p)
        # Rows of values, not of pixels, and products of bytes: a last axis of 3 is slow, and so are `&` and `where` on
        # a whole batch (0.3 ms for 128 images at 32 x 32, a product 0.05).
        down = torch.arange(size, device=values.device)
        across = down.repeat_interleave(channels)
        inside = torch.zeros(count, size, size * channels, dtype=torch.uint8, device=values.device)
        for number in range(self.most):
            exists = (holes > number).unsqueeze(1)
            ends = []
            for side, at in zip(self.draw_sides(count, size, draw), (down, across), strict=True):
                # Where it begins: any place at which it lies inside the image.
                begin = (draw.uniform(count, 0, 1) * (size - side + 1)).long().unsqueeze(1)
                ends.append(((at >= begin) & (at < begin + side.unsqueeze(1)) & exists).byte())
            inside |= ends[0].unsqueeze(2) * ends[1].unsqueeze(1)
        fill = self.fill.round().byte().repeat(size)
        return (values.reshape(inside.shape) * (1 - inside)).add_(inside * fill).view(values.shape)


def coarse_dropout(arguments: Mapping[str, Any], fill: Tensor) -> Holes:
    """Albumentations' CoarseDropout with a colour: sides in whole pixels, or as shares of the image's."""
    low, high = arguments["num_holes_range"]
    height, width = arguments["hole_height_range"], arguments["hole_width_range"]
    in_pixels = height[1] >= 1

    def sides(count: int, size: int, draw: Draw) -> tuple[Tensor, Tensor]:
        if in_pixels:
            ends = [(int(ends[0]), int(min(ends[1], size))) for ends in (height, width)]
            return draw.whole(count, *ends[0]), draw.whole(count, *ends[1])
        return (draw.uniform(count, *height) * size).long(), (draw.uniform(count, *width) * size).long()

    return Holes(arguments["p"], fill, high, lambda count, draw: draw.whole(count, low, high), sides)


def erasing(arguments: Mapping[str, Any], fill: Tensor) -> Holes:
    """Albumentations' Erasing with a colour (arXiv 1708.04896): one hole by its share of the area and its shape."""
    (low, high), (narrow, wide) = arguments["scale"], arguments["ratio"]

    def sides(count: int, size: int, draw: Draw) -> tuple[Tensor, Tensor]:
        total = size * size
        # As large as fits at either end of the ratio.
        most = min(total * high, total * narrow, total * wide, total / narrow, total / wide)
        if most < total * low:
            nothing = torch.zeros(count, dtype=torch.long, device=fill.device)
            return nothing, nothing
        area = draw.uniform(count, total * low, most)
        least, greatest = (area / total).clamp_min(narrow), (total / area).clamp_max(wide)
        ratio = least + (greatest - least) * draw.uniform(count, 0, 1)
        return (area / ratio).sqrt().round().long(), (area * ratio).sqrt().round().long()

    return Holes(arguments["p"], fill, 1, lambda count, draw: draw.whole(count, 1, 1), sides)


# ---------------------------------------------------------------- brightness and contrast


@dataclass(frozen=True)
class BrightnessContrast:
    """Albumentations' RandomBrightnessContrast: values times 1 + contrast, plus brightness times 255, or the mean."""

    brightness: tuple[float, float]
    contrast: tuple[float, float]
    by_max: bool
    p: float

    def __call__(self, values: Tensor, draw: Draw) -> Tensor:
        """Values as floats, cut to 0 to 255."""
        count = len(values)
        used = draw.chance(count, self.p)
        factor = 1 + draw.uniform(count, *self.contrast) * used
        shift = draw.uniform(count, *self.brightness) * used
        shift = shift * (255 if self.by_max else values.flatten(1).float().mean(1))
        return (values * _each(factor) + _each(shift)).clamp_(0, 255)


@dataclass(frozen=True)
class Jitter:
    """Albumentations' ColorJitter without saturation and hue: brightness and contrast as factors, either one first."""

    brightness: tuple[float, float]
    contrast: tuple[float, float]
    p: float
    shares: Tensor
    """Of the channels in a pixel's grey."""

    def __call__(self, values: Tensor, draw: Draw) -> Tensor:
        """Values as floats, cut to 0 to 255."""
        count = len(values)
        used = draw.chance(count, self.p)
        brightness = _each(torch.where(used, draw.uniform(count, *self.brightness), 1))
        contrast = _each(torch.where(used, draw.uniform(count, *self.contrast), 1))
        first = _each(draw.chance(count, 0.5))
        values = (values * torch.where(first, brightness, 1.0)).clamp_(0, 255)
        grey = (values @ self.shares).flatten(1).mean(1)
        values = (values * contrast + _each(grey) * (1 - contrast)).clamp_(0, 255)
        return (values * torch.where(first, 1.0, brightness)).clamp_(0, 255)


def _each(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)
