"""Importance: what decided how a trial stood, and what decided who is among the best; a pair of bars a setting."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from analysis import style
from analysis.importance import FEWEST, Weighed, weigh
from analysis.plots import canvas
from analysis.results import Results

if TYPE_CHECKING:
    from matplotlib.figure import Figure as StaticFigure
    from plotly.graph_objects import Figure

MOST_BARS = 15
SURE = 0.05  # a setting whose shuffles give as much more often than this is drawn pale


class Bar(NamedTuple):
    """One setting, in percent. told: whether shuffled results seldom give as much; hover: all its numbers."""

    label: str
    share: float
    low: float
    high: float
    top: float
    top_low: float
    top_high: float
    told: bool
    hover: str


class Bars(NamedTuple):
    """What is drawn, the most important first. left_out: settings that come after these."""

    bars: tuple[Bar, ...]
    left_out: int = 0
    note: str = ""


TITLES = ("of all differences between trials", "of what brought a trial into the best quarter")


def compute(results: Results, weighed: Weighed | None = None) -> Bars:
    """At most 15 settings. weighed: what `importance.weigh` says of the run, where that is known already."""
    found = (weigh(results) if weighed is None else weighed).importances
    if not found:
        return Bars((), note=f"Fewer than {FEWEST} trials can be compared, or no setting varied: nothing to weigh.")
    bars = []
    for one in found[:MOST_BARS]:
        told = one.p <= SURE
        chance = f"shuffled results give that or more in {one.p:.1%} of all cases"
        alone = "–" if math.isnan(one.share) else f"{one.share:.0%} ({one.low:.0%} to {one.high:.0%})"
        hover = (
            f"{style.safe(one.name)}<br>{alone} of all differences<br>"
            f"{one.top:.0%} ({one.top_low:.0%} to {one.top_high:.0%}) for the best quarter<br>{chance}<br>"
            f"in use in {one.trials:,} trials"
        )
        share, low, high = (0.0 if math.isnan(v) else 100 * v for v in (one.share, one.low, one.high))
        bars.append(Bar(one.label, share, low, high, 100 * one.top, 100 * one.top_low, 100 * one.top_high, told, hover))
    return Bars(tuple(bars), len(found) - len(bars))


def _columns(it: Bars) -> list[tuple[list[float], list[float], list[float]]]:
    """Value, way down and way up of both columns of bars."""
    return [
        ([b.share for b in it.bars], [b.share - b.low for b in it.bars], [b.high - b.share for b in it.bars]),
        ([b.top for b in it.bars], [b.top - b.top_low for b in it.bars], [b.top_high - b.top for b in it.bars]),
    ]


def _more(it: Bars) -> str:
    return f" · {it.left_out} more settings have less" if it.left_out else ""


def draw(it: Bars) -> Figure:
    """Strong bars where a setting mattered, pale ones where chance alone would do; whiskers are 90% intervals."""
    if it.note:
        return canvas.empty(it.note)
    from plotly.subplots import make_subplots

    figure = make_subplots(1, 2, shared_yaxes=True, horizontal_spacing=0.05)
    places = list(range(len(it.bars)))
    for column, (values, down, up) in enumerate(_columns(it), 1):
        figure.add_bar(
            y=places, x=values, orientation="h", width=0.6, showlegend=False, row=1, col=column,
            marker={"color": [style.CATEGORIES[0] if b.told else style.PALE for b in it.bars], "line": {"width": 0}},
            error_x={"type": "data", "symmetric": False, "array": up, "arrayminus": down, "thickness": 1.5, "width": 4,
                     "color": style.ACCENT},
            customdata=[bar.hover for bar in it.bars], hovertemplate="%{customdata}<extra></extra>",
        )  # fmt: skip
        title = TITLES[column - 1] + " (%)" + (_more(it) if column == 2 else "")
        figure.update_xaxes(
            title={"text": canvas.wrap(title, 30).replace("\n", "<br>")},
            range=[0, _reach(it, column)],
            row=1,
            col=column,
        )
    figure.update_layout(template=style.template("light"), height=105 + 34 * len(places), margin={"t": 10})
    labels = [style.safe(canvas.cut(bar.label)) for bar in it.bars]
    figure.update_yaxes(autorange="reversed", tickvals=places, ticktext=labels, ticks="", showgrid=False)
    return figure


def _reach(it: Bars, column: int) -> float:
    return 1.08 * max(5.0, *(b.high if column == 1 else b.top_high for b in it.bars))


def draw_static(it: Bars) -> StaticFigure:
    """The same for paper."""
    if it.note:
        return canvas.empty_static(it.note)
    figure, sheets = canvas.panels(10, 1.5 + 0.42 * len(it.bars), 1, 2, same_y=True)
    places = range(len(it.bars))
    for column, (sheet, (values, down, up)) in enumerate(zip(sheets, _columns(it), strict=True), 1):
        colours = [style.CATEGORIES[0] if bar.told else style.PALE for bar in it.bars]
        sheet.barh(places, values, height=0.6, color=colours)
        sheet.errorbar(values, places, xerr=[down, up], fmt="none", ecolor=style.ACCENT, elinewidth=1.6, capsize=4)
        sheet.set(xlabel=TITLES[column - 1] + " (%)", xlim=(0, _reach(it, column)))
        sheet.grid(color=style.THEMES["light"]["grid"], axis="x")
        sheet.tick_params(axis="y", length=0)
    sheets[0].set_yticks(places, [canvas.cut(bar.label) for bar in it.bars])
    sheets[0].invert_yaxis()
    return figure
