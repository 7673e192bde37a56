"""Hypervolume: how much of what lies between the worst and the best of two objectives the search had reached when."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from analysis import pareto, style
from analysis.plots import canvas
from analysis.results import Results

if TYPE_CHECKING:
    from matplotlib.figure import Figure as StaticFigure
    from plotly.graph_objects import Figure


class Volume(NamedTuple):
    """What is drawn. x: numbers of trials; share: the hypervolume so far, in percent of the whole box."""

    x: tuple[int, ...]
    share: tuple[float, ...]
    y_title: str
    note: str = ""


def compute(results: Results) -> Volume:
    """Over the trials that may be best, in order of start; the box reaches from the worst to the best of each objective
    that the run saw, so that 100% would be one trial that is best in both (Zitzler and Thiele, 1998).
    """
    goals = pareto.objectives(results)[:2]
    if len(goals) < 2:
        return Volume((), (), "", "The run has one objective.")
    table = pareto.values(results, goals)
    if len(table) < 2:
        return Volume((), (), "", "Fewer than two trials have a value of every objective.")
    score = table.to_numpy() * np.array([1.0 if goal.mode == "max" else -1.0 for goal in goals])
    spread = np.where(np.ptp(score, axis=0) == 0, 1.0, np.ptp(score, axis=0))
    course = volumes((score - score.min(axis=0)) / spread)
    number = results.trials.loc[table.index, "number"]
    names = " and ".join(style.metric(results, goal).label for goal in goals)
    return Volume(
        tuple(map(int, number)), tuple(100 * v for v in course), f"reached of {names} together (%)"
    )  # fmt: skip


def volumes(points: NDArray[np.float64]) -> list[float]:
    """The area that is dominated by the first 1, 2, ... of points (n, 2) in the unit square, larger is better."""
    found: list[float] = []
    front: list[tuple[float, float]] = []
    for x, y in points:
        if not any(a >= x and b >= y for a, b in front):
            front = sorted([(a, b) for a, b in front if a > x or b > y] + [(float(x), float(y))], reverse=True)
        area, floor = 0.0, 0.0
        for a, b in front:  # from the right: each step adds what rises above the one before
            area, floor = area + a * (b - floor), b
        found.append(area)
    return found


def draw(it: Volume) -> Figure:
    """A line in steps."""
    if it.note:
        return canvas.empty(it.note)
    figure = canvas.plot()
    figure.add_scatter(
        x=it.x, y=it.share, mode="lines", line={"shape": "hv", "color": style.ACCENT, "width": 3}, showlegend=False,
        hovertemplate="trial %{x}: %{y:.1f}%<extra></extra>",
    )  # fmt: skip
    figure.update_layout(
        height=340, xaxis={"title": {"text": "trial"}, "tickformat": ",d"},
        yaxis={"title": {"text": style.safe(it.y_title)}, "range": [0, 103]},
    )  # fmt: skip
    return figure


def draw_static(it: Volume) -> StaticFigure:
    """The same for paper."""
    if it.note:
        return canvas.empty_static(it.note)
    figure, axes = canvas.sheet(10, 4)
    axes.step(it.x, it.share, where="post", color=style.ACCENT, lw=2.8)
    axes.set(xlabel="trial", ylabel=it.y_title, ylim=(0, 103))
    axes.grid(color=style.THEMES["light"]["grid"])
    return figure
