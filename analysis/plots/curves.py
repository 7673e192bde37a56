"""Learning curves: the metric over the epochs, every trial a line."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis import fidelity, style
from analysis.plots import canvas
from analysis.results import Results

if TYPE_CHECKING:
    from matplotlib.figure import Figure as StaticFigure
    from plotly.graph_objects import Figure

MOST_LINES = 300  # more cannot be told apart
MOST_POINTS = 20_000  # of all lines: 18 bytes each in the page
LEAST_LINES = 40
CROWD = 60  # of one kind: paler, or they are one surface
FEWEST = 5  # trials that make a median


class Curve(NamedTuple):
    """One trial: y is the metric as shown at each epoch that has a value. hover: its name; end: how it ended."""

    trial: str
    state: str
    epochs: tuple[int, ...]
    y: tuple[float, ...]
    hover: str
    end: str


class Band(NamedTuple):
    """Of all trials that got to an epoch, drawn or not: the quartiles of their metric there, as shown."""

    epochs: tuple[int, ...]
    low: tuple[float, ...]
    median: tuple[float, ...]
    high: tuple[float, ...]


class Curves(NamedTuple):
    """What is drawn, from the worst to the best trial. best: the accented one. full: epochs of a full training.

    band: shown from the start where not all trials are, else by a click on the legend; None for fewer than 5 trials.
    """

    curves: tuple[Curve, ...]
    best: str | None
    best_label: str
    full: int
    y_title: str
    maximise: bool = True
    band: Band | None = None
    thinned: bool = False
    said: str = ""
    note: str = ""


def compute(results: Results) -> Curves:
    """At most 300 trials and about 20,000 points, evenly over the ranks; epochs without a value are gaps in the data
    and left out.
    """
    metric = style.metric(results)
    best = results.best()
    values = (style.metric_values(results, results.epochs) * metric.factor).to_numpy()
    known = np.flatnonzero(np.isfinite(values))
    if not len(known):
        return Curves((), None, "", 0, metric.axis, note="No trial has a value yet.")
    trial, epoch = results.epochs["trial"].to_numpy()[known], results.epochs["epoch"].to_numpy()[known]
    present = set(trial)
    ranked = [t for t in fidelity.order(results) if t in present]
    each = max(1.0, len(known) / len(present))
    shown = fidelity.spread(ranked, min(MOST_LINES, max(LEAST_LINES, int(MOST_POINTS / each))))[::-1]
    table = results.trials.loc[shown, ["label", "state", "epochs", "repeat_of", "breaks"]]
    place = pd.Series(trial).map({t: n for n, t in enumerate(shown)}).to_numpy(dtype=float)
    drawn = np.flatnonzero(np.isfinite(place))
    drawn = drawn[np.lexsort((epoch[drawn], place[drawn]))]
    x, y = epoch[drawn].tolist(), values[known][drawn].tolist()
    bounds = np.searchsorted(place[drawn], np.arange(len(shown) + 1)).tolist()
    curves = tuple(
        Curve(
            str(row.name), str(row["state"]), tuple(x[first:last]), tuple(y[first:last]), style.called(row),
            style.outcome(row),
        )
        for (_, row), first, last in zip(table.iterrows(), bounds, bounds[1:], strict=False)
    )  # fmt: skip
    best_value = style.metric_values(results, results.trials)
    label = f"trial {best}, best {metric.text(best_value[best])}" if best else ""
    full = results.trials["full_epochs"].max()
    reached = int(epoch.max())
    said = (
        f"{len(shown):,} of {len(ranked):,} trials are drawn, evenly over the ranks."
        if len(shown) < len(ranked)
        else ""
    )
    return Curves(
        curves, best, label, reached if math.isnan(full) else max(int(full), reached), metric.axis,
        results.mode == "max", _band(results, metric.factor), len(shown) < len(ranked), said,
    )  # fmt: skip


def _band(results: Results, factor: float) -> Band | None:
    table = fidelity.curves(results)[results.trials["repeat_of"].isna().to_numpy()] * factor
    table = table.loc[:, table.notna().sum() >= FEWEST]
    if table.shape[1] < 2:
        return None
    quartiles = table.quantile([0.25, 0.5, 0.75]).to_numpy()
    return Band(tuple(int(e) for e in table.columns), *(tuple(row.tolist()) for row in quartiles))


def _joined(curves: list[Curve]) -> tuple[NDArray[np.float32], NDArray[np.float32], list[str]]:
    """Many lines as one trace, which draws fast: a gap between each two. The last point of each says how it ended."""
    x: list[float] = []
    y: list[float] = []
    hover: list[str] = []
    for curve in curves:
        x += [*curve.epochs, math.nan]
        y += [*curve.y, math.nan]
        name = style.safe(curve.hover)
        hover += [*[name] * (len(curve.epochs) - 1), f"{name}, {style.safe(curve.end)}", ""]
    return canvas.floats(x), canvas.floats(y), hover


def _groups(it: Curves) -> tuple[list[Curve], list[Curve], list[Curve], list[Curve]]:
    """Stopped early (the running and interrupted too), finished, the best, and those that diverged or failed."""
    rest = [c for c in it.curves if c.trial != it.best]
    lost = [c for c in rest if c.state in fidelity.LOST]
    return (
        [c for c in rest if c.state != "finished"],
        [c for c in rest if c.state == "finished"],
        [c for c in it.curves if c.trial == it.best],
        lost,
    )


def draw(it: Curves) -> Figure:
    """Stopped trials pale, finished ones strong, the best in the accent colour with its name."""
    if it.note:
        return canvas.empty(it.note)
    early, finished, best, lost = _groups(it)
    figure = canvas.plot()
    for name, some, line, end in (
        ("stopped early", early, {"color": style.PALE, "width": 1.3}, 5),
        ("finished", finished, {"color": style.CATEGORIES[0], "width": 1.8}, 0),
        ("best", best, {"color": style.ACCENT, "width": 3.5}, 0),
    ):
        if not some:
            continue
        x, y, hover = _joined(some)
        sizes = [
            size for c in some for size in (*([0] * (len(c.epochs) - 1)), end or (5 if len(c.epochs) == 1 else 0), 0)
        ]
        figure.add_scatter(
            x=x, y=y, mode="lines+markers", name=name, line=line,
            marker={"size": np.array(sizes, dtype=np.uint8), "line": {"width": 0}},
            opacity=0.5 if len(some) > CROWD else 0.75 if name == "stopped early" else 1, customdata=hover,
            hovertemplate="%{customdata}<br>epoch %{x}: %{y:.4~g}<extra></extra>",
        )  # fmt: skip
    if lost:
        figure.add_scatter(
            x=canvas.floats(c.epochs[-1] for c in lost), y=canvas.floats(c.y[-1] for c in lost), mode="markers",
            name="diverged or failed",
            marker={"symbol": "x-thin-open", "size": 10, "color": style.CATEGORIES[3], "line": {"width": 2.5}},
            customdata=[f"{style.safe(c.hover)}, {style.safe(c.end)}" for c in lost],
            hovertemplate="%{customdata}<extra></extra>",
        )  # fmt: skip
    if it.band is not None:
        _add_band(figure, it.band, shown=it.thinned)
    if best:  # above its end, or below where low is good: the side on which no other line is
        figure.add_annotation(
            x=best[0].epochs[-1], y=best[0].y[-1], text=style.safe(it.best_label), showarrow=False,
            xanchor="right" if best[0].epochs[-1] > it.full / 2 else "left",
            yshift=14 if it.maximise else -14, font={"color": style.ACCENT},
        )  # fmt: skip
    margin = max(0.2, 0.02 * it.full)
    figure.update_layout(
        height=440,
        xaxis={"title": {"text": "epoch"}, "range": [1 - margin, it.full + margin], **_epoch_ticks(it.full)},
        yaxis={"title": {"text": style.safe(it.y_title)}},
    )
    return figure


def _add_band(figure: Figure, band: Band, *, shown: bool) -> None:
    visible = True if shown else "legendonly"
    name = "median of those that got there"
    figure.add_scatter(
        x=(*band.epochs, *band.epochs[::-1]), y=(*band.low, *band.high[::-1]), mode="lines", fill="toself",
        fillcolor="rgba(0,158,115,0.22)", line={"width": 0}, hoverinfo="skip", showlegend=False, legendgroup=name,
        visible=visible,
    )  # fmt: skip
    figure.add_scatter(
        x=band.epochs, y=band.median, mode="lines", line={"color": style.CATEGORIES[2], "width": 2.5, "dash": "dash"},
        name=name, legendgroup=name, visible=visible,
        hovertemplate="median of those that got to epoch %{x}: %{y:.4~g}<extra></extra>",
    )  # fmt: skip


def _epoch_ticks(full: int) -> dict[str, Any]:
    step = next(s for s in (1, 2, 5, 10, 20, 50, 100, 200, 500, 10**9) if full / s <= 15)
    first = 1 if step == 1 else step
    return {"tickvals": list(range(first, full + 1, step))}


def draw_static(it: Curves) -> StaticFigure:
    """The same for paper."""
    if it.note:
        return canvas.empty_static(it.note)
    early, finished, best, lost = _groups(it)
    figure, axes = canvas.sheet(10, 5)
    for name, some, colour, width in (
        ("stopped early", early, style.PALE, 1.2),
        ("finished", finished, style.CATEGORIES[0], 1.4),
        ("best", best, style.ACCENT, 3.2),
    ):
        if some:
            x, y, _ = _joined(some)
            alpha = 0.4 if len(some) > CROWD else 1 if name == "best" else 0.75
            axes.plot(x, y, color=colour, lw=width, alpha=alpha, label=name)
            dots = [c for c in some if name == "stopped early" or len(c.epochs) == 1]
            axes.plot([c.epochs[-1] for c in dots], [c.y[-1] for c in dots], "o", ms=4, color=colour, alpha=alpha)
    if lost:
        axes.plot(
            [c.epochs[-1] for c in lost], [c.y[-1] for c in lost], "x", ms=8, mew=2.2, color=style.CATEGORIES[3],
            label="diverged or failed",
        )  # fmt: skip
    if it.band is not None and it.thinned:
        axes.fill_between(it.band.epochs, it.band.low, it.band.high, color=style.CATEGORIES[2], alpha=0.25, lw=0)
        axes.plot(
            it.band.epochs,
            it.band.median,
            "--",
            color=style.CATEGORIES[2],
            lw=2.2,
            label="median of those that got there",
        )
    if best:
        axes.annotate(
            it.best_label, (best[0].epochs[-1], best[0].y[-1]), (8, 0), textcoords="offset points", va="center",
            color=style.ACCENT, fontsize=11,
        )  # fmt: skip
    margin = max(0.2, 0.02 * it.full)
    axes.set(xlabel="epoch", ylabel=it.y_title, xlim=(1 - margin, it.full + margin))
    axes.set_xticks(_epoch_ticks(it.full)["tickvals"])
    axes.grid(color=style.THEMES["light"]["grid"])
    canvas.caption(figure, it.said)
    return figure
