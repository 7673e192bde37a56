"""Pareto: the forms of a compressed model, their accuracy over size and over latency, as `hypertune compress` found."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from msgspec import Meta, Struct

from analysis import style
from analysis.evaluation.read import read_file
from analysis.folders.folder import Unreadable
from analysis.page import pages
from analysis.page.figures import DPI, STYLE
from analysis.plots import canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as StaticFigure

NAME, FIGURE = "compressed.json", "pareto.png"
MOST_NAMES = 24  # forms that are named; further ones are dots alone

PANEL, LETTER, LINE = (375, 240), 4.8, 9.5  # points: a panel's sides, a letter, a line
SHIFTS = (0, 8, -8, 14, -14, 20, -20, 27, -27)  # points up, of a name from its dot

Positive = Annotated[float, Meta(gt=0)]


class Form(Struct, frozen=True):
    """One form of the model. ms: by batch size, as text; difference: of accuracy to the model's own, 0..1."""

    name: str
    bytes: Annotated[int, Meta(gt=0)]
    accuracy: Annotated[float, Meta(ge=0, le=1)]
    difference: float
    difference_low: float
    difference_high: float
    ms: dict[str, Positive]
    front: bool = False

    @property
    def original(self) -> bool:
        """Whether it is the model itself."""
        return self.name.startswith("original")


class Compressed(Struct, frozen=True):
    """What compressed.json says, as far as it is drawn."""

    format: Annotated[int, Meta(ge=1, le=1)]
    model: dict[str, Any]
    data: dict[str, int]
    variants: Annotated[tuple[Form, ...], Meta(min_length=1, max_length=100)]
    machine: dict[str, Any] = {}


AXES: tuple[Callable[[Form], float], ...] = (lambda form: form.bytes / 1e6, lambda form: form.ms["1"])


def read(folder: Path) -> Compressed:
    """What `hypertune compress` left in a folder.

    Raises:
        Unreadable: there is no compressed.json, or it is damaged.
    """
    found = read_file(folder, NAME, Compressed)
    if found is None:
        raise Unreadable(f"{folder}: no {NAME} in this folder; `hypertune compress` writes one")
    if any("1" not in form.ms for form in found.variants):
        raise Unreadable(f"{folder / NAME}: a form without the time of one image")
    return found


def write(folder: Path) -> Path:
    """Draw the figure of a folder into it.

    Raises:
        Unreadable: as `read`.
        OSError: it cannot be written.
    """
    import matplotlib

    found = read(folder)
    with warnings.catch_warnings(), matplotlib.rc_context(STYLE):
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # a name in a script that the font lacks
        figure = draw_static(found)
        pages.put(folder / FIGURE, partial(figure.savefig, dpi=DPI, format="png"))
    return folder / FIGURE


def draw_static(it: Compressed) -> StaticFigure:
    """Two panels: up is better, left is better. Bars: the 95% interval of the difference to the model itself."""
    figure, (left, right) = canvas.panels(12, 5.4, 1, 2, same_y=True)
    for axes, x_of in zip((left, right), AXES, strict=True):
        _draw(axes, it.variants, x_of)
    cpu = str(it.machine.get("cpu") or "this machine")
    left.set(xlabel="size of the file (MB, log)", ylabel="validation accuracy (%)")
    right.set(xlabel=f"time of one image on one thread (ms, log), {canvas.cut(cpu, 40)}")
    name = canvas.cut(str(it.model.get("name", "the model")), 60)
    figure.suptitle(f"{name}, pruned and in int8: size and time against accuracy", x=0.01, ha="left", weight="bold")
    for axes, x_of in zip((left, right), AXES, strict=True):  # when both know their ends
        _name(axes, it.variants[:MOST_NAMES], x_of)
    images = it.data.get("validation", 0)
    canvas.caption(
        figure,
        f"Up and to the left is better. Bars: 95% interval of the difference to the model itself, on the same "
        f"{images:,} validation images; where they reach its line, the loss may be chance. On the front: no other "
        "form is better in one of accuracy, size and time and as good in the others.",
        left,
    )
    return figure


def _draw(axes: Axes, forms: Sequence[Form], x_of: Callable[[Form], float]) -> None:
    axes.set_xscale("log")
    own = next((form.accuracy for form in forms if form.original), None)
    if own is not None:
        axes.axhline(100 * own, color=style.PALE, lw=1, ls=(0, (4, 3)), zorder=1)
    for form in forms:
        if not form.original:
            bar = [100 * (form.accuracy - form.difference + end) for end in (form.difference_low, form.difference_high)]
            axes.plot(
                [x_of(form)] * 2, bar, color=style.ACCENT if form.front else style.PALE, lw=1.1, alpha=0.55, zorder=2
            )
    for label, colour, face, front in (
        ("on the front", style.ACCENT, style.ACCENT, True),
        ("beaten by another", style.PALE, "white", False),
    ):
        some = [form for form in forms if form.front == front]
        x, y = [x_of(form) for form in some], [100 * form.accuracy for form in some]
        axes.scatter(x, y, s=55, c=face, edgecolors=colour, lw=1.5, label=label, zorder=3)
    axes.margins(x=0.1)
    low, high = axes.get_xlim()
    ticks = style.log_ticks(low, high)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.xaxis.set_minor_formatter("")
    axes.grid(color=style.THEMES["light"]["grid"])


def _name(axes: Axes, forms: Sequence[Form], x_of: Callable[[Form], float]) -> None:
    """Names beside the dots, to the left of those on the right half, where they hide neither a dot nor another name."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    places = [
        (
            PANEL[0] * math.log(x_of(form) / left) / math.log(right / left),
            PANEL[1] * (100 * form.accuracy - bottom) / (top - bottom),
        )
        for form in forms
    ]
    taken = [(x - 4, x + 4, y) for x, y in dict.fromkeys(places)]
    for form, (x, y) in sorted(zip(forms, places, strict=True), key=lambda both: -both[1][1]):
        width = LETTER * len(form.name)
        outward = x > PANEL[0] / 2
        start, end = (x - 8 - width, x - 8) if outward else (x + 8, x + 8 + width)
        free = (n for n in SHIFTS if not any(a < end and start < b and abs(y + n - at) < LINE for a, b, at in taken))
        shift = next(free, SHIFTS[0])
        taken.append((start, end, y + shift))
        axes.annotate(
            form.name, (x_of(form), 100 * form.accuracy), (-8 if outward else 8, shift), textcoords="offset points",
            ha="right" if outward else "left", va="center", fontsize=8.5,
            color=style.THEMES["light"]["text" if form.front or form.original else "muted"],
            bbox={"facecolor": style.THEMES["light"]["page"], "edgecolor": "none", "pad": 0.5},  # lines end at a name
        )  # fmt: skip
