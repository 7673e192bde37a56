"""Overlay: evidence over images, filters and feature maps as pictures (PNG), in colours that all can tell apart."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]
LEAST, MOST = 224, 448
"""Pixels that an image is wide in a picture: small ones are enlarged so that a person sees something."""
GAP = 8
DARK, MUTED = "#1f2328", "#59636e"
GREY = "#7b7b7b"
"""Text on a transparent ground: 4.2 to 1 on the white and on the dark page alike."""
FROM, TO, COVER = 0.15, 0.95, 0.8
"""The part of inferno that is used, as its ends vanish on black and white; how far the strongest covers the image."""
DPI = 110


class Panel(NamedTuple):
    """One image of a picture and what stands under it."""

    pixels: Pixels
    text: str


def enlarge(pixels: Pixels) -> Pixels:
    """An image (S, S, C) as RGB of 224 to 448 pixels a side; small ones by whole steps, so that pixels stay pixels."""
    side = len(pixels)
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).convert("RGB")
    if side < LEAST:
        side *= -(-LEAST // side)
        image = image.resize((side, side), Image.Resampling.NEAREST)
    elif side > MOST:
        image = image.resize((MOST, MOST), Image.Resampling.LANCZOS)
    return np.asarray(image)


def cover(image: Pixels, strength: NDArray[np.float32]) -> Pixels:
    """RGB (P, P, 3) in grey with the evidence, (S, S) from 0 to 1, over it in colour, the more the stronger it is."""
    large = Image.fromarray(strength).resize(image.shape[1::-1], Image.Resampling.BILINEAR)
    share = np.clip(np.asarray(large), 0, 1)[..., None]
    grey = np.asarray(Image.fromarray(image).convert("L"), dtype=np.float32)[..., None].repeat(3, axis=2)
    made: Pixels = np.round(grey + COVER * share * (255 * colour(share[..., 0]) - grey)).astype(np.uint8)
    return made


def colour(strength: NDArray[np.float32]) -> NDArray[np.float32]:
    """Inferno, dark to bright for weak to strong, so that it reads without colour too: (..., 3) from 0 to 1."""
    from matplotlib import colormaps

    found: NDArray[np.float32] = colormaps["inferno"](FROM + (TO - FROM) * strength)[..., :3].astype(np.float32)
    return found


def scale(steps: int = 9) -> list[str]:
    """The colours from no evidence to the strongest, as they come out over mid-grey: #rrggbb."""
    grey = np.full((1, steps, 3), 128, dtype=np.uint8)
    ramp = np.linspace(0, 1, steps, dtype=np.float32)
    share = COVER * ramp[:, None]
    made = np.round(grey[0] + share * (255 * colour(ramp) - grey[0])).astype(int)
    return ["#" + "".join(f"{value:02x}" for value in row) for row in made.tolist()]


def strip(panels: Sequence[Panel]) -> bytes:
    """The images side by side without a word, for a page that has its own; the gaps are transparent."""
    side = len(panels[0].pixels)
    sheet = Image.new("RGBA", (len(panels) * side + (len(panels) - 1) * GAP, side), (0, 0, 0, 0))
    for place, panel in enumerate(panels):
        sheet.paste(Image.fromarray(panel.pixels), (place * (side + GAP), 0))
    return _png(sheet)


def picture(panels: Sequence[Panel], title: str, name: str) -> bytes:
    """The images side by side with their texts, a title, the file's name and a small scale, on white."""
    side, gap, edge, foot = 2.4, 0.1, 0.12, 0.62
    width = len(panels) * (side + gap) - gap + 2 * edge
    sheet = _Sheet(width, side + foot + 0.42)
    sheet.write(edge, side + foot + 0.1, _short(title, 31 * len(panels)), DARK, 11, bold=True)
    for place, panel in enumerate(panels):
        left = edge + place * (side + gap)
        sheet.show(panel.pixels, left, foot, side)
        sheet.write(left, foot - 0.19, _short(panel.text, 46), MUTED, 8)
    sheet.write(edge, 0.12, _short(name, 46), MUTED, 8)
    left = edge + (len(panels) - 1) * (side + gap)
    ramp = np.array([[int(code[n : n + 2], 16) for n in (1, 3, 5)] for code in scale(64)], dtype=np.uint8)
    sheet.show(ramp[None], left + 0.55, 0.12, side - 1.2, 0.09)
    sheet.write(left, 0.12, "weakest", MUTED, 8)
    sheet.write(left + side, 0.12, "strongest", MUTED, 8, align="right")
    return sheet.draw("white")


def filters(weights: NDArray[np.float32], columns: int = 16) -> bytes:
    """Filters (n, C, k, k) as tiles, in colour where C is 3, else their mean over the channels in grey.

    Each has its own scale: mid-grey is 0, and its largest weight is white, or black below 0.
    """
    shown = weights if weights.shape[1] == 3 else weights.mean(axis=1, keepdims=True).repeat(3, axis=1)
    peak = np.abs(shown).max(axis=(1, 2, 3), keepdims=True)
    tiles = np.round(255 * (0.5 + 0.5 * shown / np.where(peak > 0, peak, 1))).astype(np.uint8).transpose(0, 2, 3, 1)
    side = 56
    rows = -(-len(tiles) // columns)
    size = [count * (side + GAP) - GAP for count in (min(columns, len(tiles)), rows)]
    sheet = Image.new("RGBA", (size[0], size[1]), (0, 0, 0, 0))
    for place, tile in enumerate(tiles):
        large = Image.fromarray(tile).resize((side, side), Image.Resampling.NEAREST)
        sheet.paste(large, (place % columns * (side + GAP), place // columns * (side + GAP)))
    return _png(sheet)


def maps(image: Pixels, rows: Sequence[tuple[str, NDArray[np.float32]]]) -> bytes:
    """An image and under it a row for each layer: its name and some of its maps (n, S, S), each on its own scale."""
    side, gap, head = 1.1, 0.08, 0.34
    every: list[tuple[str, Sequence[NDArray[Any]]]] = [
        ("the image", [image]),
        *((text, [*made]) for text, made in rows),
    ]
    sheet = _Sheet(max(len(shown) for _, shown in every) * (side + gap) - gap, len(every) * (side + head))
    for number, (text, shown) in enumerate(every, 1):
        bottom = (len(every) - number) * (side + head)
        sheet.write(0, bottom + side + 0.06, text, GREY, 10, bold=True)
        for place, one in enumerate(shown):
            sheet.show(one, place * (side + gap), bottom, side)
    return sheet.draw("none")


class _Sheet:
    """Images and texts at places in inches. A figure of matplotlib without pyplot: nothing global, nothing to close."""

    def __init__(self, width: float, height: float) -> None:
        from matplotlib.figure import Figure

        self.figure = Figure(figsize=(width, height), dpi=DPI)
        self.size = (width, height)

    def show(self, image: NDArray[Any], left: float, bottom: float, width: float, height: float | None = None) -> None:
        """An image, or numbers (S, S) from their lowest, dark, to their highest, bright."""
        (wide, high), height = self.size, height or width
        axes = self.figure.add_axes((left / wide, bottom / high, width / wide, height / high))
        axes.imshow(image, cmap="inferno", interpolation="none", aspect="auto")
        axes.set_axis_off()

    def write(
        self, x: float, y: float, text: str, colour: str, size: int, *, bold: bool = False, align: str = "left"
    ) -> None:
        """A line of text; never read as a formula."""
        self.figure.text(
            x / self.size[0], y / self.size[1], text, color=colour, fontsize=size, ha=align, parse_math=False,
            fontweight="bold" if bold else "normal",
        )  # fmt: skip

    def draw(self, ground: str) -> bytes:
        """As PNG on a ground of this colour."""
        file = BytesIO()
        with warnings.catch_warnings():  # names in a script that matplotlib's font has not: boxes, not a warning
            warnings.filterwarnings("ignore", message="Glyph .* missing from font")
            self.figure.savefig(file, format="png", facecolor=ground)
        return file.getvalue()


def _png(image: Image.Image) -> bytes:
    file = BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
