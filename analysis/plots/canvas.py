"""What all figures start from: blank ones in our style, and the empty one that says why it is empty."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from analysis import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as StaticFigure
    from plotly.graph_objects import Figure


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
    from matplotlib.figure import Figure as StaticFigure

    figure = StaticFigure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#b5bcc4")
    axes.tick_params(color="#b5bcc4")
    axes.set_axisbelow(True)
    return figure, axes


def wrap(text: str, width: int = 14) -> str:
    """Long titles over several lines."""
    return "\n".join(textwrap.wrap(text, width, break_long_words=False)) or text
