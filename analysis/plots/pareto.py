"""Pareto front: what more of one objective costs in another, a dot a trial."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from analysis import pareto, style
from analysis.plots import canvas
from analysis.results import Results

if TYPE_CHECKING:
    from matplotlib.figure import Figure as StaticFigure
    from plotly.graph_objects import Figure

LOG_SPAN = 20  # the second objective is drawn on a logarithm where its ends lie further apart than this factor
MOST_DOTS = 1500  # trials that are not on the front, evenly over the search
MOST_NAMES = 12  # trials on the front that are named in the figure
KINDS = ("front", "other", "breaks")


class Point(NamedTuple):
    """One trial. x: the second objective, y: the first, both as shown; kind: on the front, behind it, not allowed."""

    trial: str
    x: float
    y: float
    kind: str
    hover: str


class Front(NamedTuple):
    """What is drawn. step: how the line along the front turns; none where there are more than two objectives."""

    points: tuple[Point, ...]
    x_title: str
    y_title: str
    log: bool
    step: str | None
    ticks: tuple[tuple[float, str], ...] = ()
    knee: str | None = None
    note: str = ""


def compute(results: Results) -> Front:
    """The first objective over the second, at each trial's best epoch; further ones decide too and are in the hover.

    Where the run has one objective the second is what a trial costs (see `pareto.goals`).
    """
    goals = pareto.goals(results)
    if len(goals) < 2:
        return Front((), "", "", False, None, note="The run has one objective, and nothing is known of what it costs.")
    metrics = [style.metric(results, goal) for goal in goals]
    y, x = metrics[:2]
    chosen, knee = set(pareto.front(results, goals)), pareto.knee(results, goals)
    table = results.trials[results.trials["repeat_of"].isna()]
    shown = np.column_stack([table[m.name].to_numpy(dtype=float) * m.factor for m in metrics])
    known = np.flatnonzero(np.isfinite(shown).all(axis=1))
    fronted = table.index.isin(chosen)
    plain = known[~fronted[known]]
    plain = plain[np.linspace(0, len(plain) - 1, min(len(plain), MOST_DOTS)).round().astype(int)]
    points = []
    for n in sorted([*known[fronted[known]], *plain]):
        row = table.iloc[n]
        kind = "front" if fronted[n] else "other" if pd.isna(row["breaks"]) else "breaks"
        lines = [style.called(row), *(f"{m.label} {m.text(row[m.name])}" for m in metrics), style.outcome(row)]
        hover = "<br>".join(map(style.safe, lines))
        points.append(Point(str(row.name), float(shown[n, 1]), float(shown[n, 0]), kind, hover))
    if not points:
        return Front((), x.axis, y.axis, False, None, note="No trial has a value of every objective yet.")
    low, high = min(p.x for p in points), max(p.x for p in points)
    log = low > 0 and high / low > LOG_SPAN
    step = None if len(goals) > 2 else "hv" if goals[1].mode == "min" else "vh"
    ticks = tuple((value, _short(value)) for value in style.log_ticks(low, high)) if log else ()
    return Front(tuple(points), x.axis + (" (log)" if log else ""), y.axis, log, step, ticks, knee)


def _short(value: float) -> str:
    """A round number with few digits: 20k, 5M, 0.5."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def _large(it: Front) -> bool:
    """Whether 1,500 is written 1.5k; below 1,000 an m for a thousandth would read as minutes or millions."""
    return max(p.x for p in it.points) >= 1000


def _on_the_left(it: Front, some: list[Point]) -> list[bool]:
    """Which points lie in the left third of the axis, where a name to their left would be cut off."""
    at = np.log10([p.x for p in it.points]) if it.log else np.array([p.x for p in it.points])
    limit = at.min() + np.ptp(at) / 3
    return [bool((np.log10(p.x) if it.log else p.x) <= limit) for p in some]


def _groups(it: Front) -> list[tuple[str, str, list[Point]]]:
    words = dict(zip(KINDS, ("on the front", "beaten by another", "breaks a constraint"), strict=True))
    groups = [(kind, words[kind], sorted(p for p in it.points if p.kind == kind)) for kind in KINDS]
    return [(kind, name, sorted(some, key=lambda p: p.x)) for kind, name, some in groups if some]


def _namable(some: Sequence[Point]) -> bool:
    """Whether the names of so many trials fit beside their dots: long ones, as Ray's, only where there are few."""
    return sum(max(len(p.trial), 3) for p in some) <= 3 * MOST_NAMES


def draw(it: Front) -> Figure:
    """The front in the accent colour with its trials' names, the others hollow; crosses break a constraint."""
    if it.note:
        return canvas.empty(it.note)
    figure = canvas.plot()
    for kind, name, some in _groups(it)[::-1]:
        named = kind == "front" and _namable(some)
        line: dict[str, Any] = {"shape": it.step, "color": style.ACCENT, "width": 1.5} if it.step else {}
        figure.add_scatter(
            x=[p.x for p in some], y=[p.y for p in some], name=name,
            mode="markers" + ("+lines" if kind == "front" and it.step else "") + ("+text" if named else ""),
            line=line, textposition=["top right" if left else "top left" for left in _on_the_left(it, some)],
            text=[style.safe(canvas.cut(p.trial, 20)) + " (knee)" * (p.trial == it.knee) for p in some],
            marker={"size": 10 if kind == "front" else 8, "color": style.ACCENT if kind == "front" else style.PALE,
                    "symbol": {"front": "circle", "other": "circle-open", "breaks": "x-thin-open"}[kind],
                    "line": {"width": 0 if kind == "front" else 1.5}},
            customdata=[p.hover for p in some], hovertemplate="%{customdata}<extra></extra>",
        )  # fmt: skip
    figure.update_layout(
        height=440,
        xaxis={"title": {"text": style.safe(it.x_title)}, "tickformat": "~s" if _large(it) else None,
               "type": "log" if it.log else "linear"},
        yaxis={"title": {"text": style.safe(it.y_title)}},
        legend={"traceorder": "reversed"},
    )  # fmt: skip
    if it.ticks:
        figure.update_xaxes(tickvals=[value for value, _ in it.ticks], ticktext=[text for _, text in it.ticks])
    return figure


def draw_static(it: Front) -> StaticFigure:
    """The same for paper."""
    from matplotlib.ticker import EngFormatter, NullFormatter

    if it.note:
        return canvas.empty_static(it.note)
    figure, axes = canvas.sheet(10, 5)
    if it.log:
        axes.set_xscale("log")
    for kind, name, some in _groups(it):
        x, y = [p.x for p in some], [p.y for p in some]
        if kind == "front":
            if it.step:
                axes.step(x, y, where="post" if it.step == "hv" else "pre", color=style.ACCENT, lw=1.5)
            axes.scatter(x, y, s=65, color=style.ACCENT, label=name, zorder=3)
            for point, left in zip(some, _on_the_left(it, some), strict=True) if _namable(some) else ():
                axes.annotate(
                    canvas.cut(point.trial, 20) + " (knee)" * (point.trial == it.knee),
                    (point.x, point.y),
                    (4 if left else -4, 6),
                    textcoords="offset points",
                    ha="left" if left else "right",
                )
        elif kind == "breaks":
            axes.scatter(x, y, s=50, c=style.PALE, marker="x", linewidths=1.8, label=name)
        else:
            axes.scatter(x, y, s=50, facecolors="none", edgecolors=style.PALE, linewidths=1.5, label=name)
    if _large(it):
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    if it.ticks:
        axes.set_xticks([value for value, _ in it.ticks], [text for _, text in it.ticks])
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set(xlabel=it.x_title, ylabel=it.y_title)
    axes.grid(color=style.THEMES["light"]["grid"])
    figure.legend(loc="outside lower left", ncols=3, frameon=False)
    return figure
