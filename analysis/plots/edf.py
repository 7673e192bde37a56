"""Distribution: how rare a good trial is. The share of trials that reached each value at least (an empirical
distribution function, read from its good end), by the strongest setting of few values where there is one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from analysis import style
from analysis.effects import ALARM, Effect, effects
from analysis.plots import canvas
from analysis.results import Results
from analysis.settings import settings

if TYPE_CHECKING:
    from matplotlib.figure import Figure as StaticFigure
    from plotly.graph_objects import Figure

MOST_POINTS = 500  # a line
MOST_LINES = 4


class Steps(NamedTuple):
    """One line: of `trials` the share (percent) that reached x at least."""

    name: str
    x: tuple[float, ...]
    share: tuple[float, ...]
    trials: int


class Distribution(NamedTuple):
    """What is drawn. lines: all trials first. title: of the setting that tells the others apart, or empty."""

    lines: tuple[Steps, ...]
    x_title: str
    title: str
    maximise: bool
    note: str = ""


def compute(results: Results, tested: tuple[Effect, ...] | None = None) -> Distribution:
    """Best values of the search's own trials; a stopped trial counts with what it had reached.

    tested: what `effects` says of the run, where that is known already.
    """
    metric, maximise = style.metric(results), results.mode == "max"
    values = style.metric_values(results, results.trials).to_numpy(dtype=float) * metric.factor
    told = np.isfinite(values) & results.trials["repeat_of"].isna().to_numpy()
    if told.sum() < 2:
        return Distribution((), metric.axis, "", maximise, "Fewer than two trials have a value.")
    lines, title = [_steps("all trials", values[told], maximise)], ""
    clear = [e for e in (effects(results) if tested is None else tested) if e.adjusted <= ALARM]
    by_name = {s.name: s for s in settings(results, told)}
    for effect in clear:
        setting = by_name.get(effect.name)
        if setting and 2 <= len(setting.distinct) <= MOST_LINES:
            title = setting.label
            for value, text in zip(setting.distinct, setting.texts, strict=True):
                some = told & (setting.x == value)
                if some.any():
                    name = canvas.cut(f"{canvas.cut(setting.label, 20)} {text}", 36)
                    lines.append(_steps(name, values[some], maximise))
            break
    return Distribution(tuple(lines), metric.axis, title, maximise)


def _steps(name: str, values: np.ndarray, maximise: bool) -> Steps:
    ordered = np.sort(values)[:: -1 if maximise else 1]
    share = 100 * np.arange(1, len(ordered) + 1) / len(ordered)
    kept = np.unique(np.linspace(0, len(ordered) - 1, min(len(ordered), MOST_POINTS)).round().astype(int))
    return Steps(name, tuple(map(float, ordered[kept])), tuple(map(float, share[kept])), len(ordered))


def _colour(n: int) -> str:
    return style.PALE if n == 0 else style.CATEGORIES[(n - 1) % len(style.CATEGORIES)]


def draw(it: Distribution) -> Figure:
    """A line in steps for all trials, one for each value of the strongest setting."""
    if it.note:
        return canvas.empty(it.note)
    figure = canvas.plot()
    for n, line in enumerate(it.lines):
        figure.add_scatter(
            x=line.x, y=line.share, mode="lines", name=style.safe(f"{line.name} ({line.trials:,})"),
            line={"shape": "vh", "color": _colour(n), "width": 2.5},
            hovertemplate="%{y:.0f}% reached %{x:.4~g}<extra></extra>",
        )  # fmt: skip
    figure.update_layout(
        height=400, xaxis={"title": {"text": style.safe(it.x_title)}},
        yaxis={"title": {"text": "trials that reached it (%)"}, "range": [0, 103]},
    )  # fmt: skip
    return figure


def draw_static(it: Distribution) -> StaticFigure:
    """The same for paper."""
    if it.note:
        return canvas.empty_static(it.note)
    figure, axes = canvas.sheet(10, 4.6)
    for n, line in enumerate(it.lines):
        axes.step(line.x, line.share, where="pre", color=_colour(n), lw=2.4, label=f"{line.name} ({line.trials:,})")
    axes.set(xlabel=it.x_title, ylabel="trials that reached it (%)", ylim=(0, 103))
    axes.grid(color=style.THEMES["light"]["grid"])
    figure.legend(loc="outside lower left", ncols=3, frameon=False)
    return figure
