"""Gap: how much better trials were on what they trained on than on validation, and what came of it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from analysis import fidelity, style
from analysis.plots import canvas
from analysis.plots.outcomes import OUTCOMES, of
from analysis.results import Results

if TYPE_CHECKING:
    from matplotlib.figure import Figure as StaticFigure
    from plotly.graph_objects import Figure

MOST_DOTS = 1_000
SHOWN = 3  # of the best trials, epoch by epoch
COLOURS = (style.ACCENT, style.CATEGORIES[0], style.CATEGORIES[2])
VALIDATION = re.compile(r"^(val|valid|validation|eval)([_/])(.+)$")
LOW_IS_GOOD = re.compile(r"loss|err|perplexity|nll")


class Pair(NamedTuple):
    """What was measured on both parts, epoch by epoch: training, validation and gap, in rows of `Results.epochs`.

    The gap is above 0 where training looks better, whichever direction is good.
    """

    name: str
    training: pd.Series[float]
    validation: pd.Series[float]
    gap: pd.Series[float]


class Dots(NamedTuple):
    """Trials of one outcome, a key of OUTCOMES: their final gap and their best value, as shown."""

    outcome: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    hover: tuple[str, ...]


class Fan(NamedTuple):
    """One of the best trials: training and validation at each epoch, as shown; NaN where unknown."""

    name: str
    epochs: tuple[int, ...]
    training: tuple[float, ...]
    validation: tuple[float, ...]


class Gap(NamedTuple):
    """What is drawn: all trials, and the course of the best ones."""

    dots: tuple[Dots, ...]
    fans: tuple[Fan, ...]
    x_title: str
    y_title: str
    fan_title: str
    said: str
    note: str = ""


def pair(results: Results) -> Pair | None:
    """The metric of both parts that says most: accuracy_gap with val_accuracy, else the run's own metric, else an
    accuracy, else a loss, where a column of training goes with one of validation (train_loss or loss with val_loss,
    train/acc with val/acc). None where there is no such pair.
    """
    table = results.epochs
    known = {str(name) for name in table.columns if pd.api.types.is_float_dtype(table[name])}
    if {"accuracy_gap", "val_accuracy"} <= known:
        gap, validation = _finite(table["accuracy_gap"]), _finite(table["val_accuracy"])
        return Pair("accuracy", validation + gap, validation, gap)
    found: dict[str, tuple[str, str]] = {}
    for name in sorted(known):
        if match := VALIDATION.match(name):
            _, mark, rest = match.groups()
            names = (f"clean_train{mark}{rest}", f"train{mark}{rest}", f"training{mark}{rest}", rest)
            if training := next((other for other in names if other in known), None):
                found.setdefault(rest, (training, name))
    if not found:
        return None
    best = min(found, key=lambda rest: (found[rest][1] != results.metric, "acc" not in rest, "loss" not in rest, rest))
    training, validation = (_finite(table[name]) for name in found[best])
    own = found[best][1] == results.metric
    lower = results.mode == "min" if own else bool(LOW_IS_GOOD.search(best.lower()))
    return Pair(best, training, validation, validation - training if lower else training - validation)


def _finite(values: pd.Series[float]) -> pd.Series[float]:
    return values.where(values.abs() < np.inf)


def gaps(results: Results) -> pd.DataFrame:
    """The gap of each trial: one row a trial, columns final (last epoch with one), largest and mean over its epochs.

    In the metric's own unit, 0..1 for an accuracy; above 0 where training looks better than validation. NaN where it is
    not known.
    """
    found = pair(results)
    if found is None:
        return pd.DataFrame(np.nan, index=results.trials.index, columns=["final", "largest", "mean"])
    frame = pd.DataFrame({"trial": results.epochs["trial"], "epoch": results.epochs["epoch"], "gap": found.gap})
    groups = frame.dropna().sort_values("epoch", kind="stable").groupby("trial")["gap"]
    table = pd.DataFrame({"final": groups.last(), "largest": groups.max(), "mean": groups.mean()})
    return table.reindex(results.trials.index).astype(np.float64)


def compute(results: Results) -> Gap:
    """At most 1,000 trials, evenly over the ranks, so the best one too; repeats and those without a value not."""
    found = pair(results)
    empty = Gap((), (), "", "", "", "", "Nothing was measured on both training and validation images.")
    if found is None:
        return empty
    metric, table = style.metric(results), gaps(results)
    share = 100.0 if _is_share(found) else 1.0
    words = style.words(found.name)
    order = fidelity.order(results)
    told = table.loc[order].assign(y=style.metric_values(results, results.trials).loc[order] * metric.factor).dropna()
    if told.empty:
        return empty
    drawn = told.loc[fidelity.spread(list(told.index), MOST_DOTS)]
    rows = results.trials.loc[drawn.index, ["label", "state", "epochs", "repeat_of", "breaks"]]
    unit = " points" if share == 100 else ""
    hover = np.array(
        [
            f"{style.called(row)}: {metric.text(y / metric.factor)}, {style.outcome(row)}\n"
            f"gap {_signed(share * final)}{unit}, largest {_signed(share * largest)}, mean {_signed(share * mean)}"
            for (_, row), final, largest, mean, y in zip(
                rows.iterrows(), drawn["final"], drawn["largest"], drawn["mean"], drawn["y"], strict=True
            )
        ],
        dtype=object,
    )
    kinds = of(rows["state"])
    dots = []
    for key in OUTCOMES:
        some = np.flatnonzero(kinds == key)
        if len(some):
            x, y = share * drawn["final"].to_numpy()[some], drawn["y"].to_numpy()[some]
            dots.append(Dots(key, tuple(x.tolist()), tuple(y.tolist()), tuple(hover[some])))
    unit = " (percentage points)" if share == 100 else ""
    return Gap(
        tuple(dots),
        tuple(_fan(results, found, trial, share) for trial in list(told.index)[:SHOWN]),
        f"gap at the last epoch{unit}",
        metric.axis,
        f"{words} (%)" if share == 100 else words,
        _say(results, table, told, share, words),
    )


def _is_share(found: Pair) -> bool:
    """Whether people read it as a percentage."""
    both = pd.concat([found.training, found.validation]).dropna()
    return "acc" in found.name.lower() and bool(both.between(-1e-9, 1 + 1e-9).all())


def _signed(value: float) -> str:
    return f"{value:+.1f}" if abs(value) >= 10 else f"{value:+.2g}"


def _fan(results: Results, found: Pair, trial: str, share: float) -> Fan:
    own = results.epochs["trial"] == trial
    rows = pd.DataFrame(
        {"epoch": results.epochs["epoch"], "training": found.training, "validation": found.validation}
    )[own].sort_values("epoch")  # fmt: skip
    return Fan(
        f"trial {trial}",
        tuple(rows["epoch"].tolist()),
        tuple((share * rows["training"]).tolist()),
        tuple((share * rows["validation"]).tolist()),
    )


def _say(results: Results, table: pd.DataFrame, told: pd.DataFrame, share: float, words: str) -> str:
    unit = " points" if share == 100 else ""
    best = str(told.index[0])
    last = share * float(told["final"].iloc[0])
    text = (
        f"At its last epoch the best trial, {best}, was {style.number(abs(last))}{unit} "
        f"{'better' if last >= 0 else 'worse'} in {words} on training than on validation images."
    )
    finished = table.loc[told.index][(results.trials.loc[told.index, "state"] == "finished").to_numpy()]
    if len(finished) > 1:
        median = _signed(share * float(finished["final"].median()))
        text += f" The median gap of the {len(finished):,} finished ones is {median}{unit}."
    if len(told) > MOST_DOTS:
        text += f" {MOST_DOTS:,} of {len(told):,} trials are drawn, evenly over the ranks."
    return text


def draw(it: Gap) -> Figure:
    """Trials on the left, filled if finished; the best three epoch by epoch on the right, training dotted."""
    if it.note:
        return canvas.empty(it.note)
    figure = canvas.plot().set_subplots(1, 2, horizontal_spacing=0.13, column_widths=[0.46, 0.54])
    for dots in it.dots:
        words, colour = OUTCOMES[dots.outcome]
        figure.add_scatter(
            x=canvas.floats(dots.x), y=canvas.floats(dots.y), mode="markers", name=words, row=1, col=1,
            marker={"color": colour, "size": 7, "opacity": 0.8,
                    "line": {"width": 0 if dots.outcome == "finished" else 1.5},
                    "symbol": "circle" if dots.outcome == "finished" else "circle-open"},
            customdata=[style.safe(text).replace("\n", "<br>") for text in dots.hover],
            hovertemplate="%{customdata}<extra></extra>",
        )  # fmt: skip
    for fan, colour in reversed(list(zip(it.fans, COLOURS, strict=False))):
        for y, dash, what in ((fan.training, "dot", "training"), (fan.validation, "solid", "validation")):
            figure.add_scatter(
                x=fan.epochs, y=canvas.floats(y), mode="lines" if len(fan.epochs) > 1 else "markers",
                line={"color": colour, "width": 2.2, "dash": dash},
                marker={"color": colour, "size": 7, "symbol": "circle-open" if dash == "dot" else "circle"},
                name=style.safe(fan.name), legendgroup=fan.name, showlegend=dash == "solid", row=1, col=2,
                fill="tonexty" if dash == "solid" and len(fan.epochs) > 1 else None, fillcolor=_pale(colour),
                hovertemplate=f"{style.safe(fan.name)}, {what}<br>epoch %{{x}}: %{{y:.4~g}}<extra></extra>",
            )  # fmt: skip
    figure.update_layout(height=420)
    figure.update_xaxes(title_text=style.safe(it.x_title), row=1, col=1)
    figure.update_yaxes(title_text=style.safe(it.y_title), row=1, col=1)
    figure.update_xaxes(title_text="epoch", tickformat=",d", nticks=8, row=1, col=2)
    figure.update_yaxes(title_text=style.safe(f"{it.fan_title}, training dotted"), row=1, col=2)
    return figure


def _pale(colour: str) -> str:
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.1)"


def draw_static(it: Gap) -> StaticFigure:
    """The same for paper."""
    if it.note:
        return canvas.empty_static(it.note)
    figure, (left, right) = canvas.panels(10, 4.6, 1, 2)
    for dots in it.dots:
        words, colour = OUTCOMES[dots.outcome]
        face = colour if dots.outcome == "finished" else "none"
        left.scatter(dots.x, dots.y, s=30, facecolors=face, edgecolors=colour, linewidths=1.3, label=words)
    for fan, colour in reversed(list(zip(it.fans, COLOURS, strict=False))):
        mark = "o" if len(fan.epochs) == 1 else ""
        right.plot(fan.epochs, fan.training, ":", color=colour, lw=1.8, marker=mark, mfc="none")
        right.plot(fan.epochs, fan.validation, color=colour, lw=1.8, marker=mark, label=fan.name)
        right.fill_between(fan.epochs, fan.training, fan.validation, color=colour, alpha=0.1, lw=0)
    left.set(xlabel=it.x_title, ylabel=it.y_title)
    right.set(xlabel="epoch", ylabel=f"{it.fan_title}, training dotted")
    for axes in (left, right):
        axes.grid(color=style.THEMES["light"]["grid"])
    canvas.caption(figure, it.said)
    return figure
