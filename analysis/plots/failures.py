"""Failures: where trials diverged, ran out of memory or crashed, in the axes in which the others have a result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from analysis import fidelity, style
from analysis.plots import canvas
from analysis.plots.correlation import correlation_ratio, cramers_v
from analysis.plots.dimensions import Dimension, dimensions
from analysis.results import Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as StaticFigure
    from plotly.graph_objects import Figure

MOST_PANELS = 6
MOST_DOTS = 600  # a panel
MOST_FAILURES = 300
FEW = 8  # values of a setting
TELLING = 5  # failures
# State -> words, colour, mark in Plotly's words and in matplotlib's.
FAILED = {
    "diverged": ("diverged", style.CATEGORIES[3], "x", "x"),
    "out_of_memory": ("out of memory", style.CATEGORIES[1], "triangle-down", "v"),
    "failed": ("crashed", style.CATEGORIES[5], "diamond", "D"),
}
TRAINED = "with a result"


class Dots(NamedTuple):
    """Trials of one kind in one panel: TRAINED, or a key of FAILED, each of which has a row at the bottom edge."""

    kind: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    hover: tuple[str, ...]


class Panel(NamedTuple):
    """One setting. `ticks`: positions and texts, None where plain numbers do."""

    title: str
    ticks: canvas.Ticks | None
    dots: tuple[Dots, ...]


class Failures(NamedTuple):
    """What is drawn. edge: the line between the values and the failures, which all lie below it; y_ticks: above it."""

    panels: tuple[Panel, ...]
    edge: float
    y_ticks: tuple[float, ...]
    y_title: str
    said: str
    note: str = ""


def compute(results: Results) -> Failures:
    """The six settings that go with failing most: by the correlation ratio of its ranks, by Cramér's V for a category.

    Of the others 600 are drawn, evenly over the ranks, of the failures 300, evenly in order of start.
    """
    from matplotlib.ticker import MaxNLocator

    metric = style.metric(results)
    table = results.trials[results.trials["repeat_of"].isna()]
    lost = table["state"].isin(list(FAILED))
    if not lost.any():
        return Failures((), 0.0, (), metric.axis, "", "No trial diverged or failed.")
    found = [(d, d.positions(table[d.column])) for d in dimensions(results)]
    if not found:
        return Failures((), 0.0, (), metric.axis, "", "No setting varied: see the reasons below.")
    strength = [_strength(d, positions, lost) for d, positions in found]
    found = [found[i] for i in sorted(range(len(found)), key=lambda i: -strength[i])[:MOST_PANELS]]
    values = style.metric_values(results, table) * metric.factor
    trained = values[~lost].dropna()
    if trained.empty:
        return Failures(
            (), 0.0, (), metric.axis, "", "No trial has a result that those that failed could stand beside."
        )
    low, high = float(trained.min()), float(trained.max())
    span = high - low or abs(high) or 1.0
    edge = low - 0.07 * span
    present = [kind for kind in FAILED if (table["state"] == kind).any()]
    row = {kind: edge - (0.08 + 0.1 * n) * span for n, kind in enumerate(present)}
    ranked = trained.sort_values(ascending=results.mode == "min", kind="stable").index
    dots = fidelity.spread(list(ranked), MOST_DOTS)
    failures = fidelity.spread(list(table.index[lost]), MOST_FAILURES)
    hover = _hover(results, [*dots, *failures], metric)
    state = table["state"]
    panels = []
    for dimension, positions in found:
        x_all, ticks = _across(dimension, positions)
        groups = [(TRAINED, dots)] + [(kind, [t for t in failures if state[t] == kind]) for kind in present]
        drawn = []
        for kind, trials in groups:
            x = x_all.loc[trials].dropna()
            y = trained.loc[x.index] if kind == TRAINED else pd.Series(row[kind], index=x.index)
            drawn.append(Dots(kind, tuple(x.tolist()), tuple(y.tolist()), tuple(hover[t] for t in x.index)))
        panels.append(Panel(dimension.title, ticks, tuple(drawn)))
    y_ticks = tuple(float(tick) for tick in MaxNLocator(4).tick_values(low, high) if edge < tick)
    return Failures(tuple(panels), edge, y_ticks, metric.axis, _say(table, lost, len(trained)))


def _strength(dimension: Dimension, positions: pd.Series[float], lost: pd.Series[bool]) -> float:
    """0..1; 0 where it cannot be told."""
    known = positions.notna()
    failed = np.array(lost[known], dtype=np.int64)
    if dimension.ordered:
        value = correlation_ratio(failed, positions[known].rank().to_numpy(dtype=np.float64))
    else:
        value = cramers_v(failed, np.array(positions[known], dtype=np.int64))
    return 0.0 if np.isnan(value) else float(value)


def _across(dimension: Dimension, positions: pd.Series[float]) -> tuple[pd.Series[float], canvas.Ticks | None]:
    """Where trials lie, and the ticks. Few values stand side by side, however far apart, each with room for its trials:
    these are spread by multiples of the golden ratio, evenly at any count and the same every time.
    """
    ticks = dimension.ticks(positions)
    distinct = np.unique(positions.dropna())
    if dimension.ordered and len(distinct) > min(FEW, positions.count() / 2):
        return positions, None if ticks is None else canvas.few((tuple(ticks[0]), tuple(ticks[1])))
    values = 10**distinct if dimension.log else distinct
    texts = [style.number(v) for v in values] if dimension.ordered else [dimension.categories[int(d)] for d in distinct]
    places = pd.Series(np.searchsorted(distinct, positions).astype(float), index=positions.index)
    spread = (np.arange(len(positions)) * 0.6180339887 % 1 - 0.5) * 0.6
    marks = canvas.few((tuple(map(float, range(len(distinct)))), tuple(texts)))
    return (places + spread).where(positions.notna()), marks


def _hover(results: Results, trials: list[str], metric: style.Metric) -> dict[str, str]:
    columns = ["label", "state", "epochs", "repeat_of", "breaks", "reason"]
    rows = results.trials.loc[list(dict.fromkeys(trials)), columns]
    values = style.metric_values(results, results.trials.loc[rows.index])
    found = {}
    for (trial, row), value in zip(rows.iterrows(), values, strict=True):
        if row["state"] in FAILED:
            reason = "" if pd.isna(row["reason"]) else f"\n{canvas.wrap(str(row['reason'])[:200], 60)}"
            found[str(trial)] = f"{style.called(row)}: {style.outcome(row)}{reason}"
        else:
            found[str(trial)] = f"{style.called(row)}: {metric.text(value)}"
    return found


def _say(table: pd.DataFrame, lost: pd.Series[bool], trained: int) -> str:
    counts = table.loc[lost, "state"].value_counts()
    verbs = {"out_of_memory": "ran out of memory"}
    parts = [f"{counts[kind]:,} {verbs.get(kind, words)}" for kind, (words, *_) in FAILED.items() if kind in counts]
    text = f"Of {len(table):,} trials {', '.join(parts)}."
    if lost.sum() < TELLING:
        text += " So few do not tell which setting it was."
    if trained > MOST_DOTS or lost.sum() > MOST_FAILURES:
        text += f" At most {MOST_DOTS} trials with a result and {MOST_FAILURES} without are drawn."
    return text


def _grid(panels: int) -> tuple[int, int]:
    columns = min(panels, 2 if panels in (2, 4) else 3)
    return -(-panels // columns), columns


def draw(it: Failures) -> Figure:
    """Small multiples, the metric upwards in all of them."""
    if it.note:
        return canvas.empty(it.note)
    rows, columns = _grid(len(it.panels))
    figure = canvas.plot().set_subplots(
        rows, columns, shared_yaxes=True, horizontal_spacing=0.04, vertical_spacing=0.2 if rows > 1 else 0
    )
    seen: set[str] = set()
    for n, panel in enumerate(it.panels):
        row, column = n // columns + 1, n % columns + 1
        for dots in panel.dots:
            if not dots.x:
                continue
            words, colour, symbol, _ = FAILED.get(dots.kind, (dots.kind, style.CATEGORIES[0], "circle", "o"))
            trained = dots.kind == TRAINED
            figure.add_scatter(
                x=canvas.floats(dots.x), y=canvas.floats(dots.y), mode="markers", name=words, legendgroup=dots.kind,
                showlegend=dots.kind not in seen, row=row, col=column,
                marker={"symbol": symbol, "color": colour, "size": 5 if trained else 9,
                        "opacity": 0.75 if trained else 0.9, "line": {"width": 0}},
                customdata=[style.safe(text).replace("\n", "<br>") for text in dots.hover],
                hovertemplate="%{customdata}<extra></extra>",
            )  # fmt: skip
            seen.add(dots.kind)
        figure.add_hline(y=it.edge, line={"color": style.PALE, "width": 1, "dash": "dot"}, row=row, col=column)
        ticks: dict[str, Any] = (
            {}
            if panel.ticks is None
            else {"tickvals": panel.ticks[0], "ticktext": list(map(style.safe, panel.ticks[1]))}
        )
        title = style.safe(canvas.cut(panel.title))
        figure.update_xaxes(title_text=title, showgrid=False, row=row, col=column, **ticks)
        if column == 1:
            figure.update_yaxes(title_text=style.safe(it.y_title), row=row, col=column)
    figure.update_yaxes(tickvals=it.y_ticks)
    figure.update_layout(height=130 + 230 * rows, hovermode="closest")
    return figure


def draw_static(it: Failures) -> StaticFigure:
    """The same for paper."""
    if it.note:
        return canvas.empty_static(it.note)
    rows, columns = _grid(len(it.panels))
    figure, made = canvas.panels(10, 1.2 + 2.5 * rows, rows, columns, same_y=True)
    for n, axes in enumerate(made):
        if n < len(it.panels):
            _fill(axes, it, it.panels[n])
            axes.set_ylabel(it.y_title if n % columns == 0 else "")
        else:
            axes.set_axis_off()
    canvas.caption(figure, it.said)
    return figure


def _fill(axes: Axes, it: Failures, panel: Panel) -> None:
    for dots in panel.dots:
        words, colour, _, marker = FAILED.get(dots.kind, (dots.kind, style.CATEGORIES[0], "circle", "o"))
        trained = dots.kind == TRAINED
        if dots.x:
            axes.scatter(
                dots.x, dots.y, s=14 if trained else 42, c=colour, marker=marker, alpha=0.55 if trained else 0.9,
                linewidths=0 if marker != "x" else 2, label=words, clip_on=False, zorder=3,
            )  # fmt: skip
    axes.axhline(it.edge, color=style.PALE, lw=0.8, ls=":")
    if panel.ticks is not None:
        canvas.x_ticks(axes, panel.ticks)
    axes.set_yticks(it.y_ticks)
    axes.set_xlabel(canvas.cut(panel.title))
    axes.grid(axis="y", color=style.THEMES["light"]["grid"])
