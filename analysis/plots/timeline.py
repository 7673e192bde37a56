"""Timeline: who ran what when, a lane a worker, and how much of the time nothing ran there."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis import style
from analysis.plots import canvas
from analysis.plots.outcomes import OUTCOMES, of
from analysis.results import Results

if TYPE_CHECKING:
    from matplotlib.figure import Figure as StaticFigure
    from plotly.graph_objects import Figure

MOST_BARS = 2_000  # each a shape of its own with a text; beyond them one line an outcome, 30 times faster to draw
MOST_LINES = 10_000
MOST_NAMES = 16  # lanes with a name beside them


class Bars(NamedTuple):
    """The stretches of one outcome, a key of OUTCOMES: lane (1, 2, ...), began and lasted in the figure's unit."""

    outcome: str
    lane: tuple[int, ...]
    began: tuple[float, ...]
    lasted: tuple[float, ...]
    trials: tuple[str, ...]
    hover: tuple[str, ...]


class Timeline(NamedTuple):
    """What is drawn. end: of the time axis, in `unit`. busy: share of lanes x time in which a trial ran, 0..1."""

    bars: tuple[Bars, ...]
    lanes: int
    end: float
    unit: str
    busy: float
    said: str
    note: str = ""


def compute(results: Results) -> Timeline:
    """Workers that lived one after the other share a lane: a run that starts a process a trial has as many lanes as
    ran at once. A stretch that still runs is drawn to the last moment that anything is known of. Of more than 10,000
    stretches the longest are drawn.
    """
    table = results.stretches[results.stretches["began"].notna()]
    if table.empty:
        return Timeline((), 0, 0.0, "", 0.0, "", "When the trials ran is not known.")
    elapsed = results.epochs["elapsed"].max() if "elapsed" in results.epochs else np.nan
    end = float(np.nanmax([table["began"].max(), table["ended"].max(), elapsed]))
    table = table.assign(ended=table["ended"].fillna(end)).sort_values("began", kind="stable", ignore_index=True)
    lane = _pack(table)
    lanes = int(lane.max())
    states = table["trial"].map(results.trials["state"]).fillna("running")
    outcome = np.where(table.duplicated("trial", keep="last"), "later", of(states))
    lasted = (table["ended"] - table["began"]).to_numpy()
    total = float(lasted.sum())
    busy = min(1.0, total / (lanes * end)) if end > 0 else 0.0
    drawn = np.sort(np.argsort(-lasted, kind="stable")[:MOST_LINES])
    unit, seconds = canvas.time_unit(end)
    hover = _hover(results, table.iloc[drawn]) if len(drawn) <= MOST_BARS else table["trial"].iloc[drawn].tolist()
    bars = []
    for key in OUTCOMES:
        some = np.flatnonzero(outcome[drawn] == key)
        at = drawn[some]
        if len(some):
            bars.append(
                Bars(
                    key, tuple(lane[at].tolist()), tuple((table["began"].to_numpy()[at] / seconds).tolist()),
                    tuple((lasted[at] / seconds).tolist()), tuple(table["trial"].iloc[at]),
                    tuple(hover[i] for i in some),
                )
            )  # fmt: skip
    return Timeline(tuple(bars), lanes, end / seconds, unit, busy, _say(table, lanes, busy, end, len(drawn)))


def _pack(table: pd.DataFrame) -> NDArray[np.int64]:
    """The lane of each stretch: a worker takes the lowest lane that was left before it first ran."""
    lives = table.groupby("worker").agg(began=("began", "min"), ended=("ended", "max")).sort_values("began")
    free: list[int] = []
    taken: list[tuple[float, int]] = []
    found: dict[int, int] = {}
    for worker, began, ended in lives.itertuples():
        while taken and taken[0][0] <= began:
            heapq.heappush(free, heapq.heappop(taken)[1])
        found[worker] = heapq.heappop(free) if free else len(taken) + 1
        heapq.heappush(taken, (ended, found[worker]))
    return np.array([found[worker] for worker in table["worker"]], dtype=np.int64)


def _say(table: pd.DataFrame, lanes: int, busy: float, end: float, drawn: int) -> str:
    workers = table["worker"].nunique()
    said = ""
    if end > 0:
        share = f"{busy:.0%}" if busy >= 0.005 else "less than 1%"
        who = "The worker was" if lanes == 1 else f"{lanes:,} workers at once were"
        said = f"{who} busy {share} of the time ({style.duration(end)} with the start); the gaps are waiting."
    if workers > lanes:
        said += f" {workers:,} processes came and went: those that followed one another share a row."
    if drawn > MOST_BARS:
        said += f" The {drawn:,} longest of {len(table):,} stretches are drawn." if drawn < len(table) else ""
    return said.strip()


def _hover(results: Results, table: pd.DataFrame) -> list[str]:
    known = results.trials.loc[
        results.trials.index.isin(table["trial"]), ["label", "state", "epochs", "repeat_of", "breaks"]
    ]
    words = {str(row.name): f"{style.called(row)}, {style.outcome(row)}" for _, row in known.iterrows()}
    return [
        f"{words.get(trial, f'trial {trial}')}\n{style.duration(began)} to {style.duration(ended)}, "
        f"{style.duration(ended - began)} on worker {worker}"
        for trial, worker, began, ended in zip(
            table["trial"], table["worker"], table["began"], table["ended"], strict=True
        )
    ]


def draw(it: Timeline) -> Figure:
    """Bars on lanes, the first worker on top."""
    if it.note:
        return canvas.empty(it.note)
    figure = canvas.plot()
    height = min(620, 120 + 34 * it.lanes)
    dense = sum(len(bars.lane) for bars in it.bars) > MOST_BARS
    for bars in it.bars:
        words, colour = OUTCOMES[bars.outcome]
        texts = [style.safe(text).replace("\n", "<br>") for text in bars.hover]
        if dense:
            x, y = _joined(bars)
            figure.add_scatter(
                x=x, y=y, mode="lines", name=words,
                line={"color": colour, "simplify": False,
                      "width": max(2.0, 0.6 * (height - 120) / it.lanes)},
                customdata=[part for text in texts for part in (text, text, "")],
                hovertemplate="trial %{customdata}<extra></extra>",
            )  # fmt: skip
        else:
            figure.add_bar(
                x=canvas.floats(bars.lasted), base=canvas.floats(bars.began), y=bars.lane, orientation="h",
                name=words, width=0.78,
                marker={"color": colour, "line": {"color": "rgba(127,127,127,0.7)", "width": 0.5}},
                text=[style.safe(trial) for trial in bars.trials], textposition="inside", insidetextanchor="middle",
                textangle=0, textfont={"color": "#ffffff" if bars.outcome in ("finished", "running") else "#15181c"},
                customdata=texts, hovertemplate="%{customdata}<extra></extra>",
            )  # fmt: skip
    named = it.lanes <= MOST_NAMES
    figure.update_layout(
        height=height, barmode="overlay", hovermode="closest", uniformtext={"minsize": 9, "mode": "hide"},
        xaxis={"title": {"text": f"{it.unit} since the run began"}, "range": [0, it.end * 1.005]},
        yaxis={"title": {"text": "worker"}, "range": [it.lanes + 0.6, 0.4], "showgrid": False,
               **({"dtick": 1, "tick0": 1} if named else {"nticks": 8, "tickformat": ",d"})},
    )  # fmt: skip
    return figure


def _joined(bars: Bars) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """All stretches as one line with gaps."""
    began, lane = np.array(bars.began), np.array(bars.lane, dtype=float)
    gap = np.full(len(lane), np.nan)
    x = np.column_stack([began, began + np.array(bars.lasted), gap]).ravel()
    return x.astype(np.float32), np.column_stack([lane, lane, gap]).ravel().astype(np.float32)


def draw_static(it: Timeline) -> StaticFigure:
    """The same for paper."""
    if it.note:
        return canvas.empty_static(it.note)
    from matplotlib.ticker import MaxNLocator

    figure, axes = canvas.sheet(10, min(7.0, 1.7 + 0.42 * it.lanes))
    total = sum(len(bars.lane) for bars in it.bars)
    edges: dict[str, Any] = {"edgecolor": "white", "linewidth": 0.4} if total <= 300 else {"linewidth": 0}
    for bars in it.bars:
        words, colour = OUTCOMES[bars.outcome]
        spans = [(began, lasted) for began, lasted in zip(bars.began, bars.lasted, strict=True)]
        _add_spans(axes, bars.lane, spans, color=colour, label=words, **edges)
    axes.set(
        xlabel=f"{it.unit} since the run began", ylabel="worker", xlim=(0, it.end * 1.005), ylim=(it.lanes + 0.6, 0.4)
    )
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=MOST_NAMES))
    canvas.caption(figure, it.said)
    return figure


def _add_spans(axes: Any, lanes: tuple[int, ...], spans: list[tuple[float, float]], **how: Any) -> None:
    from matplotlib.collections import PolyCollection

    corners = [
        [(began, lane - 0.39), (began, lane + 0.39), (began + lasted, lane + 0.39), (began + lasted, lane - 0.39)]
        for lane, (began, lasted) in zip(lanes, spans, strict=True)
    ]
    axes.add_collection(PolyCollection(corners, **how))
