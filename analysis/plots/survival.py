"""Survival: how many trials reached each epoch, what became of the others, and what stopping them saved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from analysis.plots import canvas
from analysis.plots.outcomes import OUTCOMES, Outcome, of
from analysis.results import Results

if TYPE_CHECKING:
    from matplotlib.figure import Figure as StaticFigure
    from plotly.graph_objects import Figure

MOST_BARS = 300  # epochs; of longer trainings each bar spans several
MOST_RUNGS = 8  # a rule that stops at more epochs than these has no rungs
LAYERS = {"on": Outcome("went on", "#A6CBE3")} | {  # a pale form of the blue of those that finish
    key: OUTCOMES[key]._replace(words=words)
    for key, words in {
        "running": "running here", "finished": "finished here", "stopped": "stopped here",
        "lost": "diverged or failed here", "interrupted": "interrupted here",
    }.items()
}  # fmt: skip


class Survival(NamedTuple):
    """What is drawn: for each of `epochs` how many trials of each layer (key of LAYERS), together those that got there.

    rungs, reached: epochs at which trials are stopped, and how many trials got there.
    """

    epochs: tuple[int, ...]
    layers: Mapping[str, tuple[int, ...]]
    rungs: tuple[int, ...]
    reached: tuple[int, ...]
    said: str
    note: str = ""


def compute(results: Results) -> Survival:
    """Repeats are left out. Where epochs are more than 300, a bar at e counts what happened since the one before."""
    table = results.trials[results.trials["repeat_of"].isna()]
    done = table["epochs"].fillna(0).to_numpy(dtype=np.int64)
    kind = of(table["state"])
    stopped = kind == "stopped"
    longest = int(done.max(initial=0))
    if not stopped.any() or not longest:
        return Survival((), {}, (), (), "", "No trial was stopped early.")
    full = table["full_epochs"].to_numpy(dtype=np.float64)
    most = int(np.nanmax(full)) if np.isfinite(full).any() else longest
    rungs = [rung for rung in _rungs(results.run.get("scheduler"), most, done[stopped]) if rung <= longest]
    ends = np.unique(np.round(np.linspace(1, longest, min(longest, MOST_BARS))).astype(np.int64))
    ends = np.union1d(ends, np.array(rungs, dtype=np.int64))
    layers = {"on": (done[None, :] > ends[:, None]).sum(axis=1)}
    for key in list(LAYERS)[1:]:
        here = np.searchsorted(ends, done[(kind == key) & (done > 0)])
        layers[key] = np.bincount(here, minlength=len(ends))
    said = _say(results, kind, done, np.where(np.isfinite(full), full, most), rungs)
    return Survival(
        tuple(ends.tolist()),
        {key: tuple(counts.tolist()) for key, counts in layers.items() if counts.any()},
        tuple(rungs),
        tuple(int((done >= rung).sum()) for rung in rungs),
        said,
    )


def _rungs(scheduler: Any, full: int, stopped: NDArray[np.int64]) -> list[int]:
    """As the scheduler says; else where trials were stopped, if these are few epochs."""
    said = scheduler if isinstance(scheduler, Mapping) else {}
    grace, factor = said.get("grace"), said.get("factor")
    if said.get("name") in ("asha", "hyperband") and isinstance(grace, int) and isinstance(factor, int):
        rungs = [max(grace, 1)]
        while factor > 1 and rungs[-1] * factor < full + (said["name"] == "hyperband"):
            rungs.append(rungs[-1] * factor)
        return rungs[:-1] if said["name"] == "hyperband" else rungs  # Hyperband stops nobody at its last step
    found = np.unique(stopped[stopped > 0])
    return found.tolist() if len(found) <= MOST_RUNGS else []


def _say(
    results: Results, kind: NDArray[np.str_], done: NDArray[np.int64], full: NDArray[np.float64], rungs: list[int]
) -> str:
    stopped = kind == "stopped"
    saved, trained = float(np.maximum(full - done, 0)[stopped].sum()), int(done.sum())
    many = f"{stopped.sum():,} trial{'s' if stopped.sum() > 1 else ''}"
    share = saved / (saved + trained)
    text = f"Stopping {many} early saved {saved:,.0f} of {saved + trained:,.0f} epochs ({share:.0%})."
    if rungs:
        steps = [*(int((done >= rung).sum()) for rung in rungs), int((kind == "finished").sum())]
        at = ", ".join(f"{rung:,}" for rung in rungs)
        text += f" Trials that got to epoch {at} and to the end: {' → '.join(f'{step:,}' for step in steps)}."
    none = int((done == 0).sum())
    return text + (f" {none:,} ended before their first epoch." if none else "")


def draw(it: Survival) -> Figure:
    """Stacked bars, an epoch each, with the count on top at each rung."""
    if it.note:
        return canvas.empty(it.note)
    figure = canvas.plot()
    width = np.diff([0, *it.epochs])
    for key, counts in it.layers.items():
        words, colour = LAYERS[key]
        figure.add_bar(
            x=np.array(it.epochs) - (width - 1) / 2, y=counts, name=words, width=0.9 * width, customdata=it.epochs,
            marker={"color": colour, "line": {"width": 0}},
            hovertemplate=f"epoch %{{customdata:,}}: %{{y:,}} {words}<extra></extra>",
        )  # fmt: skip
    for rung, reached in zip(it.rungs, it.reached, strict=True):
        figure.add_annotation(
            x=rung, y=reached, text=f"<b>{reached:,}</b>", showarrow=False, yshift=9, hovertext=f"rung at epoch {rung}"
        )
    figure.update_layout(
        height=360, barmode="stack",
        xaxis={"title": {"text": "epoch"}, "tickformat": ",d", "range": [0.4, it.epochs[-1] + 0.6], **_ticks(it)},
        yaxis={"title": {"text": "trials that got there"}, "tickformat": ",d", "rangemode": "tozero"},
    )  # fmt: skip
    return figure


def _ticks(it: Survival) -> dict[str, Any]:
    """The rungs, and the last epoch; without rungs Plotly's own ticks."""
    last = it.epochs[-1]
    # Two rungs closer than 3% of the axis would write over each other.
    kept: list[int] = []
    for at in sorted({*it.rungs, last}, reverse=True):
        if not kept or kept[-1] - at >= 0.03 * last:
            kept.append(at)
    return {"tickvals": kept[::-1]} if it.rungs else {}


def draw_static(it: Survival) -> StaticFigure:
    """The same for paper."""
    if it.note:
        return canvas.empty_static(it.note)
    figure, axes = canvas.sheet(10, 4.4)
    below = np.zeros(len(it.epochs))
    width = np.diff([0, *it.epochs])
    middle = np.array(it.epochs) - (width - 1) / 2
    for key, counts in it.layers.items():
        words, colour = LAYERS[key]
        axes.bar(middle, counts, 0.9 * width, bottom=below, color=colour, label=words, linewidth=0)
        below += np.array(counts)
    for rung, reached in zip(it.rungs, it.reached, strict=True):
        axes.annotate(f"{reached:,}", (rung, reached), (0, 3), textcoords="offset points", ha="center", weight="bold")
    axes.set(xlabel="epoch", ylabel="trials that got there", xlim=(0.3, it.epochs[-1] + 0.7))
    if it.rungs:
        axes.set_xticks(_ticks(it)["tickvals"])
    canvas.caption(figure, it.said)
    return figure
