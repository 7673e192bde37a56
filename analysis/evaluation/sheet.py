"""Contact sheet: the images that the model was surest of and wrong about."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from analysis import style
from analysis.evaluation.read import Evaluation, Wrong, picture
from analysis.plots import canvas

if TYPE_CHECKING:
    from matplotlib.figure import Figure as StaticFigure
    from PIL.Image import Image

ACROSS = 8
MOST = 32  # images on paper
SIDE = 160  # pixels; the page shows them at 96 points
LARGEST = 40_000  # bytes of a thumbnail in the page; a larger one is encoded again
MOST_PIXELS = 4_000_000  # of a thumbnail: a file that claims more is no thumbnail


def thumbnail(evaluation: Evaluation, wrong: Wrong) -> tuple[str, bytes] | None:
    """A picture's media type and file, small enough for a page; None where it cannot be read."""
    data = picture(evaluation, wrong)
    opened = _open(data)
    if data is None or opened is None:
        return None
    if len(data) <= LARGEST and max(opened.size) <= SIDE:
        return "image/png", data
    opened = opened.convert("RGB")
    opened.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    opened.save(file, format="JPEG", quality=85)
    return "image/jpeg", file.getvalue()


def sureness(wrong: Wrong) -> str:
    """Its confidence: 61.4%, and never 100%, which no model is."""
    return f"{100 * wrong.confidence:.1f}%" if wrong.confidence < 0.9995 else ">99.9%"


def _open(data: bytes | None) -> Image | None:
    """The decoded picture; None where there is none or it is damaged."""
    from PIL import Image

    try:
        opened = Image.open(io.BytesIO(data or b""), formats=("PNG",))
        if opened.width * opened.height > MOST_PIXELS:
            return None
        opened.load()
    except (OSError, ValueError, SyntaxError):  # SyntaxError: a broken PNG
        return None
    return opened


def draw_static(evaluation: Evaluation) -> StaticFigure:
    """At most 32 images, the surest error first; under each its true class, what it was taken for, and how surely.

    One pair of axes for all: forty of them would take seconds.
    """
    shown = evaluation.wrong[:MOST]
    if not shown:
        return canvas.empty_static("No image was taken for another class.")
    down = -(-len(shown) // ACROSS)
    figure, axes = canvas.sheet(12, 0.5 + 2.05 * down)
    for n, wrong in enumerate(shown):
        left, top = 1.12 * (n % ACROSS), 1.52 * (n // ACROSS)
        opened = _open(picture(evaluation, wrong))
        if opened is not None:
            wide, tall = (side / max(opened.size) for side in opened.size)
            x, y = left + (1 - wide) / 2, top + (1 - tall) / 2
            axes.imshow(
                opened.convert("RGB"),
                extent=(x, x + wide, y + tall, y),
                interpolation="nearest" if max(opened.size) < 100 else "antialiased",
            )
        muted = style.THEMES["light"]["muted"]
        for line, text, colour in (
            (0, canvas.cut(wrong.truth, 18), style.THEMES["light"]["text"]),
            (1, f"→ {canvas.cut(wrong.predicted, 16)}", style.ACCENT),
            (2, f"{sureness(wrong)} sure", muted),
        ):
            axes.text(left, top + 1.03 + 0.13 * line, text, va="top", fontsize=9, color=colour)
    axes.set(xlim=(-0.02, 1.12 * ACROSS - 0.1), ylim=(1.52 * down, -0.02), aspect="equal")
    axes.set_axis_off()
    return figure
