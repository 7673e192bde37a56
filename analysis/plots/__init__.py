"""The figures: one file each, a NamedTuple of what is drawn, compute(results) -> it, draw(it) -> figure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from analysis.plots import best_so_far, correlation, curves, importance, interaction, parallel, pareto


class FigureKind(NamedTuple):
    """One kind of figure. `title` says what it shows, `reading` how to read it."""

    title: str
    reading: str
    compute: Callable[..., Any]
    draw: Callable[..., Any]
    draw_static: Callable[..., Any]


# In the order of the report.
FIGURES: dict[str, FigureKind] = {
    "best_so_far": FigureKind(
        "How the search found its best",
        "The line is the best value seen up to each trial; each dot is a trial at its best epoch, hollow if it was not "
        "trained to the end; a cross cannot be best: the trial diverged, failed or breaks a constraint.",
        best_so_far.compute,
        best_so_far.draw,
        best_so_far.draw_static,
    ),
    "pareto": FigureKind(
        "What more of one costs in the other",
        "Each dot is a trial at its best epoch. No trial beats one on the front in everything: choose among those. The "
        "line bounds what the search reached.",
        pareto.compute,
        pareto.draw,
        pareto.draw_static,
    ),
    "importance": FigureKind(
        "What mattered",
        "The longer a bar, the more this setting, taken alone, decided whether a trial stood in the best quarter, each "
        "pair compared at the last epoch that both reached; a grey bar is no longer than chance makes it (PED-ANOVA).",
        importance.compute,
        importance.draw,
        importance.draw_static,
    ),
    "parallel": FigureKind(
        "Every trial from its settings to its result",
        "Each line is a trial, the best on top and in the strongest colour. Drag along an axis to keep only the trials "
        "that pass there; drag an axis's title to move it; click the axis to undo. Trials with few epochs were stopped "
        "early: their result is what they had reached by then.",
        parallel.compute,
        parallel.draw,
        parallel.draw_static,
    ),
    "interaction": FigureKind(
        "Does the best value of one setting depend on another?",
        "Each dot is a trial, filled if it was trained to the end, hollow if it was stopped early and might have "
        "become better; colours that peak in different places mean that the two settings interact.",
        interaction.compute,
        interaction.draw,
        interaction.draw_static,
    ),
    "correlation": FigureKind(
        "What goes together",
        "The bottom row says how each setting goes with the result, the others how the search combined them. Signed, "
        "coloured values (Spearman) exist only between ordered settings; grey ones, from 0 to 1, involve a category "
        "(correlation ratio, Cramér's V) and have no direction, and as what chance alone gives is taken off them, 0.00 "
        "means no more than chance. Trials are compared at matched epochs.",
        correlation.compute,
        correlation.draw,
        correlation.draw_static,
    ),
    "curves": FigureKind(
        "How the trials learned",
        "Each line is a trial: strong if it was trained to the end, pale if it was stopped early, with a dot where it "
        "ended; a cross marks one that diverged or failed.",
        curves.compute,
        curves.draw,
        curves.draw_static,
    ),
}
