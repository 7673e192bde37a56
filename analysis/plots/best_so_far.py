"""Best so far: how the search came to its result, trial by trial or epoch by epoch."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import pandas as pd

from analysis import fidelity, style
from analysis.plots import canvas
from analysis.results import Results

if TYPE_CHECKING:
    from matplotlib.figure import Figure as StaticFigure
    from plotly.graph_objects import Figure


# Kind of dot -> colour, mark in Plotly's words and in matplotlib's.
DOTS = {
    "finished": (style.CATEGORIES[0], "circle", "o"),
    "not finished": (style.PALE, "circle-open", "o"),
    "cannot be best": (style.PALE, "x-thin-open", "x"),
}


class BestSoFar(NamedTuple):
    """What is drawn. x, best: the steps, the metric as shown. Each trial with a value is a dot at dot_x, dot_y.

    kinds: of each dot, "finished", "not finished", or "cannot be best" where the line passes it over.
    """

    x: tuple[int, ...]
    best: tuple[float, ...]
    dot_x: tuple[int, ...]
    dot_y: tuple[float, ...]
    kinds: tuple[str, ...]
    hover: tuple[str, ...]
    x_title: str
    y_title: str
    note: str = ""


def compute(results: Results, x: Literal["trials", "epochs"] = "trials") -> BestSoFar:
    """x "trials": in order of start, each with its best epoch. "epochs": all epochs of the search in the order in which
    they ended (by seq or elapsed, else trial after trial).
    """
    metric = style.metric(results)
    value = (style.metric_values(results, results.trials) * metric.factor).dropna()
    value = value[results.trials.loc[value.index, "repeat_of"].isna()]
    counts = _counting(results)
    better = max if results.mode == "max" else min
    title = "trial" if x == "trials" else "epochs trained, all trials together"
    if value.empty:
        return BestSoFar((), (), (), (), (), (), title, metric.axis, "No trial has a value yet.")
    if x == "trials":
        at = results.trials.loc[value.index, "number"].astype(int)
        counted = value[counts[value.index]]
        steps_x, steps_y = list(at[counted.index]), list(accumulate(counted, better))
        last = int(results.trials.loc[results.trials["repeat_of"].isna(), "number"].max())
    else:
        frame = results.epochs.assign(value=style.metric_values(results, results.epochs) * metric.factor)
        known = [c for c in ("seq", "elapsed") if c in frame and bool(frame[c].notna().all())]
        by = known[:1] or ["number", "epoch"]
        frame = frame.assign(number=frame["trial"].map(results.trials["number"])).sort_values(by, kind="stable")
        frame = frame.assign(x=range(1, len(frame) + 1))
        told = frame[frame["value"].notna()]
        rows = told[told["trial"].map(counts)]
        steps_x, steps_y = [int(n) for n in rows["x"]], list(accumulate(rows["value"], better))
        last = len(frame)
        ends = told[told["epoch"] == told["trial"].map(results.trials["best_epoch"])].drop_duplicates("trial")
        at = pd.Series(ends["x"].to_numpy(dtype=int), index=ends["trial"]).reindex(value.index).fillna(0).astype(int)
    if not steps_x:
        return BestSoFar((), (), (), (), (), (), title, metric.axis, "No trial that may be best has a value yet.")
    table = results.trials.loc[value.index]
    return BestSoFar(
        (*steps_x, last) if steps_x[-1] < last else tuple(steps_x),
        tuple(float(v) for v in ((*steps_y, steps_y[-1]) if steps_x[-1] < last else steps_y)),
        tuple(int(n) for n in at),
        tuple(float(v) for v in value),
        tuple(
            "cannot be best" if not counts[trial] else "finished" if state == "finished" else "not finished"
            for trial, state in table["state"].items()
        ),
        tuple(
            f"{style.called(row)}: {metric.text(v / metric.factor)}, {style.outcome(row)}"
            for (_, row), v in zip(table.iterrows(), value, strict=True)
        ),
        title,
        metric.axis,
    )


def _counting(results: Results) -> pd.Series[bool]:
    """Trials that raise the line: those that may be best, and of diverged and failed ones the best of all alone."""
    lost = results.trials["state"].isin(fidelity.LOST) & (results.trials.index != results.best())
    return results.eligible() & ~lost


def draw(it: BestSoFar, height: int = 400) -> Figure:
    """A line in steps; finished trials filled, the others hollow."""
    if it.note:
        return canvas.empty(it.note)
    figure = canvas.plot()
    figure.add_scatter(
        x=it.x, y=it.best, mode="lines", line={"shape": "hv", "color": style.ACCENT, "width": 3}, name="best so far",
        hovertemplate="best so far %{y:.4~g}<extra></extra>",
    )  # fmt: skip
    for kind, (colour, symbol, _) in DOTS.items():
        some = [i for i, known in enumerate(it.kinds) if known == kind]
        if some:
            figure.add_scatter(
                x=[it.dot_x[i] for i in some], y=[it.dot_y[i] for i in some], mode="markers", name=kind,
                marker={"size": 8, "color": colour, "line": {"width": 0 if symbol == "circle" else 1.5},
                        "symbol": symbol},
                customdata=[style.safe(it.hover[i]) for i in some], hovertemplate="%{customdata}<extra></extra>",
            )  # fmt: skip
    figure.update_layout(
        height=height,
        xaxis={"title": {"text": it.x_title}, "tickformat": ",d", "nticks": min(12, max(2, it.x[-1]))},
        yaxis={"title": {"text": style.safe(it.y_title)}},
    )
    if it.x[-1] < 12:
        figure.update_xaxes(dtick=1)
    return figure


def draw_static(it: BestSoFar) -> StaticFigure:
    """The same for paper."""
    from matplotlib.ticker import MaxNLocator

    if it.note:
        return canvas.empty_static(it.note)
    figure, axes = canvas.sheet(10, 4.6)
    axes.step(it.x, it.best, where="post", color=style.ACCENT, lw=2.8, label="best so far")
    for kind, (colour, _, marker) in DOTS.items():
        some = [i for i, known in enumerate(it.kinds) if known == kind]
        faces: dict[str, Any] = (
            {"facecolors": "none", "edgecolors": colour} if kind == "not finished" else {"c": colour}
        )
        if some:
            axes.scatter(
                [it.dot_x[i] for i in some], [it.dot_y[i] for i in some], s=45, linewidths=1.5, marker=marker,
                label=kind, zorder=3, **faces,
            )  # fmt: skip
    axes.set(xlabel=it.x_title, ylabel=it.y_title)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(color=style.THEMES["light"]["grid"])
    figure.legend(loc="outside lower left", ncols=4, frameon=False)
    return figure
