"""What moving the threshold costs, one class against the rest: ROC and precision-recall curves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from analysis import style
from analysis.evaluation.read import Curve, Evaluation
from analysis.plots import canvas

if TYPE_CHECKING:
    from matplotlib.figure import Figure as StaticFigure
    from plotly.graph_objects import Figure

HIGHLIGHTED = 3  # classes that stand out: those that the model ranks worst
NAME = 16

Which = Literal["roc", "pr"]


class Kind(NamedTuple):
    """One of the two: its axes, the score that is the area under its curves, and that score's short name."""

    x: str
    y: str
    score: str
    short: str


KINDS: dict[Which, Kind] = {
    "roc": Kind("false positives (%)", "true positives (%)", "roc_auc", "AUC"),
    "pr": Kind("recall (%)", "precision (%)", "average_precision", "AP"),
}
NOTE = "No curve was measured."


class Line(NamedTuple):
    """A curve as drawn, in percent, and the area under it. colour None: one of many, pale."""

    curve: Curve
    x: list[float]
    y: list[float]
    colour: str | None
    area: float
    label: str
    hover: str


def lines(evaluation: Evaluation, which: Which) -> list[Line]:
    """Pale ones first, then the worst classes, the mean last and so on top."""
    kind, mean = KINDS[which], evaluation.metrics.get(KINDS[which].score)
    areas = {score.name: getattr(score, kind.score) for score in evaluation.per_class}
    curves = getattr(evaluation.curves, which)
    classes = [curve for curve in curves if curve.name in areas]
    known = [curve for curve in classes if areas[curve.name] is not None]
    worst = sorted(known, key=lambda curve: areas[curve.name])[:HIGHLIGHTED]
    colours = {curve.name: style.CATEGORIES[n] for n, curve in enumerate(worst)}
    drawn = [_line(curve, areas[curve.name], kind, colours.get(curve.name), curve.name) for curve in classes]
    drawn.sort(key=lambda line: (line.colour is not None, line.area))
    means = [curve for curve in curves if curve.name not in areas]
    return drawn + [_line(c, mean.value if mean else None, kind, style.ACCENT, "mean of all") for c in means[:1]]


def _line(curve: Curve, area: float | None, kind: Kind, colour: str | None, name: str) -> Line:
    said = "" if area is None else f"{kind.short} {area:.3f}"
    x, y = ([round(100 * v, 2) for v in values] for values in (curve.x, curve.y))
    short, long = canvas.cut(name, NAME), style.safe(canvas.cut(name, 60))
    end = f", {said}" if said else ""
    return Line(curve, x, y, colour, 0.0 if area is None else area, short + end, long + end)


def draw(evaluation: Evaluation, which: Which) -> Figure:
    """The mean strong, the three worst classes in colour, the others pale."""
    drawn = lines(evaluation, which)
    if not drawn:
        return canvas.empty(NOTE)
    kind = KINDS[which]
    figure = canvas.plot()
    if which == "roc":
        figure.add_scatter(
            x=[0, 100], y=[0, 100], mode="lines", name="by chance", hoverinfo="skip", showlegend=False,
            line={"color": style.PALE, "width": 1.2, "dash": "dash"},
        )  # fmt: skip
    first_pale = next((line for line in drawn if line.colour is None), None)
    for line in drawn:
        pale = line.colour is None
        width = 1.2 if pale else 3.2 if line.colour == style.ACCENT else 2
        figure.add_scatter(
            x=canvas.floats(line.x), y=canvas.floats(line.y), mode="lines",
            name="other classes" if pale else style.safe(line.label), showlegend=not pale or line is first_pale,
            legendgroup="others" if pale else line.curve.name, opacity=0.55 if pale else 1,
            line={"color": line.colour or style.PALE, "width": width},
            meta=line.hover,
            hovertemplate=f"%{{meta}}<br>{kind.x[:-4]} %{{x:.1f}}%, {kind.y[:-4]} %{{y:.1f}}%<extra></extra>",
        )  # fmt: skip
    figure.update_layout(
        height=470, margin={"t": 12},
        xaxis={"title": {"text": kind.x}, "range": [-1, 101]}, yaxis={"title": {"text": kind.y}, "range": [-1, 102]},
        legend={"orientation": "v", "yanchor": "bottom", "y": 0.02,
                **({"x": 0.99, "xanchor": "right"} if which == "roc" else {"x": 0.02, "xanchor": "left"})},
    )  # fmt: skip
    return figure


def draw_static(evaluation: Evaluation, which: Which) -> StaticFigure:
    """The same for paper."""
    drawn = lines(evaluation, which)
    if not drawn:
        return canvas.empty_static(NOTE)
    figure, axes = canvas.sheet(7, 5.6)
    if which == "roc":
        axes.plot([0, 100], [0, 100], "--", color=style.PALE, lw=1.2)
    first_pale = next((line for line in drawn if line.colour is None), None)
    for line in drawn:
        pale = line.colour is None
        axes.plot(
            line.x, line.y, color=line.colour or style.PALE, alpha=0.6 if pale else 1,
            lw=3 if line.colour == style.ACCENT else 1 if pale else 1.8,
            label=("other classes" if line is first_pale else "_") if pale else line.label.lstrip("_"),
        )  # fmt: skip
    kind = KINDS[which]
    axes.set(xlabel=kind.x, ylabel=kind.y, xlim=(-1, 101), ylim=(-1, 102))
    axes.grid(color=style.THEMES["light"]["grid"])
    axes.legend(loc="lower right" if which == "roc" else "lower left", frameon=False, fontsize=10)
    return figure
