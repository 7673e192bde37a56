"""Main effects: how the standing of trials goes with each setting, one small panel a setting, with a band."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from analysis import fidelity, style
from analysis.importance import FEWEST, Weighed, weigh
from analysis.plots import canvas
from analysis.results import Results
from analysis.settings import Setting

if TYPE_CHECKING:
    from matplotlib.figure import Figure as StaticFigure
    from plotly.graph_objects import Figure

MOST_PANELS, COLUMNS = 9, 3
MOST_DOTS = 400  # a panel


class Panel(NamedTuple):
    """One setting. x, y: trials (standing in percent); at, mean, low, high: what a forest expects, with its band."""

    title: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    at: tuple[float, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    ticks: canvas.Ticks | None
    separate: bool
    hover: tuple[str, ...]


class Panels(NamedTuple):
    """What is drawn, the most important setting first."""

    panels: tuple[Panel, ...]
    left_out: int = 0
    note: str = ""


AXIS = "ahead of others (%)"


def compute(results: Results, weighed: Weighed | None = None) -> Panels:
    """At most nine settings. weighed: what `importance.weigh` says of the run, where that is known already."""
    found = (weigh(results) if weighed is None else weighed).effects
    if not found:
        return Panels((), note=f"Fewer than {FEWEST} trials can be compared, or no setting varied.")
    score = fidelity.standing(results).to_numpy(dtype=float)
    names = [style.name(*pair) for pair in zip(results.trials.index, results.trials["label"], strict=True)]
    rng, panels = np.random.default_rng(0), []
    for effect in found[:MOST_PANELS]:
        inside = np.flatnonzero(effect.setting.used() & np.isfinite(score))
        if len(inside) > MOST_DOTS:
            inside = np.sort(rng.choice(inside, MOST_DOTS, replace=False))
        x, y = effect.setting.x[inside], 100 * score[inside]
        if effect.setting.distinct:  # so that trials of one value do not hide each other
            x = x + rng.uniform(-0.12, 0.12, len(x)) * _step(effect.setting)
        hover = tuple(
            f"{names[n]}: {effect.setting.label} {effect.setting.text(effect.setting.x[n])}, ahead of {score[n]:.0%}"
            for n in inside
        )
        panels.append(
            Panel(
                effect.setting.label + (" (log)" if effect.setting.log else ""), _floats(x), _floats(y),
                _floats(effect.at), _floats(100 * effect.mean), _floats(100 * effect.low), _floats(100 * effect.high),
                ticks(effect.setting), bool(effect.setting.distinct), hover,
            )
        )  # fmt: skip
    return Panels(tuple(panels), len(found) - len(panels))


def _floats(values: object) -> tuple[float, ...]:
    return tuple(map(float, np.asarray(values)))


def _step(setting: Setting) -> float:
    return float(np.diff(setting.distinct).min())


def ticks(setting: Setting) -> canvas.Ticks | None:
    """Places and texts of an axis's ticks, at most ten, long texts cut; None where a plain numeric axis does."""
    if setting.distinct:
        return canvas.few((setting.distinct, setting.texts))
    if not setting.log:
        return None
    at = style.log_ticks(10**setting.low, 10**setting.high)
    at = at if len(at) <= 4 else [t for t in at if math.log10(t) == round(math.log10(t))]
    return tuple(math.log10(t) for t in at), tuple(style.number(t) for t in at)


def draw(it: Panels) -> Figure:
    """Trials pale, the expected course strong in its band."""
    if it.note:
        return canvas.empty(it.note)
    from plotly.subplots import make_subplots

    rows = math.ceil(len(it.panels) / COLUMNS)
    columns = min(COLUMNS, len(it.panels))
    figure = make_subplots(rows, columns, shared_yaxes=True, horizontal_spacing=0.04, vertical_spacing=0.3 / rows)
    for n, panel in enumerate(it.panels):
        row, column = n // COLUMNS + 1, n % COLUMNS + 1
        figure.add_scatter(
            x=panel.x, y=panel.y, mode="markers", marker={"size": 5, "color": style.PALE, "opacity": 0.55}, row=row,
            col=column, showlegend=False, customdata=[style.safe(h) for h in panel.hover],
            hovertemplate="%{customdata}<extra></extra>",
        )  # fmt: skip
        if panel.separate:
            up = [high - mean for high, mean in zip(panel.high, panel.mean, strict=True)]
            down = [mean - low for low, mean in zip(panel.low, panel.mean, strict=True)]
            figure.add_scatter(
                x=panel.at, y=panel.mean, mode="markers", row=row, col=column, showlegend=False, hoverinfo="y",
                marker={"size": 10, "color": style.CATEGORIES[0]},
                error_y={"type": "data", "symmetric": False, "array": up, "arrayminus": down, "thickness": 2},
            )  # fmt: skip
        else:
            figure.add_scatter(
                x=[*panel.at, *panel.at[::-1]], y=[*panel.high, *panel.low[::-1]], fill="toself", mode="lines",
                line={"width": 0}, fillcolor="rgba(0,114,178,0.2)", row=row, col=column, showlegend=False,
                hoverinfo="skip",
            )  # fmt: skip
            figure.add_scatter(
                x=panel.at, y=panel.mean, mode="lines", line={"color": style.CATEGORIES[0], "width": 2.5}, row=row,
                col=column, showlegend=False, hoverinfo="y",
            )  # fmt: skip
        axis: dict[str, Any] = {"title": {"text": style.safe(canvas.cut(panel.title)), "standoff": 4}}
        if panel.ticks:
            axis |= {"tickvals": list(panel.ticks[0]), "ticktext": [style.safe(t) for t in panel.ticks[1]]}
        figure.update_xaxes(**axis, row=row, col=column)
    figure.update_yaxes(range=[-3, 103], dtick=25)
    for row in range(1, rows + 1):
        figure.update_yaxes(title={"text": AXIS}, row=row, col=1)
    figure.update_layout(template=style.template("light"), height=60 + 230 * rows, margin={"t": 20})
    return figure


def draw_static(it: Panels) -> StaticFigure:
    """The same for paper."""
    if it.note:
        return canvas.empty_static(it.note)
    rows, columns = math.ceil(len(it.panels) / COLUMNS), min(COLUMNS, len(it.panels))
    figure, sheets = canvas.panels(10, 0.4 + 2.5 * rows, rows, columns, same_y=True)
    for n, (sheet, panel) in enumerate(zip(sheets, it.panels, strict=False)):
        sheet.scatter(panel.x, panel.y, s=14, color=style.PALE, alpha=0.55, linewidths=0)
        if panel.separate:
            error = np.clip([np.subtract(panel.mean, panel.low), np.subtract(panel.high, panel.mean)], 0, None)
            sheet.errorbar(panel.at, panel.mean, yerr=error, fmt="o", ms=7, color=style.CATEGORIES[0], elinewidth=2)
        else:
            sheet.fill_between(panel.at, panel.low, panel.high, color=style.CATEGORIES[0], alpha=0.2, linewidth=0)
            sheet.plot(panel.at, panel.mean, color=style.CATEGORIES[0], lw=2.4)
        sheet.set(xlabel=canvas.cut(panel.title), ylim=(-3, 103))
        if n % columns == 0:
            sheet.set_ylabel(AXIS)
        if panel.ticks:
            canvas.x_ticks(sheet, panel.ticks)
        sheet.grid(color=style.THEMES["light"]["grid"])
    for sheet in sheets[len(it.panels) :]:
        sheet.set_visible(False)
    return figure
