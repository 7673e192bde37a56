"""The course of several runs: the best value so far of each, over the same trials, epochs or seconds."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from analysis import style
from analysis.plots import best_so_far, canvas
from analysis.results import Results

if TYPE_CHECKING:
    from matplotlib.figure import Figure as StaticFigure
    from plotly.graph_objects import Figure

TITLES = {
    "trials": "trials begun",
    "epochs": "epochs trained, all trials together",
    "seconds": "since the run began",
}
DASHES = (("solid", "-"), ("dash", "--"), ("dot", ":"))  # in Plotly's words and in matplotlib's


class Steps(NamedTuple):
    """The best value from each x on, as shown; the last x is where the run was at its end."""

    x: tuple[float, ...]
    best: tuple[float, ...]

    def at(self, x: float) -> float | None:
        """The best value when so much was spent; None before the first one."""
        place = bisect_right(self.x, x)
        return self.best[place - 1] if place else None


class Line(NamedTuple):
    """One run. look: its number among all runs of the page, which gives colour and dash."""

    name: str
    look: int
    steps: Mapping[str, Steps]


class Course(NamedTuple):
    """What is drawn: for trials, epochs and seconds the lines that know them."""

    lines: tuple[Line, ...]
    y_title: str
    note: str = ""


def compute(runs: Sequence[Results], names: Sequence[str], looks: Sequence[int]) -> Course:
    """Repeats are left out: they come after the search. Seconds of workers' epochs, where the rows are timed."""
    lines = []
    for results, name, look in zip(runs, names, looks, strict=True):
        steps = _steps(_searched(results))
        if steps:
            lines.append(Line(name, look, steps))
    axis = style.metric(runs[0]).axis
    return Course(tuple(lines), axis, "" if lines else "No trial has a value yet.")


def _searched(results: Results) -> Results:
    trials = results.trials[results.trials["repeat_of"].isna()]
    return replace(results, trials=trials, epochs=results.epochs[results.epochs["trial"].isin(trials.index)])


def _steps(results: Results) -> dict[str, Steps]:
    steps = {}
    for own in best_so_far.compute(results).courses:
        unit = canvas.time_unit(float(results.epochs["elapsed"].max()))[1] if own.by == "seconds" else 1.0
        steps[own.by] = Steps(tuple(x * unit for x in own.x), own.best)
    return steps


def draw(it: Course, by: str, height: int = 320) -> Figure:
    """One line in steps a run, over `by`; names stand beside the figure, with the same colours."""
    if it.note:
        return canvas.empty(it.note)
    figure = canvas.plot()
    factor, title = _unit(it, by)
    for line in it.lines:
        if by in line.steps:
            steps = line.steps[by]
            figure.add_scatter(
                x=[x / factor for x in steps.x], y=steps.best, mode="lines", name=style.safe(line.name),
                line={"shape": "hv", "width": 2.5, "color": colour(line.look), "dash": dash(line.look)[0]},
                hovertemplate="%{fullData.name}: %{y:.4~g}<extra></extra>",
            )  # fmt: skip
    figure.update_layout(
        height=height, showlegend=False, margin={"l": 50, "r": 15, "t": 10, "b": 50},
        xaxis={"title": {"text": title}, "rangemode": "tozero", "nticks": 6},
        yaxis={"title": {"text": style.safe(it.y_title)}, "nticks": 7, "range": _range(it)},
    )  # fmt: skip
    return figure


def draw_static(it: Course) -> StaticFigure:
    """All three side by side, for paper."""
    if it.note:
        return canvas.empty_static(it.note)
    shown = axes_of(it)
    figure, made = canvas.panels(11, 4.2, 1, len(shown), same_y=True)
    for axes, by in zip(made, shown, strict=True):
        factor, title = _unit(it, by)
        for line in it.lines:
            if by in line.steps:
                x = [value / factor for value in line.steps[by].x]
                look: dict[str, Any] = {"color": colour(line.look), "ls": dash(line.look)[1]}
                axes.step(x, line.steps[by].best, where="post", lw=2.2, label=line.name, **look)
        axes.set_xlabel(canvas.wrap(title, 24))
        axes.grid(color=style.THEMES["light"]["grid"])
    made[0].set_ylabel(it.y_title)
    handles, names = made[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower left", ncols=3, frameon=False)
    return figure


def axes_of(it: Course) -> list[str]:
    """Which of trials, epochs and seconds some line knows."""
    return [by for by in TITLES if any(by in line.steps for line in it.lines)]


def colour(look: int) -> str:
    """The colour of a run: the same on the whole page."""
    return style.CATEGORIES[look % len(style.CATEGORIES)]


def dash(look: int) -> tuple[str, str]:
    """How its line is dashed, where there are more runs than colours."""
    return DASHES[look // len(style.CATEGORIES) % len(DASHES)]


def _range(it: Course) -> list[float]:
    """The same upwards for all three."""
    values = [value for line in it.lines for steps in line.steps.values() for value in steps.best]
    room = 0.04 * (max(values) - min(values)) or 0.5 * abs(max(values)) or 1.0
    return [min(values) - room, max(values) + room]


def _unit(it: Course, by: str) -> tuple[float, str]:
    """By what the values of an axis are divided, and its title."""
    if by != "seconds":
        return 1.0, TITLES[by]
    unit, seconds = canvas.time_unit(max(line.steps[by].x[-1] for line in it.lines if by in line.steps))
    return seconds, f"{unit} {TITLES[by]}"
