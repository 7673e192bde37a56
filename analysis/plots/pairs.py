"""Pairs: what a forest expects of two settings together, a map for each of the strongest pairs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from analysis import fidelity, style
from analysis.interactions import FEWEST, SHUFFLES, Interaction, interactions
from analysis.plots import canvas
from analysis.plots.effects import ticks
from analysis.results import Results
from analysis.settings import Setting, settings

if TYPE_CHECKING:
    from matplotlib.figure import Figure as StaticFigure
    from plotly.graph_objects import Figure

MOST_MAPS, COLUMNS = 4, 2
MOST_DOTS = 300  # a map
Ticks = canvas.Ticks | None


class Map(NamedTuple):
    """One pair. z: expected standing in percent, rows along y; dots: trials; hover: theirs; said: how sure it is."""

    x_title: str
    y_title: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    z: tuple[tuple[float, ...], ...]
    x_ticks: Ticks
    y_ticks: Ticks
    dots: tuple[tuple[float, float], ...]
    hover: tuple[str, ...]
    said: str


class Maps(NamedTuple):
    """What is drawn, the surest and strongest pair first."""

    maps: tuple[Map, ...]
    note: str = ""


def compute(results: Results, found: Sequence[Interaction] | None = None) -> Maps:
    """At most four pairs. found: what `interactions` says of the run, where that is known already."""
    found = interactions(results) if found is None else found
    if not found:
        return Maps((), f"Fewer than {FEWEST} trials can be compared, or less than two settings varied.")
    score = fidelity.standing(results).to_numpy(dtype=float)
    by_name = {s.name: s for s in settings(results, np.isfinite(score))}
    names = [style.name(*pair) for pair in zip(results.trials.index, results.trials["label"], strict=True)]
    return Maps(tuple(_map(pair, by_name, score, names) for pair in found[:MOST_MAPS]))


def _map(pair: Interaction, by_name: dict[str, Setting], score: np.ndarray, names: list[str]) -> Map:
    one, two = by_name[pair.first], by_name[pair.second]
    surface, at, across = pair.surface.T, pair.first_at, pair.second_at
    if one.distinct and not two.distinct:  # the setting of few values goes up, the other along
        one, two, surface, at, across = two, one, surface.T, across, at
    inside = np.flatnonzero(one.used() & two.used() & np.isfinite(score))
    inside = inside[np.linspace(0, len(inside) - 1, min(len(inside), MOST_DOTS)).round().astype(int)]
    rng = np.random.default_rng(0)
    places = [
        s.x[inside] + (rng.uniform(-0.2, 0.2, len(inside)) * np.diff(s.distinct).min() if s.distinct else 0)
        for s in (one, two)
    ]
    hover = tuple(
        f"{names[n]}: {one.label} {one.text(one.x[n])}, {two.label} {two.text(two.x[n])}, ahead of {score[n]:.0%}"
        for n in inside
    )
    sure = f"p {'≤' if pair.p <= 1 / SHUFFLES else '='} {pair.p:.2g}"
    said = f"{pair.share:.0%} of all differences, {sure}" if pair.share >= 0.005 else "no more than chance"
    return Map(
        _title(one), _title(two), tuple(map(float, at)), tuple(map(float, across)),
        tuple(tuple(round(100 * float(v), 1) for v in row) for row in surface), ticks(one), ticks(two),
        tuple((float(x), float(y)) for x, y in zip(*places, strict=True)), hover, said,
    )  # fmt: skip


def _title(setting: Setting) -> str:
    return setting.label + (" (log)" if setting.log else "")


BAR = "expected to be ahead of (%)"


def draw(it: Maps) -> Figure:
    """Colours as everywhere: the better, the stronger; trials as rings."""
    if it.note:
        return canvas.empty(it.note)
    from plotly.subplots import make_subplots

    rows, columns = math.ceil(len(it.maps) / COLUMNS), min(COLUMNS, len(it.maps))
    figure = make_subplots(
        rows, columns, horizontal_spacing=0.15, vertical_spacing=0.34 / rows,
        subplot_titles=[style.safe(canvas.wrap(one.said, 36)).replace("\n", "<br>") for one in it.maps],
    )  # fmt: skip
    for n, one in enumerate(it.maps):
        row, column = n // COLUMNS + 1, n % COLUMNS + 1
        figure.add_heatmap(
            x=one.x, y=one.y, z=one.z, coloraxis="coloraxis", row=row, col=column,
            zsmooth="best" if not (_few(one.x_ticks, one.x) or _few(one.y_ticks, one.y)) else False,
            hovertemplate="expected to be ahead of %{z:.0f}%<extra></extra>",
        )  # fmt: skip
        figure.add_scatter(
            x=[x for x, _ in one.dots], y=[y for _, y in one.dots], mode="markers", row=row, col=column,
            marker={"size": 6, "symbol": "circle-open", "color": "#ffffff", "line": {"width": 1}}, opacity=0.8,
            customdata=[style.safe(h) for h in one.hover], hovertemplate="%{customdata}<extra></extra>",
            showlegend=False,
        )  # fmt: skip
        for update, title, marks in (
            (figure.update_xaxes, one.x_title, one.x_ticks),
            (figure.update_yaxes, one.y_title, one.y_ticks),
        ):
            axis: dict[str, Any] = {
                "title": {"text": style.safe(canvas.cut(title, 24)), "standoff": 6},
                "showgrid": False,
            }
            if marks:
                axis |= {"tickvals": list(marks[0]), "ticktext": [style.safe(canvas.cut(t, 10)) for t in marks[1]]}
            update(**axis, row=row, col=column)
    figure.update_annotations(font={"size": 13})
    figure.update_layout(
        template=style.template("light"), height=60 + 330 * rows, margin={"t": 50},
        coloraxis={"colorbar": {"title": {"text": BAR}}},
    )  # fmt: skip
    return figure


def _few(marks: Ticks, at: tuple[float, ...]) -> bool:
    return marks is not None and bool(marks[0]) and set(marks[0]) <= set(at)


def draw_static(it: Maps) -> StaticFigure:
    """The same for paper."""
    from matplotlib.colors import LinearSegmentedColormap

    if it.note:
        return canvas.empty_static(it.note)
    rows, columns = math.ceil(len(it.maps) / COLUMNS), min(COLUMNS, len(it.maps))
    figure, sheets = canvas.panels(10, 0.3 + 3.6 * rows, rows, columns)
    values = [v for one in it.maps for row in one.z for v in row]
    scale = LinearSegmentedColormap.from_list("metric", style.VIRIDIS[::-1])
    drawn = None
    for sheet, one in zip(sheets, it.maps, strict=False):
        drawn = sheet.pcolormesh(one.x, one.y, one.z, shading="nearest", cmap=scale, vmin=min(values), vmax=max(values))
        x, y = zip(*one.dots, strict=True) if one.dots else ((), ())
        sheet.scatter(x, y, s=16, facecolors="none", edgecolors="white", linewidths=0.8, alpha=0.8)
        sheet.set(xlabel=canvas.cut(one.x_title, 24), ylabel=canvas.cut(one.y_title, 24))
        sheet.set_title(one.said, fontsize=10, loc="left")
        if one.x_ticks:
            canvas.x_ticks(sheet, one.x_ticks)
        if one.y_ticks:
            sheet.set_yticks(one.y_ticks[0], [canvas.cut(t, 10) for t in one.y_ticks[1]])
    for sheet in sheets[len(it.maps) :]:
        sheet.set_visible(False)
    if drawn is not None:
        figure.colorbar(drawn, ax=sheets, label=BAR, shrink=0.8, pad=0.02).outline.set_visible(False)
    return figure
