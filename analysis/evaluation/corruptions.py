"""What worse images cost: accuracy under growing noise, blur, brightness and JPEG compression."""

from __future__ import annotations

from typing import TYPE_CHECKING

from analysis import style
from analysis.evaluation.read import Evaluation, Strength
from analysis.plots import canvas

if TYPE_CHECKING:
    from matplotlib.figure import Figure as StaticFigure
    from plotly.graph_objects import Figure

NOTE = "The model was not tried on corrupted images."
SYMBOLS = (("circle", "o"), ("square", "s"), ("diamond", "D"), ("triangle-up", "^"), ("cross", "P"), ("star", "*"))
APART = 0.04  # of a step between two kinds, so that their whiskers do not hide each other


def kinds(evaluation: Evaluation) -> dict[str, tuple[Strength, ...]]:
    """By the kind of harm, in the order of the file."""
    found = evaluation.corruptions.kinds if evaluation.corruptions else {}
    return {kind: tuple(sorted(steps, key=lambda s: s.strength)) for kind, steps in found.items() if steps}


def said(evaluation: Evaluation) -> str:
    """The kind that costs most at its worst."""
    found = kinds(evaluation)
    if not found:
        return ""
    worst = min(found, key=lambda kind: found[kind][-1].accuracy)
    first, last = found[worst][0], found[worst][-1]
    text = (
        f"{style.words(worst).capitalize()} costs most: at strength {last.strength} the accuracy is "
        f"{100 * last.accuracy:.1f}%, against {100 * first.accuracy:.1f}% at strength {first.strength}."
    )
    told = evaluation.corruptions
    if told and told.images:
        text += f" Measured on {style.count(told.images, 'image')}"
        text += f", with the strengths of {canvas.cut(told.strengths_of)}." if told.strengths_of else "."
    return text


def _around(steps: tuple[Strength, ...]) -> tuple[list[float], list[float]]:
    """Whiskers down and up, in points; 0 where there is no interval."""
    down = [0.0 if s.low is None else 100 * max(0.0, s.accuracy - s.low) for s in steps]
    return down, [0.0 if s.high is None else 100 * max(0.0, s.high - s.accuracy) for s in steps]


def draw(evaluation: Evaluation) -> Figure:
    """A line a kind, over its strength; whiskers are 95% intervals."""
    found = kinds(evaluation)
    if not found:
        return canvas.empty(NOTE)
    figure = canvas.plot()
    for n, (kind, steps) in enumerate(found.items()):
        down, up = _around(steps)
        colour = style.CATEGORIES[n % len(style.CATEGORIES)]
        name = style.safe(canvas.cut(style.words(kind), 24))
        figure.add_scatter(
            x=[s.strength + APART * (n - (len(found) - 1) / 2) for s in steps], y=[100 * s.accuracy for s in steps],
            mode="lines+markers", name=name, line={"color": colour, "width": 2.2},
            marker={"size": 8, "symbol": SYMBOLS[n % len(SYMBOLS)][0]},
            error_y={"type": "data", "symmetric": False, "array": up, "arrayminus": down, "thickness": 1.2, "width": 0},
            customdata=[
                f"{name}, strength {s.strength}<br>{100 * s.accuracy:.1f}%"
                + ("" if s.low is None or s.high is None else f" ({100 * s.low:.1f} to {100 * s.high:.1f}%)")
                for s in steps
            ],
            hovertemplate="%{customdata}<extra></extra>",
        )  # fmt: skip
    strengths = sorted({s.strength for steps in found.values() for s in steps})
    figure.update_layout(
        height=420,
        xaxis={"title": {"text": "strength (0: the images as they are)"}, "tickvals": strengths},
        yaxis={"title": {"text": "accuracy (%)"}, "rangemode": "tozero"},
    )
    return figure


def draw_static(evaluation: Evaluation) -> StaticFigure:
    """The same for paper."""
    found = kinds(evaluation)
    if not found:
        return canvas.empty_static(NOTE)
    figure, axes = canvas.sheet(10, 5)
    for n, (kind, steps) in enumerate(found.items()):
        axes.errorbar(
            [s.strength + APART * (n - (len(found) - 1) / 2) for s in steps], [100 * s.accuracy for s in steps],
            yerr=_around(steps), fmt=f"-{SYMBOLS[n % len(SYMBOLS)][1]}", lw=2, ms=6, elinewidth=1.2,
            color=style.CATEGORIES[n % len(style.CATEGORIES)], label=canvas.cut(style.words(kind), 24),
        )  # fmt: skip
    axes.set_xticks(sorted({s.strength for steps in found.values() for s in steps}))
    axes.set(xlabel="strength (0: the images as they are)", ylabel="accuracy (%)")
    axes.set_ylim(bottom=0)
    axes.grid(color=style.THEMES["light"]["grid"])
    canvas.caption(figure, said(evaluation))
    return figure
