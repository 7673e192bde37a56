"""Learning curves: the metric over the epochs, every trial a line."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from analysis import fidelity, style
from analysis.plots import canvas
from analysis.results import Results

if TYPE_CHECKING:
    from matplotlib.figure import Figure as StaticFigure
    from plotly.graph_objects import Figure

MOST_LINES = 300  # more cannot be told apart


class Curve(NamedTuple):
    """One trial: y is the metric as shown at each epoch that has a value. hover: one text for the whole line."""

    trial: str
    state: str
    epochs: tuple[int, ...]
    y: tuple[float, ...]
    hover: str


class Curves(NamedTuple):
    """What is drawn, from the worst to the best trial. best: the accented one. full: epochs of a full training."""

    curves: tuple[Curve, ...]
    best: str | None
    best_label: str
    full: int
    y_title: str
    maximise: bool = True
    note: str = ""


def compute(results: Results) -> Curves:
    """At most 300 trials, evenly over the ranks; epochs without a value are gaps in the data and left out."""
    metric = style.metric(results)
    ranked = fidelity.order(results)
    best = results.best()
    values = style.metric_values(results, results.epochs) * metric.factor
    frame = pd.DataFrame({"trial": results.epochs["trial"], "epoch": results.epochs["epoch"], "value": values})
    groups = {str(t): g.sort_values("epoch") for t, g in frame.dropna().groupby("trial")}
    curves = []
    for trial in fidelity.spread(ranked, MOST_LINES)[::-1]:
        if trial in groups:
            rows, row = groups[trial], results.trials.loc[trial]
            curves.append(
                Curve(
                    trial, str(row["state"]), tuple(int(e) for e in rows["epoch"]), tuple(rows["value"].astype(float)),
                    f"{style.called(row)}, {style.outcome(row)}",
                )
            )  # fmt: skip
    if not curves:
        return Curves((), None, "", 0, metric.axis, note="No trial has a value yet.")
    shown = style.metric_values(results, results.trials)
    label = f"trial {best}, best {metric.text(shown[best])}" if best else ""
    full = pd.to_numeric(results.trials["full_epochs"], errors="coerce").max()
    reached = max(c.epochs[-1] for c in curves)
    full = reached if math.isnan(full) else max(int(full), reached)
    return Curves(tuple(curves), best, label, full, metric.axis, results.mode == "max")


def _joined(curves: list[Curve]) -> tuple[list[Any], list[Any], list[Any]]:
    """Many lines as one trace, which draws fast: a gap between each two."""
    x: list[Any] = []
    y: list[Any] = []
    hover: list[Any] = []
    for curve in curves:
        x += [*curve.epochs, None]
        y += [*curve.y, None]
        hover += [style.safe(curve.hover)] * (len(curve.epochs) + 1)
    return x, y, hover


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
        ("stopped early", early, {"color": style.PALE, "width": 1.3}, 6),
        ("finished", finished, {"color": style.CATEGORIES[0], "width": 2}, 0),
        ("best", best, {"color": style.ACCENT, "width": 3.5}, 0),
    ):
        if not some:
            continue
        x, y, hover = _joined(some)
        sizes = [
            size for c in some for size in (*([0] * (len(c.epochs) - 1)), end or (5 if len(c.epochs) == 1 else 0), 0)
        ]
        figure.add_scatter(
            x=x, y=y, mode="lines+markers", name=name, line=line, marker={"size": sizes, "line": {"width": 0}},
            opacity=0.75 if name == "stopped early" else 1, customdata=hover,
            hovertemplate="%{customdata}<br>epoch %{x}: %{y:.4~g}<extra></extra>",
        )  # fmt: skip
    if lost:
        figure.add_scatter(
            x=[c.epochs[-1] for c in lost], y=[c.y[-1] for c in lost], mode="markers", name="diverged or failed",
            marker={"symbol": "x-thin-open", "size": 10, "color": style.CATEGORIES[3], "line": {"width": 2.5}},
            customdata=[style.safe(c.hover) for c in lost], hovertemplate="%{customdata}<extra></extra>",
        )  # fmt: skip
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
        for n, curve in enumerate(some):
            axes.plot(
                curve.epochs,
                curve.y,
                color=colour,
                lw=width,
                alpha=1 if name == "best" else 0.75,
                label=name if n == 0 else None,
            )
            if name == "stopped early" or len(curve.epochs) == 1:
                axes.plot(curve.epochs[-1:], curve.y[-1:], "o", ms=4, color=colour)
    if lost:
        axes.plot(
            [c.epochs[-1] for c in lost], [c.y[-1] for c in lost], "x", ms=8, mew=2.2, color=style.CATEGORIES[3],
            label="diverged or failed",
        )  # fmt: skip
    if best:
        axes.annotate(
            it.best_label, (best[0].epochs[-1], best[0].y[-1]), (8, 0), textcoords="offset points", va="center",
            color=style.ACCENT, fontsize=11,
        )  # fmt: skip
    margin = max(0.2, 0.02 * it.full)
    axes.set(xlabel="epoch", ylabel=it.y_title, xlim=(1 - margin, it.full + margin))
    axes.set_xticks(_epoch_ticks(it.full)["tickvals"])
    axes.grid(color=style.THEMES["light"]["grid"])
    figure.legend(loc="outside lower left", ncols=4, frameon=False)
    return figure
