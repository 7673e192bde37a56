"""Best so far: how the search came to its result, beside what the same trials would give in random order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis import fidelity, style
from analysis.plots import canvas
from analysis.random_order import expected_best
from analysis.results import Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as StaticFigure
    from plotly.graph_objects import Figure

MOST_DOTS = 1_500
MOST_DRAWS = 200  # points of the expected course
FEWEST = 3  # trials of which an order can be told

# Kind of dot -> colour, mark in Plotly's words and in matplotlib's.
DOTS = {
    "finished": (style.CATEGORIES[0], "circle", "o"),
    "not finished": (style.PALE, "circle-open", "o"),
    "cannot be best": (style.PALE, "x-thin-open", "x"),
}
BAND = "rgba(127,127,127,0.18)"


class Course(NamedTuple):
    """The search by one measure of effort: "trials", "epochs" or "seconds" (`unit` says what the numbers are).

    x, best: the steps of the line, ending at the last effort. dot_x: where each dot of BestSoFar lies. random_x: where
    each value of BestSoFar.mean lies: so many trials cost that much on average.
    """

    by: str
    title: str
    x: tuple[float, ...]
    best: tuple[float, ...]
    dot_x: tuple[float, ...]
    random_x: tuple[float, ...]


class BestSoFar(NamedTuple):
    """What is drawn. Each trial with a value is a dot at the height dot_y, the metric as shown.

    kinds: of each dot, "finished", "not finished", or "cannot be best" where the line passes it over.
    mean, low, high: the expected course of random order and its 10% and 90% quantiles; empty for fewer than 3 trials.
    """

    courses: tuple[Course, ...]
    dot_y: tuple[float, ...]
    kinds: tuple[str, ...]
    hover: tuple[str, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    y_title: str
    said: str
    note: str = ""


def compute(results: Results) -> BestSoFar:
    """By trials: in order of start, each with its best epoch. By epochs: all of the search, in the order in which they
    ended (by seq or elapsed, else trial after trial). By time: as the epochs ended, where that is known.

    Random order costs as much a trial as the trials did on average. Of more than 1,500 dots those that raised the line
    and an even choice of the others are drawn.
    """
    metric = style.metric(results)
    value = (style.metric_values(results, results.trials) * metric.factor).dropna()
    value = value[results.trials.loc[value.index, "repeat_of"].isna()]
    counts = _counting(results)
    note = "No trial has a value yet." if value.empty else "No trial that may be best has a value yet."
    counted = value[counts[value.index]]
    if counted.empty:
        return BestSoFar((), (), (), (), (), (), (), metric.axis, "", note)
    numbers = results.trials["number"].astype(float)
    last = float(numbers[results.trials["repeat_of"].isna()].max())
    steps = {"trials": (numbers[counted.index].to_numpy(), counted.to_numpy(), last, numbers[value.index])}
    frame = _in_order(results, metric.factor)
    own = frame[frame["counts"] & frame["value"].notna()]
    ends = frame[frame["epoch"] == frame["best_epoch"]].drop_duplicates("trial").set_index("trial")
    for by in ("epochs", "seconds"):
        if bool(frame[by].notna().all()) and len(own):
            dot_x = ends[by].reindex(value.index)
            steps[by] = (own[by].to_numpy(), own["value"].to_numpy(), float(frame[by].max()), dot_x)
    maximise = results.mode == "max"
    draws = np.unique(np.round(np.linspace(1, len(counted), min(len(counted), MOST_DRAWS))).astype(np.int64))
    random = expected_best(counted.to_numpy(), maximise, draws) if len(counted) >= FEWEST else [np.empty(0)] * 3
    mean, low, high = (tuple(part.tolist()) for part in random)
    shown = _thin(value, counts, maximise)
    courses = []
    for by, (x, y, end, dot_x) in steps.items():
        title, unit = _axis(by, end)
        line_x, line_y = _steps(x, y, end, maximise)
        ahead = tuple((draws * end / len(counted) / unit).tolist()) if len(random[0]) else ()
        courses.append(
            Course(
                by, title, tuple((line_x / unit).tolist()), tuple(line_y.tolist()),
                tuple((dot_x.loc[shown] / unit).tolist()), ahead,
            )
        )  # fmt: skip
    table = results.trials.loc[shown, ["label", "state", "epochs", "repeat_of", "breaks"]]
    drawn = value[shown]
    thinned = f"{len(shown):,} of {len(value):,} trials are drawn as dots." if len(shown) < len(value) else ""
    halfway = _compare(counted.to_numpy(), maximise, metric)
    return BestSoFar(
        tuple(courses),
        tuple(drawn.tolist()),
        tuple(
            "cannot be best" if not able else "finished" if state == "finished" else "not finished"
            for able, state in zip(counts[shown], table["state"], strict=True)
        ),
        tuple(
            f"{style.called(row)}: {metric.text(v / metric.factor)}, {style.outcome(row)}"
            for (_, row), v in zip(table.iterrows(), drawn, strict=True)
        ),
        mean,
        low,
        high,
        metric.axis,
        f"{halfway} {thinned}".strip(),
    )


def _compare(values: NDArray[np.float64], maximise: bool, metric: style.Metric) -> str:
    """Where the search stood half-way, against random order; empty for fewer than 10 trials, or if both read alike."""
    half = len(values) // 2
    if half < 5:
        return ""
    mean, low, high = (part[0] for part in expected_best(values, maximise, np.array([half])))
    best = values[:half].max() if maximise else values[:half].min()
    shown, expected = (metric.text(v / metric.factor) for v in (best, mean))
    if shown == expected:
        return ""
    # It cannot be ahead of the band there: half of all orders have the very best by then.
    behind = best < low if maximise else best > high
    means = (
        "nine of ten orders do better, so the later trials were the better ones" if behind
        else "the order of the trials alone may make that much"
    )  # fmt: skip
    return f"After half of the trials the best was {shown}; the same trials in random order give {expected}: {means}."


def _counting(results: Results) -> pd.Series[bool]:
    """Trials that raise the line: those that may be best, and of diverged and failed ones the best of all alone."""
    lost = results.trials["state"].isin(fidelity.LOST) & (results.trials.index != results.best())
    return results.eligible() & ~lost


def _in_order(results: Results, factor: float) -> pd.DataFrame:
    """All epochs as they ended: trial, epoch, value as shown, counts, best_epoch, epochs (1, 2, ...), seconds."""
    trials, frame = results.trials, results.epochs
    known = [c for c in ("seq", "elapsed") if c in frame and bool(frame[c].notna().all())]
    trial = frame["trial"].map(pd.Series(np.arange(len(trials)), index=trials.index)).to_numpy(dtype=np.int64)
    epoch = frame["epoch"].to_numpy()
    by = np.argsort(frame[known[0]].to_numpy(), kind="stable") if known else np.lexsort((epoch, trial))
    seconds = frame["elapsed"].to_numpy(dtype=float) if "elapsed" in frame else np.full(len(frame), np.nan)
    return pd.DataFrame(
        {
            "trial": trials.index.to_numpy()[trial[by]],
            "epoch": epoch[by],
            "value": (style.metric_values(results, frame) * factor).to_numpy()[by],
            "counts": _counting(results).to_numpy()[trial[by]],
            "best_epoch": trials["best_epoch"].to_numpy()[trial[by]],
            "epochs": np.arange(1.0, len(frame) + 1),
            "seconds": seconds[by],
        }
    )


def _steps(
    x: NDArray[np.float64], y: NDArray[np.float64], end: float, maximise: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Where the best so far changes, and its end."""
    by = np.argsort(x, kind="stable")
    best = (np.maximum if maximise else np.minimum).accumulate(y[by])
    changed = np.flatnonzero(np.diff(best, prepend=np.nan) != 0)
    return np.append(x[by][changed], end), np.append(best[changed], best[-1])


def _thin(value: pd.Series[float], counts: pd.Series[bool], maximise: bool) -> pd.Index[str]:
    if len(value) <= MOST_DOTS:
        return value.index
    own = value.where(counts[value.index])
    raised = own.notna() & (own == (own.cummax() if maximise else own.cummin()))
    even = np.zeros(len(value), dtype=bool)
    even[np.round(np.linspace(0, len(value) - 1, MOST_DOTS)).astype(int)] = True
    return value.index[raised.to_numpy() | even]


def _axis(by: str, end: float) -> tuple[str, float]:
    if by == "seconds":
        unit, seconds = canvas.time_unit(end)
        return f"{unit} since the run began", seconds
    return ("trial" if by == "trials" else "epochs trained, all trials together"), 1.0


def draw(it: BestSoFar, height: int = 420) -> Figure:
    """A line in steps over the band of random order; finished trials filled, the others hollow; buttons choose x."""
    if it.note:
        return canvas.empty(it.note)
    figure = canvas.plot()
    first = it.courses[0]
    if it.mean:
        figure.add_scatter(
            x=_there_and_back(first.random_x), y=(*it.low, *it.high[::-1]), mode="lines", fill="toself", fillcolor=BAND,
            line={"width": 0}, name="random order, 10–90%", hoverinfo="skip",
        )  # fmt: skip
        figure.add_scatter(
            x=first.random_x, y=it.mean, mode="lines", line={"color": style.PALE, "width": 1.8, "dash": "dash"},
            name="random order, expected", hovertemplate="random order: %{y:.4~g} expected<extra></extra>",
        )  # fmt: skip
    figure.add_scatter(
        x=first.x, y=first.best, mode="lines", line={"shape": "hv", "color": style.ACCENT, "width": 3},
        name="best so far", hovertemplate="best so far %{y:.4~g}<extra></extra>",
    )  # fmt: skip
    groups = {kind: [i for i, known in enumerate(it.kinds) if known == kind] for kind in DOTS}
    for kind, some in groups.items():
        colour, symbol, _ = DOTS[kind]
        if some:
            figure.add_scatter(
                x=canvas.floats(first.dot_x[i] for i in some), y=canvas.floats(it.dot_y[i] for i in some),
                mode="markers", name=kind,
                marker={"size": 8 if len(it.kinds) <= 100 else 5, "color": colour, "symbol": symbol,
                        "line": {"width": 0 if symbol == "circle" else 1.5}},
                customdata=[style.safe(it.hover[i]) for i in some], hovertemplate="%{customdata}<extra></extra>",
            )  # fmt: skip
    figure.update_layout(
        height=height, xaxis=_x_axis(first), yaxis={"title": {"text": style.safe(it.y_title)}}, margin={"b": 100},
        updatemenus=[_buttons(it, list(filter(None, groups.values())))] if len(it.courses) > 1 else None,
    )  # fmt: skip
    return figure


def _there_and_back(x: tuple[float, ...]) -> list[float]:
    return [*x, *x[::-1]]


def _x_axis(course: Course) -> dict[str, Any]:
    whole = course.by != "seconds"
    few = whole and course.x[-1] < 12
    return {
        "title": {"text": course.title}, "tickformat": ",d" if whole else None, "nticks": 12,
        "dtick": 1 if few else None,
        "range": [1 - 0.02 * course.x[-1] if whole else 0, 1.015 * course.x[-1] + (0.2 if few else 0)],
    }  # fmt: skip


def _buttons(it: BestSoFar, groups: list[list[int]]) -> dict[str, Any]:
    """Quiet ones; the axis says which one holds. Plotly's own mark of it is white in both themes."""
    made = []
    for course in it.courses:
        random: list[Any] = [_there_and_back(course.random_x), course.random_x] if it.mean else []
        heights: list[Any] = [(*it.low, *it.high[::-1]), it.mean] if it.mean else []
        x = [*random, course.x, *(canvas.floats(course.dot_x[i] for i in some) for some in groups)]
        y = [*heights, course.best, *(canvas.floats(it.dot_y[i] for i in some) for some in groups)]
        made.append(
            {"label": f"by {'time' if course.by == 'seconds' else course.by}", "method": "update",
             "args": [{"x": x, "y": y}, {f"xaxis.{key}": value for key, value in _x_axis(course).items()}]}
        )  # fmt: skip
    return {
        "type": "buttons", "direction": "right", "x": 0.5, "xanchor": "center", "y": 0, "yanchor": "top",
        "showactive": False, "bgcolor": "rgba(0,0,0,0)", "borderwidth": 0, "pad": {"t": 58},
        "font": {"size": 12, "color": "#7a838e"}, "buttons": made,
    }  # fmt: skip


def draw_static(it: BestSoFar) -> StaticFigure:
    """The same for paper, one panel each way of counting."""
    if it.note:
        return canvas.empty_static(it.note)
    figure, made = canvas.panels(10, 4.4, 1, len(it.courses), same_y=True)
    for axes, course in zip(made, it.courses, strict=True):
        _fill(axes, it, course)
    made[0].set_ylabel(it.y_title)
    canvas.caption(figure, it.said, made[0])
    return figure


def _fill(axes: Axes, it: BestSoFar, course: Course) -> None:
    from matplotlib.ticker import MaxNLocator

    if it.mean:
        axes.fill_between(
            course.random_x, it.low, it.high, color="#7f7f7f", alpha=0.18, lw=0, label="random order, 10–90%"
        )
        axes.plot(course.random_x, it.mean, "--", color=style.PALE, lw=1.5, label="random order, expected")
    axes.step(course.x, course.best, where="post", color=style.ACCENT, lw=2.6, label="best so far")
    for kind, (colour, _, marker) in DOTS.items():
        some = [i for i, known in enumerate(it.kinds) if known == kind]
        faces: dict[str, Any] = (
            {"facecolors": "none", "edgecolors": colour} if kind == "not finished" else {"c": colour}
        )
        if some:
            axes.scatter(
                [course.dot_x[i] for i in some], [it.dot_y[i] for i in some], s=36 if len(it.kinds) <= 100 else 12,
                linewidths=1.4, marker=marker, label=kind, zorder=3, **faces,
            )  # fmt: skip
    axes.set_xlabel(course.title)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=course.by != "seconds"))
    axes.grid(color=style.THEMES["light"]["grid"])
