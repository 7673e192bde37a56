"""Parallel coordinates: every trial a line through its settings to its result."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis import fidelity, style
from analysis.plots import canvas
from analysis.plots.dimensions import NOT_USED, dimensions
from analysis.results import Results

if TYPE_CHECKING:
    from matplotlib.figure import Figure as StaticFigure
    from plotly.graph_objects import Figure

MOST_LINES = 2000  # more hide each other; the page's own canvas draws as many in a tenth of a second
MOST_PLOTLY = 1000  # Plotly needs about a second for that many, 10 to 20 for 10,000
MOST_BOLD = 100  # more bold lines than that, and none stands out


class Lane(NamedTuple):
    """One vertical axis from `low` to `high`.

    positions: the value of each trial: a number, its logarithm to base 10, or the index of a category; NaN if missing.
    crossings: where its line crosses the axis: where several trials share a position of a lane with few of them, they
    lie side by side, the better the higher; missing ones do so at `floor`, below `low` (None where none is missing).
    exact: every value has a tick of its own.
    """

    title: str
    kind: Literal["number", "log", "category"]
    exact: bool
    positions: tuple[float, ...]
    crossings: tuple[float, ...]
    low: float
    high: float
    ticks: tuple[float, ...]
    texts: tuple[str, ...]
    floor: float | None
    missing: str

    @property
    def bottom(self) -> float:
        """The lower end of the axis with the lane of missing values."""
        return self.low if self.floor is None else self.floor - (self.low - self.floor) / 4

    @property
    def labels(self) -> tuple[tuple[float, str], ...]:
        """All ticks with their texts, that of the missing values too."""
        pairs = tuple(zip(self.ticks, self.texts, strict=True))
        return pairs if self.floor is None else ((self.floor, self.missing), *pairs)


class Parallel(NamedTuple):
    """What is drawn: trials from worst to best, so that the best lies on top.

    names, reached, outcomes: of each trial, in words. colour: the metric as shown, within colour_range; a trial without
    a value takes the worst one's. The last lane is the metric's. bold: so many of the last trials stand out, the best
    tenth. total: trials that were ranked, of which these are drawn.
    """

    trials: tuple[str, ...]
    names: tuple[str, ...]
    reached: tuple[str, ...]
    outcomes: tuple[str, ...]
    lanes: tuple[Lane, ...]
    colour: tuple[float, ...]
    colour_range: tuple[float, float]
    colour_title: str
    metric: str
    maximise: bool
    bold: int
    total: int
    note: str = ""


def compute(results: Results) -> Parallel:
    """Lanes for the searched columns, the epochs and the metric; at most 2,000 trials (see `thin`)."""
    metric = style.metric(results)
    ranked = fidelity.order(results)
    shown = [ranked[rank] for rank in thin(len(ranked), MOST_LINES)[::-1]]
    maximise = results.mode == "max"
    empty = Parallel((), (), (), (), (), (), (0.0, 1.0), metric.axis, metric.label, maximise, 0, len(ranked))
    table = results.trials.loc[shown]
    raw = style.metric_values(results, table)
    value = raw * metric.factor
    if value.notna().sum() == 0:
        return empty._replace(note="No trial has a value yet.")
    dims = dimensions(results)
    if not dims:
        return empty._replace(note="No setting varied between the trials.")
    lanes = []
    for dim in dims:
        at = dim.positions(table[dim.column])
        at = at.where(at.abs() < math.inf)
        kind: Literal["number", "log", "category"] = "log" if dim.log else "number" if dim.ordered else "category"
        lanes.append(_lane(dim.title, kind, at, dim.ticks(at), NOT_USED))
    epochs = pd.to_numeric(table["epochs"], errors="coerce").astype(float)
    distinct = sorted(set(epochs.dropna()))
    if len(distinct) > 1:
        ticks = (distinct, [style.number(e) for e in distinct]) if len(distinct) <= 6 else None
        lanes.append(_lane("epochs trained", "number", epochs, ticks, "none"))
    lanes.append(_lane(metric.axis, "number", value, None, "none"))
    colour = value.fillna(value.min() if maximise else value.max())
    low, high = float(colour.min()), float(colour.max())
    if low == high:
        low, high = low - 0.5, high + 0.5
    told = table[["label", "state", "epochs", "repeat_of", "breaks"]].to_dict("records")
    return Parallel(
        trials=tuple(shown),
        names=tuple(style.name(trial, row["label"]) for trial, row in zip(shown, told, strict=True)),
        reached=tuple(metric.text(v) for v in raw.tolist()),
        outcomes=tuple(style.outcome(row) for row in told),
        lanes=tuple(lanes),
        colour=tuple(colour.tolist()),
        colour_range=(low, high),
        colour_title=metric.axis,
        metric=metric.label,
        maximise=maximise,
        bold=min(math.ceil(len(ranked) / 10), MOST_BOLD),
        total=len(ranked),
    )


def thin(count: int, most: int) -> NDArray[np.intp]:
    """Ranks to draw, 0 the best: the best tenth whole, as far as half of `most`, the rest evenly to the last."""
    if count <= most:
        return np.arange(count)
    head = min(math.ceil(count / 10), most // 2)
    return np.concatenate([np.arange(head), np.linspace(head, count - 1, most - head).round().astype(np.intp)])


def _lane(
    title: str,
    kind: Literal["number", "log", "category"],
    at: pd.Series[float],
    ticks: tuple[list[float], list[str]] | None,
    missing: str,
) -> Lane:
    exact = ticks is not None and kind != "log"
    ends = [*at.dropna(), *(ticks[0] if ticks and exact else ())]
    low, high = (float(min(ends)), float(max(ends))) if ends else (0.0, 1.0)
    if low == high:
        low, high = low - 0.5, high + 0.5
    if ticks is None:
        places = _round_ticks(low, high)
        low, high = min(low, places[0]), max(high, places[-1])
        ticks = places, [style.number(p) for p in places]
    span = high - low
    gap = min(np.diff(ticks[0]), default=span) if exact else span
    if exact:  # room for what lies side by side at the ends
        low, high = low - min(0.3 * gap, 0.05 * span), high + min(0.3 * gap, 0.05 * span)
    floor = low - span / 7 if bool(at.isna().any()) else None
    crossings = at if floor is None else at.fillna(floor)
    apart = crossings if exact else crossings.where(at.isna())
    room = min(0.3 * gap, 0.05 * span) if exact else 0.03 * span
    return Lane(
        title,
        kind,
        exact,
        tuple(at.tolist()),
        tuple((crossings + room * _side_by_side(apart)).tolist()),
        low,
        high,
        tuple(float(t) for t in ticks[0]),
        tuple(ticks[1]),
        floor,
        missing if floor is not None else "",
    )


def _side_by_side(at: pd.Series[float]) -> pd.Series[float]:
    """-1 to 1 for the first to the last of those with the same value, less for a few of them; 0 for NaN and for one."""
    among = at.groupby(at)
    count = among.transform("size")
    share = 2 * among.cumcount() / (count - 1).where(count > 1) - 1
    return (share * (count / 20).clip(upper=1)).fillna(0.0).where(at.notna(), 0.0)


def _round_ticks(low: float, high: float) -> list[float]:
    """Four to eight round values from at or below `low` to at or above `high`."""
    raw = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(s * power for s in (1, 2, 2.5, 5, 10) if s * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


# ---------------------------------------------------------------- the page's own widget


def page_json(it: Parallel) -> dict[str, Any]:
    """What parallel.js draws, as plain JSON: null for NaN, positions to nine digits, colours of both themes.

    A scale goes from the worst to the best in 64 steps; `crossings` is left out of a lane where it says what
    `positions` says. Not for an `it` with a note: it has no lanes.
    """
    return {
        "trials": it.trials,
        "names": it.names,
        "reached": it.reached,
        "outcomes": it.outcomes,
        "metric": it.metric,
        "maximise": it.maximise,
        "bold": it.bold,
        "total": it.total,
        "lanes": [
            {
                "title": lane.title,
                "kind": lane.kind,
                "exact": lane.exact,
                "positions": _plain(lane.positions),
                **({} if lane.crossings == lane.positions else {"crossings": _plain(lane.crossings)}),
                "bottom": lane.bottom,
                "high": lane.high,
                "floor": lane.floor,
                "labels": lane.labels,
            }
            for lane in it.lanes
        ],
        "accent": style.ACCENT,
        "pale": style.PALE,
        "categories": style.CATEGORIES,
        "scales": {theme: _steps([colour for _, colour in style.metric_scale(theme)]) for theme in style.THEMES},
        "themes": style.THEMES,
    }


def _plain(positions: tuple[float, ...]) -> list[float | None]:
    return [None if math.isnan(p) else float(f"{p:.9g}") for p in positions]


def _steps(colours: list[str]) -> list[str]:
    """64 colours evenly along a scale: so many that nobody sees a step."""
    channels = np.array([[int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in colours])
    at = np.linspace(0, len(colours) - 1, 64)
    steps = np.stack([np.interp(at, np.arange(len(colours)), channel) for channel in channels.T], axis=1)
    return ["#{:02x}{:02x}{:02x}".format(*step) for step in steps.round().astype(int).tolist()]


# ---------------------------------------------------------------- notebooks and paper


def draw(it: Parallel) -> Figure:
    """For notebooks, at most 1,000 lines: drag along an axis to keep the trials that pass there, a title to move it."""
    if it.note:
        return canvas.empty(it.note)
    some = len(it.trials) - 1 - thin(len(it.trials), MOST_PLOTLY)[::-1]
    figure = canvas.plot()
    figure.add_parcoords(
        line={"color": np.array(it.colour)[some].tolist(), "coloraxis": "coloraxis"},
        dimensions=[
            {
                "label": style.safe(lane.title),
                "values": np.array(lane.crossings)[some].tolist(),
                "range": [lane.bottom, lane.high],
                "tickvals": [at for at, _ in lane.labels],
                "ticktext": [style.safe(text) for _, text in lane.labels],
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
    from matplotlib.collections import LineCollection
    from matplotlib.colors import LinearSegmentedColormap, Normalize

    if it.note:
        return canvas.empty_static(it.note)
    figure, axes = canvas.sheet(10, 5)
    scale = style.VIRIDIS[::-1] if it.maximise else style.VIRIDIS
    colours = ScalarMappable(Normalize(*it.colour_range), LinearSegmentedColormap.from_list("metric", scale))
    count, bold = len(it.trials), np.arange(len(it.trials)) >= len(it.trials) - it.bold
    rgba = colours.to_rgba(np.array(it.colour))
    rgba[:, 3] = np.where(bold, 1, max(0.13, min(0.85, 60 / count)))  # of many lines, what they share shows
    heights = np.array([[_height(lane, at) for at in lane.crossings] for lane in it.lanes]).T
    ease = (1 - np.cos(np.linspace(0, np.pi, 33 if count < 300 else 17)[:-1])) / 2
    steps = heights[:, :-1, None] + np.diff(heights, axis=1)[:, :, None] * ease
    y = np.hstack([steps.reshape(count, -1), heights[:, -1:]])
    x = np.linspace(0, len(it.lanes) - 1, y.shape[1])
    lines = np.stack([np.broadcast_to(x, y.shape), y], axis=2)
    axes.add_collection(LineCollection(list(lines[:-1]), colors=rgba[:-1], linewidths=np.where(bold, 1.8, 1.1)[:-1]))
    axes.plot(x, y[-1], color=style.ACCENT, lw=3, label=f"best: {it.names[-1]}, {it.reached[-1]}")
    for k, lane in enumerate(it.lanes):
        axes.axvline(k, color="#59636e", lw=0.8, zorder=0)
        last = k == len(it.lanes) - 1
        free = 0.0
        for at, text in lane.labels:
            height = _height(lane, at)
            if height < free:  # no room for its text
                continue
            free = height + 0.035
            axes.annotate(
                text if len(text) <= 20 else f"{text[:19]}…", (k, height), (5 if last else -5, 0),
                textcoords="offset points", ha="left" if last else "right", va="center", fontsize=9,
                bbox={"fc": "white", "ec": "none", "alpha": 0.7, "pad": 0.5},
            )  # fmt: skip
    axes.set_xticks(range(len(it.lanes)), [canvas.wrap(lane.title, max(9, 100 // len(it.lanes))) for lane in it.lanes])
    axes.xaxis.tick_top()
    axes.tick_params(axis="x", length=0, labelsize=11 if len(it.lanes) < 8 else 9)
    if len(it.lanes) > 12:
        axes.set_xticks(axes.get_xticks(), [lane.title for lane in it.lanes], rotation=28, ha="left")
    axes.set_yticks([])
    axes.set_xlim(-0.3, len(it.lanes) - 0.7)
    axes.set_ylim(-0.02, 1.02)
    for side in axes.spines.values():
        side.set_visible(False)
    figure.colorbar(colours, ax=axes, label=it.colour_title, shrink=0.8, pad=0.02).outline.set_visible(False)
    figure.legend(loc="outside lower center", frameon=False)
    return figure


def _height(lane: Lane, at: float) -> float:
    return (at - lane.bottom) / (lane.high - lane.bottom)
