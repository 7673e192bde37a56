"""What all figures start from: blank ones in our style, and the empty one that says why it is empty."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from analysis import style

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as StaticFigure
    from numpy.typing import NDArray
    from plotly.graph_objects import Figure

Ticks = tuple[tuple[float, ...], tuple[str, ...]]  # places and texts
MOST_TICKS = 10  # more texts than that, of categories without number, would hide each other


def plot() -> Figure:
    """A blank interactive figure in the light style; the report swaps the template for the reader's."""
    import plotly.graph_objects as go

    return go.Figure(layout={"template": style.template("light")})


def empty(note: str) -> Figure:
    """A figure that holds one sentence."""
    figure = plot()
    figure.add_annotation(text=style.safe(note), showarrow=False, xref="paper", yref="paper", x=0.5, y=0.5)
    figure.update_layout(height=160, xaxis={"visible": False}, yaxis={"visible": False})
    return figure


def empty_static(note: str) -> StaticFigure:
    """The same for paper."""
    figure, axes = sheet(10, 2)
    axes.text(0.5, 0.5, note, ha="center", va="center", transform=axes.transAxes)
    axes.set_axis_off()
    return figure


def sheet(width: float, height: float) -> tuple[StaticFigure, Axes]:
    """A figure of `width` x `height` inches with one pair of axes. No pyplot: nothing global, nothing to close."""
    figure, (axes,) = panels(width, height, 1, 1)
    return figure, axes


def panels(
    width: float,
    height: float,
    rows: int,
    columns: int,
    *,
    same_y: bool = False,
    heights: Sequence[float] | None = None,
) -> tuple[StaticFigure, list[Axes]]:
    """The same with several pairs of axes, row by row; with `same_y` they share one scale upwards.

    heights: of the rows, relative to each other.
    """
    from matplotlib.figure import Figure as StaticFigure

    figure = StaticFigure(figsize=(width, height), layout="constrained")
    made = list(figure.subplots(rows, columns, sharey=same_y, squeeze=False, height_ratios=heights).flat)
    for axes in made:
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        for side in ("left", "bottom"):
            axes.spines[side].set_color("#b5bcc4")
        axes.tick_params(color="#b5bcc4")
        axes.set_axisbelow(True)
    return figure, made


def caption(figure: StaticFigure, said: str = "", axes: Axes | None = None) -> None:
    """The legend (of all axes, or of these) under a figure, and above it what its numbers say: on paper there is no
    page around it that would.
    """
    from matplotlib.artist import Artist

    found: dict[str, Artist] = {}
    for one in figure.axes if axes is None else [axes]:
        found |= {label: handle for handle, label in zip(*one.get_legend_handles_labels(), strict=True)}
    figure.legend(
        list(found.values()), list(found), loc="outside lower left", ncols=5, frameon=False, alignment="left",
        title=wrap(said, 125) if said else None, title_fontsize=9.5,
    )  # fmt: skip


def time_unit(seconds: float) -> tuple[str, float]:
    """What to count a span of time in, and how many seconds that is: ("minutes", 60.0)."""
    return ("seconds", 1.0) if seconds < 180 else ("minutes", 60.0) if seconds < 3 * 3600 else ("hours", 3600.0)


def floats(values: Iterable[float]) -> NDArray[np.float32]:
    """Numbers for a trace of thousands: Plotly writes arrays in 5 bytes a number, lists in up to 20. NaN is a gap."""
    import numpy as np

    return np.array(list(values), dtype=np.float32)


def few(marks: Ticks, characters: int = 36) -> Ticks:
    """At most ten of the ticks, evenly over them, their texts cut to share this many characters, ten at least each."""
    count = min(len(marks[0]), MOST_TICKS)
    some = [round(n * (len(marks[0]) - 1) / max(count - 1, 1)) for n in range(count)]
    most = max(10, characters // max(count, 1))
    return tuple(marks[0][n] for n in some), tuple(cut(marks[1][n], most) for n in some)


def x_ticks(axes: Axes, marks: Ticks) -> None:
    """Ticks with texts; aslant where they are too long to stand side by side in a panel of a third of a page."""
    aslant = sum(map(len, marks[1])) > 28
    axes.set_xticks(*marks, rotation=30 if aslant else 0, ha="right" if aslant else "center")


def cut(text: str, most: int = 32) -> str:
    """A name for a tick, an axis or a legend, on one line: of a long one the beginning. Hover texts have it whole."""
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 1].rstrip()}…"


def wrap(text: str, width: int = 14) -> str:
    """Long titles over several lines."""
    return "\n".join(textwrap.wrap(text, width, break_long_words=False)) or text
