"""Class by class: precision, recall and F1 with their intervals, the best class on top."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from analysis import style
from analysis.evaluation.read import ClassScore, Evaluation
from analysis.plots import canvas

if TYPE_CHECKING:
    from matplotlib.figure import Figure as StaticFigure
    from plotly.graph_objects import Figure

MOST_ROWS = 30  # with more classes the worst ones are drawn


class Score(NamedTuple):
    """One kind of score: how its dots look, and how far from the middle of a row they lie."""

    name: str
    label: str
    colour: str
    symbol: str
    marker: str
    shift: float


SCORES = (
    Score("precision", "precision", style.CATEGORIES[1], "triangle-left", "<", -0.25),
    Score("f1", "F1", style.CATEGORIES[0], "circle", "o", 0.0),
    Score("recall", "recall", style.CATEGORIES[2], "triangle-right", ">", 0.25),
)


def rows(evaluation: Evaluation) -> list[ClassScore]:
    """The classes that are drawn, the best F1 first; at most the 30 worst, and none without images."""
    known = [score for score in evaluation.per_class if score.images and score.f1 is not None]
    return sorted(known, key=lambda score: -(score.f1 or 0))[-MOST_ROWS:]


def said(evaluation: Evaluation) -> str:
    """The worst and the best class, and how many are left out."""
    shown = rows(evaluation)
    if len(shown) < 2:
        return ""
    best = max((s for s in evaluation.per_class if s.images), key=lambda score: score.f1 or 0)
    worst = shown[-1]
    text = (
        f"F1 goes from {worst.f1 or 0:.2f} ({canvas.cut(worst.name)}) to {best.f1 or 0:.2f} ({canvas.cut(best.name)})."
    )
    left_out = sum(score.images > 0 for score in evaluation.per_class) - len(shown)
    return f"{text} Of {left_out + len(shown)} classes the {len(shown)} worst are drawn." if left_out else text


def draw(evaluation: Evaluation) -> Figure:
    """A row a class, a dot a score; whiskers are 95% intervals."""
    shown = rows(evaluation)
    if not shown:
        return canvas.empty("No class has an F1.")
    figure = canvas.plot()
    for kind in SCORES:
        values, down, up = _bars(shown, kind)
        figure.add_scatter(
            x=values, y=[n + kind.shift for n in range(len(shown))], mode="markers", name=kind.label,
            marker={"color": kind.colour, "symbol": kind.symbol, "size": 10},
            error_x={"type": "data", "symmetric": False, "array": up, "arrayminus": down, "thickness": 1.5,
                     "width": 0, "color": kind.colour},
            customdata=[_hover(score, kind) for score in shown], hovertemplate="%{customdata}<extra></extra>",
        )  # fmt: skip
    names = [style.safe(canvas.cut(score.name, 22)) for score in shown]
    figure.update_layout(
        height=120 + 38 * len(shown),
        xaxis={"title": {"text": "precision, F1, recall"}, "range": [_least(shown), 1.02]},
        yaxis={"tickvals": list(range(len(shown))), "ticktext": names, "ticks": "", "showgrid": False,
               "range": [len(shown) - 0.4, -0.6]},
        shapes=[_band(n) for n in range(1, len(shown), 2)],
    )  # fmt: skip
    return figure


def _band(n: int) -> dict[str, object]:
    """A pale ground under every second row, that keeps the three dots of a class together on both themes."""
    return {"type": "rect", "xref": "paper", "x0": 0, "x1": 1, "y0": n - 0.5, "y1": n + 0.5, "layer": "below",
            "line": {"width": 0}, "fillcolor": "rgba(127,137,149,0.10)"}  # fmt: skip


def _bars(shown: list[ClassScore], kind: Score) -> tuple[list[float], list[float], list[float]]:
    """Values, and their whiskers down and up, 0 where there is no interval."""
    values = [getattr(score, kind.name) or 0.0 for score in shown]
    lows = [getattr(score, f"{kind.name}_low") for score in shown]
    highs = [getattr(score, f"{kind.name}_high") for score in shown]
    down = [0.0 if low is None else max(0.0, value - low) for value, low in zip(values, lows, strict=True)]
    up = [0.0 if high is None else max(0.0, high - value) for value, high in zip(values, highs, strict=True)]
    return values, down, up


def _hover(score: ClassScore, kind: Score) -> str:
    value, low, high = (getattr(score, kind.name + end) for end in ("", "_low", "_high"))
    sure = "" if low is None or high is None else f" ({low:.3f} to {high:.3f})"
    return (
        f"{style.safe(canvas.cut(score.name, 60))}<br>{kind.label} {value or 0:.3f}{sure}<br>"
        f"{style.count(score.images, 'image')}, {score.predicted:,} called so"
    )


def _least(shown: list[ClassScore]) -> float:
    """Where the axis begins: at 0, or at a tenth below the lowest whisker, where all is well above."""
    ends = [value - down for kind in SCORES for value, down, _ in zip(*_bars(shown, kind), strict=True)]
    return max(0.0, int(10 * min(ends) - 0.5) / 10) if min(ends) > 0.3 else -0.02


def draw_static(evaluation: Evaluation) -> StaticFigure:
    """The same for paper."""
    shown = rows(evaluation)
    if not shown:
        return canvas.empty_static("No class has an F1.")
    figure, axes = canvas.sheet(10, 1.8 + 0.36 * len(shown))
    for kind in SCORES:
        values, down, up = _bars(shown, kind)
        axes.errorbar(
            values, [n + kind.shift for n in range(len(shown))], xerr=[down, up], fmt=kind.marker, ms=6,
            color=kind.colour, elinewidth=1.5, label=kind.label,
        )  # fmt: skip
    for n in range(1, len(shown), 2):
        axes.axhspan(n - 0.5, n + 0.5, color="#f1f3f5", lw=0, zorder=0)
    axes.set_yticks(range(len(shown)), [canvas.cut(score.name, 22) for score in shown])
    axes.tick_params(axis="y", length=0)
    axes.set(xlabel="precision, F1, recall", xlim=(_least(shown), 1.02), ylim=(len(shown) - 0.4, -0.6))
    axes.grid(color=style.THEMES["light"]["grid"], axis="x")
    canvas.caption(figure, said(evaluation))
    return figure
