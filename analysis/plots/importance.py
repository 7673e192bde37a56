"""Importance: what decided whether a trial stood among the best, a bar a setting."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from analysis import style
from analysis.importance import FEWEST, SHUFFLES, importances
from analysis.plots import canvas
from analysis.results import Results

if TYPE_CHECKING:
    from matplotlib.figure import Figure as StaticFigure
    from plotly.graph_objects import Figure

MOST_BARS = 15
CHANCE = f"chance: the most that {SHUFFLES} shuffles of the results gave"


class Bar(NamedTuple):
    """One setting. share and chance in percent; `told` where the share is above what chance gives."""

    label: str
    share: float
    chance: float
    told: bool
    hover: str


class Bars(NamedTuple):
    """What is drawn, the most important first. left_out: settings that come after these."""

    bars: tuple[Bar, ...]
    left_out: int = 0
    note: str = ""


def compute(results: Results) -> Bars:
    """At most 15 settings by their share of all importance."""
    found = importances(results)
    if not found:
        return Bars((), note=f"Fewer than {FEWEST} trials can be compared, or no setting varied: nothing to weigh.")
    columns = {p.name: p.column for p in results.parameters}
    labels = style.labels(columns.values())
    shared = Counter(columns[one.name] for one in found)
    bars = []
    for one in found[:MOST_BARS]:
        label = labels[columns[one.name]]
        branch = re.findall(r"\[([^\]]*)\]", one.name)
        if shared[columns[one.name]] > 1 and branch:
            label += f" ({', '.join(branch)})"
        told = one.share > one.chance
        chance = f"shuffled results give up to {one.chance:.1%}" + ("" if told else ": no more than chance")
        hover = f"{style.safe(one.name)}: {one.share:.1%}<br>in use in {one.trials:,} trials<br>{chance}"
        bars.append(Bar(label, 100 * one.share, 100 * one.chance, told, hover))
    return Bars(tuple(bars), len(found) - len(bars))


def _axis(it: Bars) -> str:
    more = f"; {it.left_out} more settings have less" if it.left_out else ""
    return f"share of all importance (%){more}"


def draw(it: Bars) -> Figure:
    """Strong bars where a setting mattered, pale ones where chance alone would do; a mark at chance."""
    if it.note:
        return canvas.empty(it.note)
    figure = canvas.plot()
    labels = [style.safe(bar.label) for bar in it.bars]
    figure.add_bar(
        y=labels, x=[bar.share for bar in it.bars], orientation="h", width=0.62, showlegend=False,
        marker={"color": [style.CATEGORIES[0] if bar.told else style.PALE for bar in it.bars], "line": {"width": 0}},
        text=[_percent(bar.share) for bar in it.bars], textposition="outside", cliponaxis=False,
        customdata=[bar.hover for bar in it.bars], hovertemplate="%{customdata}<extra></extra>",
    )  # fmt: skip
    figure.add_scatter(
        y=labels, x=[bar.chance for bar in it.bars], mode="markers", name=CHANCE,
        marker={"symbol": "line-ns-open", "size": 16, "color": style.ACCENT, "line": {"width": 2}}, hoverinfo="skip",
    )  # fmt: skip
    figure.update_layout(
        height=130 + 34 * len(labels), showlegend=True,
        xaxis={"title": {"text": _axis(it)}, "range": [0, 1.12 * max(max(b.share, b.chance) for b in it.bars)]},
        yaxis={"autorange": "reversed", "ticks": "", "showgrid": False},
    )  # fmt: skip
    return figure


def draw_static(it: Bars) -> StaticFigure:
    """The same for paper."""
    if it.note:
        return canvas.empty_static(it.note)
    figure, axes = canvas.sheet(10, 1.6 + 0.42 * len(it.bars))
    places = range(len(it.bars))
    colours = [style.CATEGORIES[0] if bar.told else style.PALE for bar in it.bars]
    axes.barh(places, [bar.share for bar in it.bars], height=0.62, color=colours)
    for place, bar in zip(places, it.bars, strict=True):
        axes.annotate(_percent(bar.share), (bar.share, place), (5, 0), textcoords="offset points", va="center")
    axes.plot(
        [bar.chance for bar in it.bars], places, "|", ms=14, mew=2, color=style.ACCENT,
        label=CHANCE,
    )  # fmt: skip
    axes.set_yticks(places, [bar.label for bar in it.bars])
    axes.set(xlabel=_axis(it), xlim=(0, 1.12 * max(max(b.share, b.chance) for b in it.bars)))
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    axes.grid(color=style.THEMES["light"]["grid"], axis="x")
    figure.legend(loc="outside lower left", frameon=False)
    return figure


def _percent(share: float) -> str:
    return f"{share:.0f}%" if share >= 1 else "<1%"
