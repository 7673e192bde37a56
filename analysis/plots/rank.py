"""Ranks: the trials in the plane of each pair of the settings that mattered most, coloured by how they stood."""

from __future__ import annotations

import math
from itertools import combinations
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from analysis import fidelity, style
from analysis.importance import FEWEST, Weighed, weigh
from analysis.plots import canvas
from analysis.plots.effects import COLUMNS, ticks
from analysis.results import Results
from analysis.settings import Setting

if TYPE_CHECKING:
    from matplotlib.figure import Figure as StaticFigure
    from plotly.graph_objects import Figure

MOST_SETTINGS = 4  # six pairs
MOST_DOTS = 500  # a panel
Ticks = canvas.Ticks | None


class Pair(NamedTuple):
    """Two settings. x, y: trials, the best last; shade: of how many others each was ahead, in percent."""

    x_title: str
    y_title: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    shade: tuple[float, ...]
    x_ticks: Ticks
    y_ticks: Ticks
    hover: tuple[str, ...]


class Pairs(NamedTuple):
    """What is drawn."""

    pairs: tuple[Pair, ...]
    note: str = ""


def compute(results: Results, weighed: Weighed | None = None) -> Pairs:
    """The four most important settings, two by two, where trials used both; at most 500 trials, evenly by rank."""
    found = (weigh(results) if weighed is None else weighed).effects[:MOST_SETTINGS]
    if len(found) < 2:
        return Pairs((), f"Fewer than {FEWEST} trials can be compared, or less than two settings varied.")
    score = fidelity.standing(results).to_numpy(dtype=float)
    names = [style.name(*pair) for pair in zip(results.trials.index, results.trials["label"], strict=True)]
    made = [_pair(one.setting, two.setting, score, names) for one, two in combinations(found, 2)]
    return Pairs(tuple(one for one in made if one.x))


def _pair(one: Setting, two: Setting, score: np.ndarray, names: list[str]) -> Pair:
    inside = np.flatnonzero(one.used() & two.used() & np.isfinite(score))
    inside = inside[np.argsort(score[inside], kind="stable")]
    inside = inside[np.linspace(0, len(inside) - 1, min(len(inside), MOST_DOTS)).round().astype(int)]
    rng = np.random.default_rng(0)
    x, y = (
        s.x[inside] + (rng.uniform(-0.22, 0.22, len(inside)) * np.diff(s.distinct).min() if s.distinct else 0)
        for s in (one, two)
    )
    hover = tuple(
        f"{names[n]}: {one.label} {one.text(one.x[n])}, {two.label} {two.text(two.x[n])}, ahead of {score[n]:.0%}"
        for n in inside
    )
    titles = [s.label + (" (log)" if s.log else "") for s in (one, two)]
    return Pair(
        titles[0], titles[1], tuple(map(float, x)), tuple(map(float, y)), tuple(map(float, 100 * score[inside])),
        ticks(one), ticks(two), hover,
    )  # fmt: skip


BAR = "ahead of (%)"


def draw(it: Pairs) -> Figure:
    """The better, the stronger."""
    if it.note:
        return canvas.empty(it.note)
    from plotly.subplots import make_subplots

    rows, columns = math.ceil(len(it.pairs) / COLUMNS), min(COLUMNS, len(it.pairs))
    figure = make_subplots(rows, columns, horizontal_spacing=0.14, vertical_spacing=0.3 / rows)
    for n, one in enumerate(it.pairs):
        row, column = n // COLUMNS + 1, n % COLUMNS + 1
        figure.add_scatter(
            x=one.x, y=one.y, mode="markers", row=row, col=column, showlegend=False,
            marker={"size": 8, "color": one.shade, "coloraxis": "coloraxis"},
            customdata=[style.safe(h) for h in one.hover], hovertemplate="%{customdata}<extra></extra>",
        )  # fmt: skip
        for update, title, marks in (
            (figure.update_xaxes, one.x_title, one.x_ticks),
            (figure.update_yaxes, one.y_title, one.y_ticks),
        ):
            axis: dict[str, Any] = {"title": {"text": style.safe(canvas.cut(title, 24)), "standoff": 4}}
            if marks:
                axis |= {"tickvals": list(marks[0]), "ticktext": [style.safe(canvas.cut(t, 10)) for t in marks[1]]}
            update(**axis, row=row, col=column)
    figure.update_layout(
        template=style.template("light"), height=60 + 260 * rows, margin={"t": 20},
        coloraxis={"cmin": 0, "cmax": 100, "colorbar": {"title": {"text": BAR}}},
    )  # fmt: skip
    return figure


def draw_static(it: Pairs) -> StaticFigure:
    """The same for paper."""
    from matplotlib.colors import LinearSegmentedColormap

    if it.note:
        return canvas.empty_static(it.note)
    rows, columns = math.ceil(len(it.pairs) / COLUMNS), min(COLUMNS, len(it.pairs))
    figure, sheets = canvas.panels(10, 0.3 + 2.7 * rows, rows, columns)
    scale = LinearSegmentedColormap.from_list("metric", style.VIRIDIS[::-1])
    drawn: Any = None
    for sheet, one in zip(sheets, it.pairs, strict=False):
        drawn = sheet.scatter(one.x, one.y, c=one.shade, cmap=scale, vmin=0, vmax=100, s=24)
        sheet.set(xlabel=canvas.cut(one.x_title, 24), ylabel=canvas.cut(one.y_title, 24))
        if one.x_ticks:
            canvas.x_ticks(sheet, one.x_ticks)
        if one.y_ticks:
            sheet.set_yticks(one.y_ticks[0], [canvas.cut(t, 10) for t in one.y_ticks[1]])
        sheet.grid(color=style.THEMES["light"]["grid"])
    for sheet in sheets[len(it.pairs) :]:
        sheet.set_visible(False)
    figure.colorbar(drawn, ax=sheets, label=BAR, shrink=0.8, pad=0.02).outline.set_visible(False)
    return figure
