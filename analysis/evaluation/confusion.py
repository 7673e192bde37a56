"""Confusion matrix: what each class was taken for; right answers blue, errors red."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from analysis import style
from analysis.evaluation.read import Evaluation
from analysis.plots import canvas

if TYPE_CHECKING:
    from matplotlib.figure import Figure as StaticFigure
    from plotly.graph_objects import Figure

WITH_NUMBERS = 20  # classes; in smaller cells numbers cannot be read
MOST_CLASSES = 100  # with more, those with the lowest recall are drawn
MOST_NAMES = 40  # with more classes only every so many names stand on the axes
LEAST_RED = 0.1  # of a class that the darkest red stands for: where all errors are rarer, all are pale
NAME = 18  # characters of a name on an axis


class Grid(NamedTuple):
    """The matrix as drawn. colour: 0 to 1 where right, 0 to -1 where wrong; NaN in the row of a class without images.

    names: of the classes, short, each once; counts: images; shares: of the images of the row's class.
    """

    names: list[str]
    colour: NDArray[np.float64]
    counts: NDArray[np.int64]
    shares: NDArray[np.float64]
    texts: list[list[str]]


def grid(evaluation: Evaluation, *, counts: bool = False) -> Grid:
    """Shares of each class's images, or with `counts` their numbers; of at most 100 classes.

    Errors are few beside right answers, so they have a scale of their own, up to the largest.
    """
    matrix = np.array(evaluation.confusion, dtype=np.int64)
    rows = matrix.sum(axis=1, keepdims=True)
    shares = np.divide(matrix, rows, out=np.full(matrix.shape, np.nan), where=rows > 0)
    some = np.sort(np.argsort(shares.diagonal(), kind="stable")[:MOST_CLASSES])  # NaN last: no images, nothing to see
    matrix, shares = matrix[np.ix_(some, some)], shares[np.ix_(some, some)]
    right = np.eye(len(matrix), dtype=bool)
    values = matrix / max(matrix[right].max(), 1) if counts else shares
    wrong = np.where(right, 0, np.nan_to_num(values))
    colour = np.where(right, values, -wrong / max(wrong.max(), LEAST_RED))
    colour[np.isnan(shares)] = np.nan
    printed = matrix if counts else np.round(100 * np.nan_to_num(shares)).astype(int)
    texts = [[f"{value:,}" if value else "" for value in row] for row in printed.tolist()]
    return Grid(_names([evaluation.classes[n] for n in some]), colour, matrix, shares, texts)


def _names(classes: list[str]) -> list[str]:
    """Each cut to fit an axis, numbered where two would be the same."""
    names = [canvas.cut(name, NAME) for name in classes]
    return names if len(set(names)) == len(names) else [f"{n}. {name}" for n, name in enumerate(names, 1)]


def said(evaluation: Evaluation) -> str:
    """The kind of error that is most frequent, and how many classes are left out."""
    if not evaluation.confused:
        return "No image was taken for another class."
    most, n = evaluation.confused[0], len(evaluation.classes)
    text = (
        f"Most often, {canvas.cut(most.truth)} was taken for {canvas.cut(most.predicted)}: "
        f"{style.count(most.count, 'image')}, {100 * most.share:.1f}% of that class."
    )
    return text + (f" Of {n:,} classes, the {MOST_CLASSES} that it knows worst are drawn." if n > MOST_CLASSES else "")


def draw(evaluation: Evaluation, *, counts: bool = False) -> Figure:
    """Rows are the true classes, columns what they were taken for; numbers in the cells of at most 20 classes."""
    it = grid(evaluation, counts=counts)
    n = len(it.names)
    names = [style.safe(name) for name in it.names]
    numbers = {"text": it.texts, "texttemplate": "%{text}", "textfont": {"size": 13 if n <= 12 else 10}}
    figure = canvas.plot()
    figure.add_heatmap(
        x=names, y=names, z=_rounded(it.colour, 3), zmin=-1, zmax=1, showscale=False, hoverongaps=False,
        customdata=np.stack([it.counts, _rounded(100 * it.shares, 1)], axis=2).tolist(),
        hovertemplate="%{y}, called %{x}<br>%{customdata[0]} images, %{customdata[1]}% of %{y}<extra></extra>",
        xgap=2 if n <= WITH_NUMBERS else 0, ygap=2 if n <= WITH_NUMBERS else 0,
        **(numbers if n <= WITH_NUMBERS else {}),
    )  # fmt: skip
    ticks = names[:: -(-n // MOST_NAMES)]
    axis: dict[str, Any] = {"type": "category", "tickvals": ticks, "ticks": "", "showgrid": False}
    figure.update_layout(
        height=130 + 40 * n if n <= WITH_NUMBERS else min(900, 420 + 6 * n), margin={"t": 16},
        xaxis={**axis, "title": {"text": "predicted class"}, "tickangle": _angle(it.names)},
        yaxis={**axis, "title": {"text": "true class"}, "autorange": "reversed"},
    )  # fmt: skip
    return figure


def _rounded(values: NDArray[np.float64], digits: int) -> NDArray[Any]:
    """With few digits; NaN as None, a gap."""
    rounded = np.round(values, digits).astype(object)
    rounded[np.isnan(values)] = None
    return rounded


def _angle(names: list[str]) -> int:
    return 0 if len(names) <= 10 and max(map(len, names)) <= 10 else -45 if len(names) <= 20 else -90


def draw_static(evaluation: Evaluation, *, counts: bool = False) -> StaticFigure:
    """The same for paper."""
    from matplotlib.colors import LinearSegmentedColormap

    it = grid(evaluation, counts=counts)
    n = len(it.names)
    figure, axes = canvas.sheet(10, max(3.0, 1.8 + 0.5 * n) if n <= WITH_NUMBERS else 9.5)
    colours = LinearSegmentedColormap.from_list("right and wrong", style.RED_BLUE["light"])
    gap: dict[str, Any] = {"edgecolors": "white", "linewidth": 2} if n <= WITH_NUMBERS else {}
    axes.pcolormesh(np.ma.masked_invalid(it.colour), cmap=colours, vmin=-1, vmax=1, **gap)
    for (i, j), colour in np.ndenumerate(it.colour if n <= WITH_NUMBERS else np.zeros((0, 0))):
        axes.text(
            j + 0.5, i + 0.5, it.texts[i][j], ha="center", va="center", fontsize=11 if n <= 12 else 8,
            color="white" if abs(np.nan_to_num(colour)) > 0.65 else style.THEMES["light"]["text"],
        )  # fmt: skip
    step = -(-n // MOST_NAMES)
    places, ticks, angle = [place + 0.5 for place in range(0, n, step)], it.names[::step], -_angle(it.names)
    straight, small = angle in (0, 90), 8 if n > WITH_NUMBERS else None
    axes.set_xticks(
        places, ticks, rotation=angle, fontsize=small, ha="center" if straight else "right",
        rotation_mode=None if straight else "anchor",
    )  # fmt: skip
    axes.set_yticks(places, ticks, fontsize=small)
    axes.set(xlabel="predicted class", ylabel="true class")
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.invert_yaxis()
    canvas.caption(figure, said(evaluation))
    return figure
