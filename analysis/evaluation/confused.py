"""The most frequent errors: which class was taken for which."""

from __future__ import annotations

from typing import TYPE_CHECKING

from analysis import style
from analysis.evaluation.read import Confused, Evaluation
from analysis.plots import canvas

if TYPE_CHECKING:
    from matplotlib.figure import Figure as StaticFigure
    from plotly.graph_objects import Figure

MOST_BARS = 12
NAME = 16  # characters of each of the two names


def _names(pairs: tuple[Confused, ...]) -> list[str]:
    return [f"{canvas.cut(pair.truth, NAME)} → {canvas.cut(pair.predicted, NAME)}" for pair in pairs]


def said(evaluation: Evaluation) -> str:
    """How much of all errors the pairs that are drawn make up."""
    wrong = sum(map(sum, evaluation.confusion)) - sum(row[n] for n, row in enumerate(evaluation.confusion))
    shown = evaluation.confused[:MOST_BARS]
    if not shown or not wrong:
        return ""
    part = sum(pair.count for pair in shown) / wrong
    what = "This kind of error makes" if len(shown) == 1 else f"These {len(shown)} kinds of error make"
    return f"{what} up {100 * part:.0f}% of all {style.count(wrong, 'error')}."


def draw(evaluation: Evaluation) -> Figure:
    """A bar a pair, the most frequent on top: truth → prediction."""
    shown = evaluation.confused[:MOST_BARS]
    if not shown:
        return canvas.empty("No image was taken for another class.")
    places = list(range(len(shown)))
    step = {"dtick": 1} if shown[0].count < 8 else {}  # there is no half of an image
    figure = canvas.plot()
    figure.add_bar(
        y=places, x=[pair.count for pair in shown], orientation="h", width=0.62,
        marker={"color": style.CATEGORIES[0], "line": {"width": 0}},
        text=[f"{pair.count:,} ({100 * pair.share:.1f}%)" for pair in shown], textposition="outside", cliponaxis=False,
        customdata=[_hover(pair) for pair in shown], hovertemplate="%{customdata}<extra></extra>",
    )  # fmt: skip
    figure.update_layout(
        height=90 + 32 * len(shown), margin={"t": 10},
        xaxis={"title": {"text": "images"}, "range": [0, 1.22 * shown[0].count], **step},
        yaxis={"tickvals": places, "ticktext": [style.safe(name) for name in _names(shown)], "ticks": "",
               "showgrid": False, "autorange": "reversed"},
    )  # fmt: skip
    return figure


def _hover(pair: Confused) -> str:
    truth, predicted = (style.safe(canvas.cut(name, 60)) for name in (pair.truth, pair.predicted))
    return f"{truth}<br>taken for {predicted}<br>{pair.count:,} times, {100 * pair.share:.1f}% of its images"


def draw_static(evaluation: Evaluation) -> StaticFigure:
    """The same for paper."""
    shown = evaluation.confused[:MOST_BARS]
    if not shown:
        return canvas.empty_static("No image was taken for another class.")
    from matplotlib.ticker import MaxNLocator

    figure, axes = canvas.sheet(10, 1.6 + 0.34 * len(shown))
    bars = axes.barh(range(len(shown)), [pair.count for pair in shown], height=0.62, color=style.CATEGORIES[0])
    axes.bar_label(bars, [f"{pair.count:,} ({100 * pair.share:.1f}%)" for pair in shown], padding=5, fontsize=10)
    axes.set_yticks(range(len(shown)), _names(shown))
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="images", xlim=(0, 1.15 * shown[0].count))
    axes.grid(color=style.THEMES["light"]["grid"], axis="x")
    axes.invert_yaxis()
    canvas.caption(figure, said(evaluation))
    return figure
