"""Parallel coordinates: every trial a line through its settings to its result."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from analysis import fidelity, style
from analysis.plots import canvas
from analysis.plots.dimensions import NOT_USED, dimensions
from analysis.results import Results

if TYPE_CHECKING:
    from matplotlib.figure import Figure as StaticFigure
    from plotly.graph_objects import Figure

MOST_LINES = 1000  # a browser draws that many in about a second; 10,000 take it 10 to 20


class Lane(NamedTuple):
    """One vertical axis. positions: one a trial, on an axis that ends at `low` and `high`.

    A missing value lies at `low`, on a lane of its own below the others.
    """

    title: str
    positions: tuple[float, ...]
    low: float
    high: float
    ticks: tuple[float, ...]
    texts: tuple[str, ...]


class Parallel(NamedTuple):
    """What is drawn: trials from worst to best, so that the best lies on top.

    colour: the metric as shown, within colour_range; a trial without a value takes the worst one's.
    """

    trials: tuple[str, ...]
    finished: tuple[bool, ...]
    lanes: tuple[Lane, ...]
    colour: tuple[float, ...]
    colour_range: tuple[float, float]
    colour_title: str
    maximise: bool
    note: str = ""


def compute(results: Results) -> Parallel:
    """Lanes for the searched columns, the epochs and the metric; at most 1,000 trials, evenly over the ranks."""
    metric = style.metric(results)
    shown = fidelity.spread(fidelity.order(results), MOST_LINES)[::-1]
    maximise = results.mode == "max"
    empty = Parallel((), (), (), (), (0.0, 1.0), metric.axis, maximise)
    table = results.trials.loc[shown]
    value = style.metric_values(results, table) * metric.factor
    if value.notna().sum() == 0:
        return empty._replace(note="No trial has a value yet.")
    dims = dimensions(results)
    if not dims:
        return empty._replace(note="No setting varied between the trials.")
    lanes = []
    for dim in dims:
        at = dim.positions(table[dim.column])
        lanes.append(_lane(dim.title, at, dim.ticks(at), NOT_USED, len(dim.categories)))
    epochs = pd.to_numeric(table["epochs"], errors="coerce").astype(float)
    distinct = sorted(set(epochs.dropna()))
    if len(distinct) > 1:
        ticks = (distinct, [style.number(e) for e in distinct]) if len(distinct) <= 12 else None
        lanes.append(_lane("epochs trained", epochs, ticks, "none"))
    lanes.append(_lane(metric.axis, value, None, "none"))
    worst = value.min() if maximise else value.max()
    colour = value.fillna(worst)
    low, high = float(colour.min()), float(colour.max())
    if low == high:
        low, high = low - 0.5, high + 0.5
    finished = tuple(bool(state == "finished") for state in table["state"])
    return Parallel(tuple(shown), finished, tuple(lanes), tuple(colour), (low, high), metric.axis, maximise)


def _lane(
    title: str, at: pd.Series[float], ticks: tuple[list[float], list[str]] | None, missing: str, categories: int = 0
) -> Lane:
    present = at.dropna()
    low, high = (float(present.min()), float(present.max())) if len(present) else (0.0, 1.0)
    if categories:
        low, high = 0.0, categories - 1.0
    if low == high:
        low, high = low - 0.5, high + 0.5
    if ticks is None:
        places = _round_ticks(low, high)
        low, high = min(low, places[0]), max(high, places[-1])
        ticks = places, [style.number(p) for p in places]
    places, words = list(ticks[0]), list(ticks[1])
    if at.isna().any():
        low -= (high - low) / (max(categories - 1, 5) if categories else 6)
        places, words = [low, *places], [missing, *words]
    return Lane(title, tuple(at.fillna(low)), low, high, tuple(places), tuple(words))


def _round_ticks(low: float, high: float) -> list[float]:
    """Four to eight round values from at or below `low` to at or above `high`."""
    raw = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(s * power for s in (1, 2, 2.5, 5, 10) if s * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def draw(it: Parallel) -> Figure:
    """Brushable: drag along an axis to keep the trials that pass there, drag a title to move an axis."""
    if it.note:
        return canvas.empty(it.note)
    figure = canvas.plot()
    figure.add_parcoords(
        line={"color": list(it.colour), "coloraxis": "coloraxis"},
        dimensions=[
            {
                "label": style.safe(lane.title),
                "values": list(lane.positions),
                "range": [lane.low, lane.high],
                "tickvals": list(lane.ticks),
                "ticktext": [style.safe(t) for t in lane.texts],
            }
            for lane in it.lanes
        ],
        labelside="top",
        labelangle=-20 if len(it.lanes) > 7 else 0,
        unselected={"line": {"color": style.PALE, "opacity": 0.12}},
    )
    figure.update_layout(
        height=460 if len(it.lanes) > 7 else 420,
        margin={"l": 70, "r": 40, "t": 110 if len(it.lanes) > 7 else 60, "b": 30},
        coloraxis={
            "cmin": it.colour_range[0],
            "cmax": it.colour_range[1],
            "reversescale": not it.maximise,
            "colorbar": {"title": {"text": style.safe(it.colour_title)}, "x": 1.06},
        },
    )
    return figure


def draw_static(it: Parallel) -> StaticFigure:
    """Curves instead of straight lines: trials can be told apart between lanes. The best in the accent colour."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap, Normalize

    if it.note:
        return canvas.empty_static(it.note)
    figure, axes = canvas.sheet(10, 5)
    scale = style.VIRIDIS[::-1] if it.maximise else style.VIRIDIS
    colours = ScalarMappable(Normalize(*it.colour_range), LinearSegmentedColormap.from_list("metric", scale))
    rgba = colours.to_rgba(np.array(it.colour))
    heights = np.array([_fraction(lane) for lane in it.lanes])
    ease = (1 - np.cos(np.linspace(0, np.pi, 40))) / 2
    for n, trial in enumerate(it.trials):
        best = n == len(it.trials) - 1
        x = np.concatenate([np.linspace(k, k + 1, 40) for k in range(len(it.lanes) - 1)])
        y = np.concatenate([a + (b - a) * ease for a, b in zip(heights[:-1, n], heights[1:, n], strict=True)])
        look: dict[str, Any] = {"color": style.ACCENT, "lw": 2.6, "alpha": 1.0} if best else {
            "color": rgba[n], "lw": 1.5, "alpha": 0.9 if it.finished[n] else 0.45,
        }  # fmt: skip
        axes.plot(x, y, label=f"best: trial {trial}" if best else None, **look)
    for k, lane in enumerate(it.lanes):
        axes.axvline(k, color="#59636e", lw=0.8, zorder=0)
        for at, text in zip(lane.ticks, lane.texts, strict=True):
            height = (at - lane.low) / (lane.high - lane.low)
            last = k == len(it.lanes) - 1
            axes.annotate(
                text, (k, height), (5 if last else -5, 0), textcoords="offset points", ha="left" if last else "right",
                va="center", fontsize=9, bbox={"fc": "white", "ec": "none", "alpha": 0.7, "pad": 0.5},
            )  # fmt: skip
    axes.set_xticks(range(len(it.lanes)), [canvas.wrap(lane.title) for lane in it.lanes])
    axes.xaxis.tick_top()
    axes.tick_params(axis="x", length=0)
    if len(it.lanes) > 7:
        axes.set_xticks(axes.get_xticks(), [lane.title for lane in it.lanes], rotation=28, ha="left")
    axes.set_yticks([])
    axes.set_xlim(-0.3, len(it.lanes) - 0.7)
    for side in axes.spines.values():
        side.set_visible(False)
    figure.colorbar(colours, ax=axes, label=it.colour_title, shrink=0.8, pad=0.02).outline.set_visible(False)
    figure.legend(loc="outside lower center", frameon=False)
    return figure


def _fraction(lane: Lane) -> list[float]:
    return [(p - lane.low) / (lane.high - lane.low) for p in lane.positions]
