"""Reliability: how often the model is right when it says it is so sure, and how many images that is about."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from analysis import style
from analysis.evaluation.read import Bin, Evaluation
from analysis.plots import canvas

if TYPE_CHECKING:
    from matplotlib.figure import Figure as StaticFigure
    from plotly.graph_objects import Figure

SMALL = 0.01  # a mean distance of one point is as good as none
NOTE = "Nothing is known of how sure the model was."


def tendency(evaluation: Evaluation) -> float:
    """Confidence minus accuracy over all images: above 0 the model is surer than it should be."""
    total = sum(part.images for part in evaluation.calibration)
    claimed = sum(part.images * (part.confidence - part.accuracy) for part in evaluation.calibration)
    return claimed / total if total else 0.0


def said(evaluation: Evaluation) -> str:
    """The expected calibration error in words."""
    error = evaluation.metrics.get("ece")
    if not evaluation.calibration or error is None or error.value is None:
        return ""
    lean = tendency(evaluation)
    how = "too sure of itself" if lean > SMALL else "less sure than it could be" if lean < -SMALL else "about right"
    sure = evaluation.calibration[-1]
    text = (
        f"Its confidence is off by {100 * error.value:.1f} points on average (expected calibration error): on the "
        f"whole it is {how}."
    )
    if sure.images and sure.high > 0.9:
        text += (
            f" Where it says {100 * sure.confidence:.0f}% ({style.count(sure.images, 'image')}), "
            f"{100 * sure.accuracy:.0f}% are right."
        )
    return text


def _around(bins: Sequence[Bin]) -> tuple[list[float], list[float]]:
    """How far down and up Wilson's 95% interval (1927) goes, in points; in a bin of few images it is wide."""
    down, up = [], []
    for part in bins:
        z, n, p = 1.96, max(part.images, 1), part.accuracy
        middle = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * math.sqrt(max(0.0, p * (1 - p)) / n + z * z / (4 * n * n))
        down.append(100 * max(0.0, p - middle + half))
        up.append(100 * max(0.0, middle + half - p))
    return down, up


def draw(evaluation: Evaluation) -> Figure:
    """Above, the share that is right over the confidence, with 95% intervals; below, how many images."""
    from plotly.subplots import make_subplots

    bins = evaluation.calibration
    if not bins:
        return canvas.empty(NOTE)
    figure = make_subplots(2, 1, shared_xaxes=True, row_heights=[0.74, 0.26], vertical_spacing=0.06)
    figure.add_scatter(
        x=[0, 100], y=[0, 100], mode="lines", name="as sure as it should be", hoverinfo="skip",
        line={"color": style.PALE, "width": 1.5, "dash": "dash"}, row=1, col=1,
    )  # fmt: skip
    x, y = [100 * part.confidence for part in bins], [100 * part.accuracy for part in bins]
    down, up = _around(bins)
    figure.add_scatter(
        x=x, y=y, mode="lines+markers", name="this model", line={"color": style.ACCENT, "width": 2.5},
        marker={"size": 8}, row=1, col=1,
        error_y={"type": "data", "symmetric": False, "array": up, "arrayminus": down, "thickness": 1.3, "width": 0},
        customdata=[_hover(part) for part in bins], hovertemplate="%{customdata}<extra></extra>",
    )  # fmt: skip
    figure.add_bar(
        x=[50 * (part.low + part.high) for part in bins], y=[part.images for part in bins], showlegend=False,
        width=[100 * (part.high - part.low) * 0.9 for part in bins], row=2, col=1,
        marker={"color": style.CATEGORIES[0], "line": {"width": 0}},
        customdata=[_hover(part) for part in bins], hovertemplate="%{customdata}<extra></extra>",
    )  # fmt: skip
    figure.update_layout(template=style.template("light"), height=470)
    figure.update_xaxes(range=[0, 101])
    figure.update_xaxes(title={"text": "confidence (%)"}, row=2, col=1)
    figure.update_yaxes(title={"text": "right (%)"}, range=[0, 102], row=1, col=1)
    figure.update_yaxes(title={"text": "images"}, row=2, col=1, nticks=4)
    return figure


def _hover(part: Bin) -> str:
    return (
        f"confidence {100 * part.low:.0f} to {100 * part.high:.0f}%, {100 * part.confidence:.1f}% on average<br>"
        f"{100 * part.accuracy:.1f}% of {style.count(part.images, 'image')} are right"
    )


def draw_static(evaluation: Evaluation) -> StaticFigure:
    """The same for paper."""
    bins = evaluation.calibration
    if not bins:
        return canvas.empty_static(NOTE)
    figure, (above, below) = canvas.panels(10, 6.4, 2, 1, heights=(3, 1))
    above.plot([0, 100], [0, 100], "--", color=style.PALE, lw=1.5, label="as sure as it should be")
    x, y = [100 * part.confidence for part in bins], [100 * part.accuracy for part in bins]
    above.errorbar(
        x, y, yerr=_around(bins), fmt="-o", color=style.ACCENT, lw=2.4, ms=6, elinewidth=1.2, label="this model"
    )
    below.bar(
        [50 * (part.low + part.high) for part in bins], [part.images for part in bins],
        width=[90 * (part.high - part.low) for part in bins], color=style.CATEGORIES[0],
    )  # fmt: skip
    above.set(ylabel="right (%)", xlim=(0, 101), ylim=(0, 102))
    above.tick_params(labelbottom=False)
    below.set(xlabel="confidence (%)", ylabel="images", xlim=(0, 101))
    for axes in (above, below):
        axes.grid(color=style.THEMES["light"]["grid"])
    canvas.caption(figure, said(evaluation))
    return figure
