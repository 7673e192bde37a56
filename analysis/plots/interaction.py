"""Interaction scatter: one setting against the result, coloured by another: does one's best value hang on the other?"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from analysis import fidelity, style
from analysis.folders.parameters import column_of
from analysis.plots import canvas
from analysis.plots.correlation import correlation_ratio, spearman
from analysis.plots.dimensions import NOT_USED, Dimension, dimensions, texts
from analysis.results import Results

if TYPE_CHECKING:
    from matplotlib.figure import Figure as StaticFigure
    from plotly.graph_objects import Figure

# A trial's mark in Plotly's words and in matplotlib's.
MARKERS = {"circle": "o", "circle-open": "o", "square": "s", "square-open": "s", "x-thin-open": "x"}
MOST_DOTS = 2000  # evenly over the ranks
MOST_GROUPS = len(style.CATEGORIES)  # more distinct values than colours: a continuous scale instead


class Point(NamedTuple):
    """One trial. x: on the axis (log 10 on a logarithmic one); y: the metric as shown; shade: the other setting."""

    trial: str
    x: float
    y: float
    group: str
    shade: float
    state: str
    hover: str


class Interaction(NamedTuple):
    """What is drawn. groups: the legend in order, empty where the colour is continuous or there is none.

    Trials that do not use the setting of the colour are in the group NOT_USED, with a continuous colour too.
    """

    points: tuple[Point, ...]
    x_title: str
    y_title: str
    colour_title: str
    groups: tuple[str, ...]
    ticks: canvas.Ticks | None
    note: str = ""


def compute(results: Results, x: str | None = None, color: str | None = None) -> Interaction:
    """`x` and `color` name settings by path, by its last part or by label.

    By default x is the learning rate, else the first logarithmic setting, else the one that goes with the result most;
    the colour is the depth, else among the others the one that does. Trials without a value are left out.

    Raises:
        ValueError: no such setting varied; the text lists those that did.
    """
    metric = style.metric(results)
    dims = dimensions(results)
    table = results.trials.loc[fidelity.spread(fidelity.order(results), MOST_DOTS)]
    y = style.metric_values(results, table) * metric.factor
    chosen_x = _named(dims, x) if x else _default_x(results, dims)
    others = [d for d in dims if d is not chosen_x]
    chosen_color = _named(dims, color) if color else _default_color(results, others)
    empty = Interaction((), "", metric.axis, "", (), None)
    if chosen_x is None:
        return empty._replace(note="No setting varied between the trials.")
    at = chosen_x.positions(table[chosen_x.column])
    told = at.notna() & y.notna()
    if not told.any():
        return empty._replace(note=f"No trial with a value used {chosen_x.label}.")
    table, at, y = table[told], at[told], y[told]
    shades, groups, names = _shades(chosen_color, table)
    points = [
        Point(
            str(trial), float(at[trial]), float(y[trial]), names[n], float(shades.iloc[n]),
            str(table.loc[trial, "state"]), _hover(results, table.loc[trial], metric, chosen_x, chosen_color),
        )
        for n, trial in enumerate(table.index)
    ]  # fmt: skip
    ticks = chosen_x.ticks(at)
    return Interaction(
        tuple(points), chosen_x.title, metric.axis, chosen_color.title if chosen_color else "", groups,
        canvas.few((tuple(ticks[0]), tuple(ticks[1])), 100) if ticks else None,
    )  # fmt: skip


def _named(dims: tuple[Dimension, ...], name: str) -> Dimension:
    for called in ([d.column for d in dims], [d.label for d in dims], [d.column.rsplit(".", 1)[-1] for d in dims]):
        for wanted in (name, column_of(name)):
            if called.count(wanted) == 1:
                return dims[called.index(wanted)]
    varied = ", ".join(d.column for d in dims) or "none"
    raise ValueError(f"no setting {name!r} that varied between the trials; there are: {varied}")


def _default_x(results: Results, dims: tuple[Dimension, ...]) -> Dimension | None:
    by_word = [d for d in dims if d.ordered and d.label.endswith("learning rate")]
    return next(iter([*by_word, *(d for d in dims if d.log), *_by_strength(results, dims)]), None)


def _default_color(results: Results, dims: list[Dimension]) -> Dimension | None:
    by_word = [d for d in dims if d.label.endswith("depth")]
    return next(iter([*by_word, *_by_strength(results, dims)]), None)


def _by_strength(results: Results, dims: tuple[Dimension, ...] | list[Dimension]) -> list[Dimension]:
    """Settings by how much they go with the trials' rank, the strongest first; equal ones in the order of the space."""
    score = fidelity.standing(results)

    def strength(dim: Dimension) -> float:
        at = dim.positions(results.trials[dim.column])
        both = at.notna() & score.notna()
        a, b = at[both].to_numpy(dtype=float), score[both].to_numpy(dtype=float)
        value = abs(spearman(a, b)) if dim.ordered else correlation_ratio(a.astype(np.int64), b)
        return -1.0 if math.isnan(value) else value

    return sorted(dims, key=strength, reverse=True)


def _shades(dim: Dimension | None, table: pd.DataFrame) -> tuple[pd.Series[float], tuple[str, ...], list[str]]:
    """Shade of each trial, the legend's groups, each trial's group."""
    none = pd.Series(math.nan, index=table.index, dtype=float)
    if dim is None:
        return none, (), ["" for _ in table.index]
    at = dim.positions(table[dim.column])
    distinct = sorted(set(at.dropna()))
    if len(distinct) > MOST_GROUPS and dim.ordered:
        return at, (), [NOT_USED if missing else "" for missing in at.isna()]
    known = [t for t in texts(table[dim.column]) if t is not None]
    if dim.ordered:
        known = [style.number(v) for v in sorted(set(pd.to_numeric(table[dim.column]).dropna()))]
    else:
        known = [c for c in dim.categories if c in known]
        if len(known) > MOST_GROUPS:
            known = [*known[: MOST_GROUPS - 1], "others"]
    names = []
    for value, text in zip(table[dim.column], texts(table[dim.column]), strict=True):
        name = NOT_USED if text is None else style.number(float(value)) if dim.ordered else text
        names.append(name if name in known or name == NOT_USED else "others")
    groups = [*known, *([NOT_USED] if NOT_USED in names else [])]
    return none, tuple(groups), names


def _hover(results: Results, row: Any, metric: style.Metric, x: Dimension, color: Dimension | None) -> str:
    lines = [f"{style.called(row)}: {metric.text(row[results.metric])}", style.outcome(row)]
    lines += [f"{d.label} {style.number(row[d.column])}" for d in (x, color) if d is not None]
    return "<br>".join(style.safe(line) for line in lines)


def _symbol(state: str, group: str = "") -> str:
    shape = "square" if group == NOT_USED else "circle"
    return shape if state == "finished" else "x-thin-open" if state in fidelity.LOST else f"{shape}-open"


def _groups(it: Interaction) -> tuple[str, ...]:
    """The groups that are drawn one by one; with a continuous colour all trials that have one are the group ''."""
    return it.groups or tuple(sorted({p.group for p in it.points}))


def draw(it: Interaction) -> Figure:
    """Finished trials filled, the others hollow, diverged and failed ones crosses; squares do not use the colour."""
    if it.note:
        return canvas.empty(it.note)
    figure = canvas.plot()
    for n, group in enumerate(_groups(it)):
        points, called = [p for p in it.points if p.group == group], style.safe(canvas.cut(group, 24))
        marker: dict[str, Any] = {
            "size": 11,
            "symbol": [_symbol(p.state, group) for p in points],
            "line": {"width": [0 if p.state == "finished" else 2 for p in points]},
        }
        if group == NOT_USED:
            marker["color"] = style.PALE
        elif it.groups:
            marker["color"] = style.CATEGORIES[n % MOST_GROUPS]
        elif it.colour_title:
            marker |= {"color": [p.shade for p in points], "coloraxis": "coloraxis"}
        else:
            marker["color"] = style.CATEGORIES[0]
        figure.add_scatter(
            x=[p.x for p in points], y=[p.y for p in points], mode="markers", marker=marker, name=called,
            customdata=[p.hover for p in points], hovertemplate="%{customdata}<extra></extra>", showlegend=False,
        )  # fmt: skip
        if group:  # a legend mark of its own: always filled, whatever state the group's first trial is in
            figure.add_scatter(
                x=[None], y=[None], mode="markers", name=called, hoverinfo="skip",
                marker={"size": 11, "color": marker["color"], "symbol": _symbol("finished", group)},
            )  # fmt: skip
    for state, name in (("stopped", "not finished"), ("failed", "diverged or failed")):
        if any(_symbol(p.state) == _symbol(state) for p in it.points):
            figure.add_scatter(
                x=[None], y=[None], mode="markers", name=name, hoverinfo="skip",
                marker={"size": 11, "color": style.PALE, "symbol": _symbol(state), "line": {"width": 2}},
            )  # fmt: skip
    named = any(_groups(it))
    figure.update_layout(
        height=440,
        legend={"title": {"text": style.safe(canvas.cut(it.colour_title)) + "&nbsp;&nbsp;" if named else ""}},
        coloraxis={"colorbar": {"title": {"text": style.safe(canvas.cut(it.colour_title))}}},
        xaxis={"title": {"text": style.safe(canvas.cut(it.x_title))}},
        yaxis={"title": {"text": style.safe(it.y_title)}},
    )
    if it.ticks:
        figure.update_xaxes(tickvals=it.ticks[0], ticktext=list(map(style.safe, it.ticks[1])))
    return figure


def draw_static(it: Interaction) -> StaticFigure:
    """The same for paper."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap, Normalize

    if it.note:
        return canvas.empty_static(it.note)
    figure, axes = canvas.sheet(10, 5)
    scale = None
    if it.colour_title and not it.groups:
        shades = [p.shade for p in it.points if not math.isnan(p.shade)]
        scale = ScalarMappable(
            Normalize(min(shades), max(shades)),
            LinearSegmentedColormap.from_list("shade", style.VIRIDIS[::-1]),
        )
    for n, group in enumerate(_groups(it)):
        points = [p for p in it.points if p.group == group]
        colour = style.PALE if group == NOT_USED else style.CATEGORIES[n % MOST_GROUPS]
        for symbol, marker in MARKERS.items():
            some = [p for p in points if _symbol(p.state, group) == symbol]
            x, y = [p.x for p in some], [p.y for p in some]
            colours: Any = [colour] * len(some)
            if scale and group != NOT_USED:
                colours = scale.to_rgba(np.array([p.shade for p in some]))
            if marker == "x":
                axes.scatter(x, y, s=60, c=colours, linewidths=2.2, marker="x")
            else:
                faces = "none" if symbol.endswith("-open") else colours
                axes.scatter(x, y, s=70, marker=marker, facecolors=faces, edgecolors=colours, linewidths=1.8)
        if group:
            marker = MARKERS[_symbol("finished", group)]
            axes.scatter([], [], s=70, marker=marker, color=colour, label=canvas.cut(group, 24))
    if scale:
        figure.colorbar(scale, ax=axes, label=canvas.cut(it.colour_title)).outline.set_visible(False)
    seen = {_symbol(p.state) for p in it.points}
    if "circle-open" in seen:
        axes.scatter([], [], s=70, facecolors="none", edgecolors=style.PALE, linewidths=1.8, label="not finished")
    if "x-thin-open" in seen:
        axes.scatter([], [], s=60, c=style.PALE, linewidths=2.2, marker="x", label="diverged or failed")
    axes.set(xlabel=canvas.cut(it.x_title), ylabel=it.y_title)
    if it.ticks:
        axes.set_xticks(*it.ticks)
    axes.grid(color=style.THEMES["light"]["grid"])
    if axes.get_legend_handles_labels()[0]:
        title = canvas.cut(it.colour_title) if any(_groups(it)) else None
        figure.legend(loc="outside lower left", ncols=5, frameon=False, title=title, alignment="left")
    return figure
