"""The finalists: the best trials trained again with other seeds, and how far their results scatter."""

from __future__ import annotations

from typing import TYPE_CHECKING

from analysis import style
from analysis.evaluation.read import Finalist, Finals
from analysis.plots import canvas

if TYPE_CHECKING:
    from matplotlib.figure import Figure as StaticFigure
    from plotly.graph_objects import Figure


def ranked(it: Finals) -> list[Finalist]:
    """The winner on top, then as the file has them: best first."""
    return sorted((one for one in it.finalists if one.values), key=lambda one: one.trial != it.winner)


def _unit(it: Finals) -> tuple[float, str, str]:
    """What values are multiplied by, the axis, the unit of a value: accuracies are read as percentages."""
    label = style.words(it.metric) if it.metric else "metric"
    share = "acc" in it.metric.lower()
    return (100.0, f"{label} (%)", "%") if share else (1.0, label, "")


def _name(one: Finalist) -> str:
    return canvas.cut(f"trial {one.trial}", 20)


def draw(it: Finals) -> Figure:
    """A row a finalist: a dot a seed, and its mean with the 95% interval."""
    shown = ranked(it)
    factor, axis, unit = _unit(it)
    figure = canvas.plot()
    figure.add_scatter(
        x=[factor * v for one in shown for v in one.values], y=[n for n, one in enumerate(shown) for _ in one.values],
        mode="markers", name="a seed", marker={"size": 9, "color": style.CATEGORIES[0], "opacity": 0.85},
        customdata=[style.safe(_name(one)) for one in shown for _ in one.values],
        hovertemplate=f"%{{customdata}}<br>%{{x:.4~g}}{unit}<extra></extra>",
    )  # fmt: skip
    down, up = _around(shown, factor)
    figure.add_scatter(
        x=[factor * one.mean for one in shown], y=[n + 0.24 for n in range(len(shown))], mode="markers",
        name="mean, 95% interval", marker={"size": 10, "symbol": "diamond", "color": style.ACCENT},
        error_x={"type": "data", "symmetric": False, "array": up, "arrayminus": down, "thickness": 1.6, "width": 0},
        hovertemplate=f"mean %{{x:.4~g}}{unit}<extra></extra>",
    )  # fmt: skip
    figure.update_layout(
        height=130 + 46 * len(shown),
        xaxis={"title": {"text": style.safe(axis)}},
        yaxis={"tickvals": list(range(len(shown))), "ticktext": [style.safe(_name(one)) for one in shown], "ticks": "",
               "showgrid": False, "range": [len(shown) - 0.4, -0.6]},
    )  # fmt: skip
    return figure


def _around(shown: list[Finalist], factor: float) -> tuple[list[float], list[float]]:
    down = [0.0 if one.low is None else max(0.0, factor * (one.mean - one.low)) for one in shown]
    return down, [0.0 if one.high is None else max(0.0, factor * (one.high - one.mean)) for one in shown]


def draw_static(it: Finals) -> StaticFigure:
    """The same for paper."""
    shown = ranked(it)
    factor, axis, _ = _unit(it)
    figure, axes = canvas.sheet(10, 1.8 + 0.5 * len(shown))
    axes.plot(
        [factor * v for one in shown for v in one.values], [n for n, one in enumerate(shown) for _ in one.values],
        "o", ms=7, color=style.CATEGORIES[0], alpha=0.65, label="a seed",
    )  # fmt: skip
    axes.errorbar(
        [factor * one.mean for one in shown], [n + 0.24 for n in range(len(shown))], xerr=_around(shown, factor),
        fmt="D", ms=6, color=style.ACCENT, elinewidth=1.6, label="mean, 95% interval",
    )  # fmt: skip
    axes.set_yticks(range(len(shown)), [_name(one) for one in shown])
    axes.tick_params(axis="y", length=0)
    axes.set(xlabel=axis, ylim=(len(shown) - 0.4, -0.6))
    axes.grid(color=style.THEMES["light"]["grid"], axis="x")
    canvas.caption(figure, it.better)
    return figure
