"""Slices: the metric of each trial against each setting, one small panel a setting, coloured by when it was tried."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from analysis import style
from analysis.plots import canvas
from analysis.plots.effects import COLUMNS, ticks
from analysis.results import Results
from analysis.settings import settings

if TYPE_CHECKING:
    from matplotlib.figure import Figure as StaticFigure
    from plotly.graph_objects import Figure

MOST_PANELS = 12
MOST_DOTS = 500  # a panel


class Slice(NamedTuple):
    """One setting. x, y: trials, y the metric as shown at their best epochs; number: of the trial; whole: trained to
    the end.
    """

    title: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    number: tuple[int, ...]
    whole: tuple[bool, ...]
    ticks: canvas.Ticks | None
    hover: tuple[str, ...]


class Slices(NamedTuple):
    """What is drawn, in the order of the space. y_range: of all panels; left_out: settings without a panel."""

    slices: tuple[Slice, ...]
    y_title: str
    y_range: tuple[float, float]
    left_out: int = 0
    note: str = ""


def compute(results: Results) -> Slices:
    """At most twelve settings and 500 trials in each, evenly over the search; values that are far below all others, of
    trials that learned nothing, may lie below the panel: its lower end is three times as far from the median as the
    best.
    """
    metric = style.metric(results)
    values = style.metric_values(results, results.trials).to_numpy(dtype=float) * metric.factor
    told = np.isfinite(values) & results.trials["repeat_of"].isna().to_numpy()
    found = settings(results, told)
    if not found:
        return Slices((), metric.axis, (0.0, 1.0), note="No setting varied between trials that have a value.")
    names = [style.name(*pair) for pair in zip(results.trials.index, results.trials["label"], strict=True)]
    whole = (results.trials["state"] == "finished").to_numpy()
    number = results.trials["number"].to_numpy()
    rng, made = np.random.default_rng(0), []
    for setting in found[:MOST_PANELS]:
        inside = np.flatnonzero(setting.used() & told)
        inside = inside[np.linspace(0, len(inside) - 1, min(len(inside), MOST_DOTS)).round().astype(int)]
        x = setting.x[inside]
        if setting.distinct:  # so that trials of one value do not hide each other
            x = x + rng.uniform(-0.15, 0.15, len(x)) * np.diff(setting.distinct).min()
        hover = tuple(
            f"{names[n]}: {setting.label} {setting.text(setting.x[n])}, {metric.text(values[n] / metric.factor)}"
            for n in inside
        )
        made.append(
            Slice(
                setting.label + (" (log)" if setting.log else ""), tuple(map(float, x)),
                tuple(map(float, values[inside])), tuple(map(int, number[inside])), tuple(map(bool, whole[inside])),
                ticks(setting), hover,
            )
        )  # fmt: skip
    return Slices(tuple(made), metric.axis, _range(values[told], results.mode == "max"), len(found) - len(made))


def _range(values: Any, maximise: bool) -> tuple[float, float]:
    low, high, middle = float(values.min()), float(values.max()), float(np.median(values))
    if maximise:
        low = max(low, middle - 3 * (high - middle)) if high > middle else low
    else:
        high = min(high, middle + 3 * (middle - low)) if middle > low else high
    margin = 0.05 * (high - low) or 0.5
    return low - margin, high + margin


def draw(it: Slices) -> Figure:
    """Trials trained to the end filled, the others hollow; the later, the darker on the white page."""
    if it.note:
        return canvas.empty(it.note)
    from plotly.subplots import make_subplots

    rows, columns = math.ceil(len(it.slices) / COLUMNS), min(COLUMNS, len(it.slices))
    figure = make_subplots(rows, columns, shared_yaxes=True, horizontal_spacing=0.04, vertical_spacing=0.3 / rows)
    for n, one in enumerate(it.slices):
        row, column = n // COLUMNS + 1, n % COLUMNS + 1
        figure.add_scatter(
            x=one.x, y=one.y, mode="markers", row=row, col=column, showlegend=False,
            marker={"size": 7, "color": one.number, "coloraxis": "coloraxis",
                    "symbol": ["circle" if whole else "circle-open" for whole in one.whole]},
            customdata=[style.safe(h) for h in one.hover], hovertemplate="%{customdata}<extra></extra>",
        )  # fmt: skip
        axis: dict[str, Any] = {"title": {"text": style.safe(canvas.cut(one.title)), "standoff": 4}}
        if one.ticks:
            axis |= {"tickvals": list(one.ticks[0]), "ticktext": [style.safe(t) for t in one.ticks[1]]}
        figure.update_xaxes(**axis, row=row, col=column)
    figure.update_yaxes(range=it.y_range)
    for row in range(1, rows + 1):
        figure.update_yaxes(title={"text": style.safe(it.y_title)}, row=row, col=1)
    figure.update_layout(
        template=style.template("light"), height=60 + 230 * rows, margin={"t": 20},
        coloraxis={"colorbar": {"title": {"text": "trial"}}},
    )  # fmt: skip
    return figure


def draw_static(it: Slices) -> StaticFigure:
    """The same for paper."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap, Normalize

    if it.note:
        return canvas.empty_static(it.note)
    rows, columns = math.ceil(len(it.slices) / COLUMNS), min(COLUMNS, len(it.slices))
    figure, sheets = canvas.panels(10, 0.4 + 2.5 * rows, rows, columns, same_y=True)
    last = max(n for one in it.slices for n in one.number)
    colours = ScalarMappable(Normalize(1, last), LinearSegmentedColormap.from_list("order", style.VIRIDIS[::-1]))
    for n, (sheet, one) in enumerate(zip(sheets, it.slices, strict=False)):
        edges = colours.to_rgba(np.array(one.number, dtype=float))
        faces = [edge if whole else "none" for edge, whole in zip(edges, one.whole, strict=True)]
        sheet.scatter(one.x, one.y, s=26, facecolors=faces, edgecolors=list(map(tuple, edges)), linewidths=1.1)
        sheet.set(xlabel=canvas.cut(one.title), ylim=it.y_range)
        if n % columns == 0:
            sheet.set_ylabel(it.y_title)
        if one.ticks:
            canvas.x_ticks(sheet, one.ticks)
        sheet.grid(color=style.THEMES["light"]["grid"])
    for sheet in sheets[len(it.slices) :]:
        sheet.set_visible(False)
    figure.colorbar(colours, ax=sheets, label="trial", shrink=0.8, pad=0.02).outline.set_visible(False)
    return figure
