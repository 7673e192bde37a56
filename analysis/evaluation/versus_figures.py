"""The figures of two models against each other: class by class, under corruptions, and the images that part them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from analysis import style
from analysis.evaluation.read import Strength
from analysis.evaluation.versus_read import ClassDifference, Parted, Versus, picture
from analysis.plots import canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as StaticFigure
    from plotly.graph_objects import Figure

COLOURS = style.CATEGORIES[:2]  # of the first and the second model, throughout
SYMBOLS = (("circle", "o"), ("square", "s"))
BANDS = ("rgba(0,114,178,0.16)", "rgba(230,159,0,0.20)")  # the same colours, pale on both themes
UNSURE = style.PALE
MOST_ROWS = 30  # with more classes those that differ most are drawn
SURE = 0.05
ACROSS, MOST_IMAGES = 8, 24  # of a contact sheet on paper
KINDS = {"noise": "noise", "blur": "blur", "brightness": "brightness", "jpeg": "JPEG compression"}


def names(versus: Versus, most: int = 40) -> tuple[str, str]:
    """Of both models, short enough for a legend."""
    first, second = (canvas.cut(side.name, most) for side in versus.models)
    return first, second


# ---------------------------------------------------------------- class by class


class Look(NamedTuple):
    """How a dot looks, by what is known of its class."""

    colour: str
    symbol: str
    marker: str
    label: str


def looks(versus: Versus) -> tuple[Look, Look, Look]:
    """Of a class that the first clearly knows better, that the second does, and of one where it could be chance."""
    of = [
        Look(colour, *symbols, f"{name} clearly better")
        for colour, symbols, name in zip(COLOURS, SYMBOLS, names(versus, 30), strict=True)
    ]
    return of[0], of[1], Look(UNSURE, "diamond-open", "D", "could be chance")


def rows(versus: Versus) -> list[ClassDifference]:
    """The classes that are drawn, those on top that the first model knows better; of many those that differ most."""
    most = sorted(versus.per_class, key=lambda one: -abs(one.difference))[:MOST_ROWS]
    return sorted(most, key=lambda one: -one.difference)


def kind(one: ClassDifference) -> int:
    """Which of `looks` a class has."""
    return 2 if one.p_holm >= SURE else int(one.difference < 0)


def classes_said(versus: Versus) -> str:
    """How many classes differ clearly, and how many are left out."""
    sure = [one for one in versus.per_class if one.p_holm < SURE]
    told = (
        "In no class do they differ by more than chance, the number of classes taken into account."
        if not sure
        else f"In {style.count(len(sure), 'class', 'classes')} of {len(versus.per_class)} they differ by more than "
        "chance, the number of classes taken into account."
    )
    left_out = len(versus.per_class) - MOST_ROWS
    return f"{told} The {MOST_ROWS} that differ most are drawn." if left_out > 0 else told


def draw_classes(versus: Versus) -> Figure:
    """A dot a class: by how many points of recall the first model is ahead, with its 95% interval."""
    shown = rows(versus)
    figure = canvas.plot()
    for number, look in enumerate(looks(versus)):
        mine = [(n, one) for n, one in enumerate(shown) if kind(one) == number]
        if not mine:
            continue
        figure.add_scatter(
            x=[100 * one.difference for _, one in mine], y=[n for n, _ in mine], mode="markers",
            name=style.safe(look.label), marker={"color": look.colour, "symbol": look.symbol, "size": 10},
            error_x={"type": "data", "symmetric": False, "thickness": 1.6,
                     "array": [100 * (one.high - one.difference) for _, one in mine],
                     "arrayminus": [100 * (one.difference - one.low) for _, one in mine], "width": 0,
                     "color": look.colour},
            customdata=[_hover(versus, one) for _, one in mine], hovertemplate="%{customdata}<extra></extra>",
        )  # fmt: skip
    limit = _limit(shown)
    figure.update_layout(
        height=150 + 30 * len(shown),
        xaxis={"title": {"text": "<br>".join(map(style.safe, _axis(versus)))}, "range": [-limit, limit],
               "zeroline": True, "zerolinecolor": style.PALE, "zerolinewidth": 1.5},
        yaxis={"tickvals": list(range(len(shown))), "ticks": "", "showgrid": False,
               "ticktext": [style.safe(canvas.cut(one.name, 22)) for one in shown], "range": [len(shown) - 0.4, -0.6]},
        showlegend=True,
    )  # fmt: skip
    return figure


def _axis(versus: Versus) -> tuple[str, str]:
    """Two lines: a telephone is no wider than the second one."""
    first, second = names(versus, 18)
    return "difference of recall (points)", f"← {second} better · {first} better →"


def _limit(shown: Sequence[ClassDifference]) -> float:
    return 100 * min(1.0, max([0.01, *(max(-one.low, one.high) for one in shown)])) * 1.05


def _hover(versus: Versus, one: ClassDifference) -> str:
    first, second = (style.safe(name) for name in names(versus))
    return (
        f"{style.safe(canvas.cut(one.name, 60))}, {style.count(one.images, 'image')}<br>"
        f"{first} {one.recalls[0]:.1%}, {second} {one.recalls[1]:.1%}<br>"
        f"{points(one.difference)} points ({points(one.low)} to {points(one.high)})<br>"
        f"p {one.p:.2g}, {one.p_holm:.2g} for all classes together"
    )


def points(share: float) -> str:
    """A difference in points: +1.8, −0.3."""
    return f"{100 * share:+.1f}".replace("-0.0", "0.0").replace("+0.0", "0.0").replace("-", "−")


def draw_classes_static(versus: Versus) -> StaticFigure:
    """The same for paper."""
    shown = rows(versus)
    figure, axes = canvas.sheet(10, 2 + 0.3 * len(shown))
    axes.axvline(0, color=style.PALE, lw=1.2)
    for number, look in enumerate(looks(versus)):
        mine = [(n, one) for n, one in enumerate(shown) if kind(one) == number]
        if not mine:
            continue
        axes.errorbar(
            [100 * one.difference for _, one in mine], [n for n, _ in mine],
            xerr=[[100 * (one.difference - one.low) for _, one in mine],
                  [100 * (one.high - one.difference) for _, one in mine]],
            fmt=look.marker, ms=6, color=look.colour, elinewidth=1.5, label=look.label,
            mfc="none" if number == 2 else look.colour,
        )  # fmt: skip
    limit = _limit(shown)
    axes.set_yticks(range(len(shown)), [canvas.cut(one.name, 22) for one in shown])
    axes.tick_params(axis="y", length=0)
    axes.set(xlabel="\n".join(_axis(versus)), xlim=(-limit, limit), ylim=(len(shown) - 0.4, -0.6))
    axes.grid(color=style.THEMES["light"]["grid"], axis="x")
    canvas.caption(figure, classes_said(versus))
    return figure


# ---------------------------------------------------------------- under corruptions


def steps(versus: Versus) -> dict[str, tuple[tuple[Strength, ...], tuple[Strength, ...]]]:
    """By kind of corruption, in the order of the file, the accuracies of both models."""
    if versus.robustness is None:
        return {}
    first, second = versus.robustness.models
    found = {}
    for name in first.kinds:
        both = [tuple(sorted(model.kinds[name], key=lambda s: s.strength)) for model in (first, second)]
        if both[0] and both[1]:
            found[name] = (both[0], both[1])
    return found


def _range(versus: Versus) -> tuple[float, float]:
    """Of the accuracy on all panels, in percent, with room."""
    found = [value for both in steps(versus).values() for one in both for step in one for value in _bounds(step)]
    return max(0.0, 100 * min(found) - 3), min(100.0, 100 * max(found) + 3)


def _bounds(step: Strength) -> tuple[float, float]:
    low, high = (step.accuracy if end is None else end for end in (step.low, step.high))
    return low, high


def draw_kind(versus: Versus, name: str) -> Figure:
    """Both models under one kind of corruption, each with a band of 95%; all kinds have one scale."""
    figure = canvas.plot()
    for number, (of, called) in enumerate(zip(steps(versus)[name], names(versus), strict=True)):
        x = [step.strength for step in of]
        low, high = ([100 * _bounds(step)[end] for step in of] for end in (0, 1))
        figure.add_scatter(x=[*x, *x[::-1]], y=[*high, *low[::-1]], fill="toself", fillcolor=BANDS[number],
                           line={"width": 0}, mode="lines", hoverinfo="skip", showlegend=False)  # fmt: skip
        figure.add_scatter(
            x=x, y=[100 * step.accuracy for step in of], mode="lines+markers", name=style.safe(called),
            line={"color": COLOURS[number], "width": 2.2}, marker={"size": 7, "symbol": SYMBOLS[number][0]},
            customdata=[f"{style.safe(called)}, strength {step.strength}<br>{step.accuracy:.1%} "
                        f"({_bounds(step)[0]:.1%} to {_bounds(step)[1]:.1%})" for step in of],
            hovertemplate="%{customdata}<extra></extra>",
        )  # fmt: skip
    figure.update_layout(
        height=290, showlegend=False, margin={"l": 50, "r": 10, "t": 10, "b": 45},
        xaxis={"title": {"text": "strength"}, "tickvals": list(range(6)), "range": [-0.25, 5.25]},
        yaxis={"title": {"text": "accuracy (%)"}, "range": list(_range(versus))},
    )  # fmt: skip
    return figure


def draw_corruptions_static(versus: Versus) -> StaticFigure:
    """All kinds side by side, for paper."""
    found = steps(versus)
    if not found:
        return canvas.empty_static("The models were not tried on corrupted images.")
    figure, panels = canvas.panels(12, 4.2, 1, len(found), same_y=True)
    for axes, (name, both) in zip(panels, found.items(), strict=True):
        for number, (of, called) in enumerate(zip(both, names(versus), strict=True)):
            x, low, high = ([*column] for column in zip(*((s.strength, *_bounds(s)) for s in of), strict=True))
            axes.fill_between(
                x, [100 * v for v in low], [100 * v for v in high], color=COLOURS[number], alpha=0.16, lw=0
            )
            axes.plot(x, [100 * s.accuracy for s in of], f"-{SYMBOLS[number][1]}", lw=2, ms=5, color=COLOURS[number],
                      label=called)  # fmt: skip
        axes.set_title(KINDS.get(name, style.words(name)), loc="left", fontsize=11)
        axes.set(xlabel="strength", xticks=range(6), ylim=_range(versus))
        axes.grid(color=style.THEMES["light"]["grid"])
    panels[0].set_ylabel("accuracy (%)")
    canvas.caption(figure, corruptions_said(versus))
    return figure


def corruptions_said(versus: Versus) -> str:
    """How both stand the corruptions, all of them together."""
    if (found := versus.robustness) is None:
        return ""
    first, second = names(versus)
    value = found.difference
    told = (
        f"Over all {sum(len(both[0]) - 1 for both in steps(versus).values())} corruptions {first} is right on "
        f"{found.models[0].mean:.1%} of {style.count(found.images, 'image')}, {second} on {found.models[1].mean:.1%}"
    )
    if value.low > 0 or value.high < 0:
        return f"{told}: {points(value.value)} points (95%: {points(value.low)} to {points(value.high)})."
    return f"{told}; the difference could be chance (95%: {points(value.low)} to {points(value.high)} points)."


# ---------------------------------------------------------------- the images


def draw_sheet_static(versus: Versus, shown: Sequence[Parted]) -> StaticFigure:
    """A contact sheet for paper: under each image what it shows, and what both say, the wrong in the accent colour."""
    shown = shown[:MOST_IMAGES]
    if not shown:
        return canvas.empty_static("There is no such image.")
    down = -(-len(shown) // ACROSS)
    figure, axes = canvas.sheet(12, 0.9 + 2.2 * down)
    for n, one in enumerate(shown):
        left, top = 1.12 * (n % ACROSS), 1.6 * (n // ACROSS)
        _put(axes, picture(versus, one), left, top)
        axes.text(left, top + 1.03, canvas.cut(one.truth, 18), va="top", fontsize=9)
        for line, (said, sure) in enumerate(zip(one.predicted, one.confidence, strict=True)):
            colour = style.THEMES["light"]["muted"] if said == one.truth else style.ACCENT
            text = f"{'AB'[line]} {canvas.cut(said, 12)} {100 * sure:.0f}%"
            axes.text(left, top + 1.16 + 0.13 * line, text, va="top", fontsize=9, color=colour)
    axes.set(xlim=(-0.02, 1.12 * ACROSS - 0.1), ylim=(1.6 * down, -0.02), aspect="equal")
    axes.set_axis_off()
    first, second = names(versus)
    figure.supxlabel(f"A: {first}, B: {second}; with how sure each is", x=0.01, ha="left", fontsize=9.5)
    return figure


def _put(axes: Axes, data: bytes | None, left: float, top: float) -> None:
    """One thumbnail; nothing where it is missing or damaged."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data or b""), formats=("PNG",)) as opened:
            image = opened.convert("RGB")
    except (OSError, ValueError, SyntaxError):  # SyntaxError: a broken PNG
        return
    how = "nearest" if max(image.size) < 100 else "antialiased"
    axes.imshow(image, extent=(left, left + 1, top + 1, top), interpolation=how)
