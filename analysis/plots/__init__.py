"""The figures: one file each, a NamedTuple of what is drawn, compute(results) -> it, draw(it) -> figure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from analysis.plots import (
    best_so_far,
    correlation,
    curves,
    edf,
    effects,
    failures,
    gap,
    hypervolume,
    importance,
    interaction,
    pairs,
    parallel,
    pareto,
    rank,
    slice,
    survival,
    timeline,
)


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
        "The line is the best value seen so far; each dot is a trial at its best epoch, hollow if it was not trained "
        "to the end; a cross cannot be best: the trial diverged, failed or breaks a constraint. The band is what the "
        "same trials, stopped ones as they are, would have given in random order: a line on its worse side means that "
        "the later trials were the better ones, as where a search learns. The words under the figure choose what to "
        "count: trials, epochs, time.",
        best_so_far.compute,
        best_so_far.draw,
        best_so_far.draw_static,
    ),
    "pareto": FigureKind(
        "What a better trial costs",
        "Each dot is a trial at its best epoch. No trial beats one on the front in everything: choose among those. The "
        "line bounds what the search reached.",
        pareto.compute,
        pareto.draw,
        pareto.draw_static,
    ),
    "hypervolume": FigureKind(
        "How far the front came with each trial",
        "Of the box between the worst and the best that was seen in the first two objectives, the part that is beaten "
        "by one trial or another.",
        hypervolume.compute,
        hypervolume.draw,
        hypervolume.draw_static,
    ),
    "importance": FigureKind(
        "How much each setting mattered",
        "Left, what each setting explains alone of the differences between trials, over the whole searched space "
        "(functional ANOVA); right, its part in what brought a trial into the best quarter (PED-ANOVA). Whiskers are "
        "90% intervals; grey bars are no longer than shuffled results often make them, a blue bar alone is a "
        "hint: findings pass a stricter test. Trials are compared at matched "
        "epochs.",
        importance.compute,
        importance.draw,
        importance.draw_static,
    ),
    "effects": FigureKind(
        "How each setting mattered",
        "Each dot is a trial: how many of the others it was ahead of at matched epochs. The line, or the larger dot, "
        "is what a forest expects at that value over everything else, with a 90% band.",
        effects.compute,
        effects.draw,
        effects.draw_static,
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
    "pairs": FigureKind(
        "Two settings at a time",
        "The pairs that interact most: how many of the others a trial is expected to be ahead of, over everything "
        "else; rings are trials. Where the strongest colour of a row moves from row to row, the best value of one "
        "setting depends on the other. Above each map, how sure that is.",
        pairs.compute,
        pairs.draw,
        pairs.draw_static,
    ),
    "interaction": FigureKind(
        "Does the best value of one setting depend on another?",
        "Each dot is a trial, filled if it was trained to the end, hollow if it was stopped early and might have "
        "become better; colours that peak in different places may mean that the two settings interact.",
        interaction.compute,
        interaction.draw,
        interaction.draw_static,
    ),
    "correlation": FigureKind(
        "Correlations",
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
    "gap": FigureKind(
        "Did trials learn by heart?",
        "Left, each dot is a trial: the further right, the better it did on its training images than on validation "
        "images, filled if it was trained to the end. Right, the three best: where the lines part, training went on "
        "and validation did not.",
        gap.compute,
        gap.draw,
        gap.draw_static,
    ),
    "survival": FigureKind(
        "Who was stopped when",
        "Each bar is an epoch, as high as the number of trials that got there, coloured by what became of them there; "
        "the numbers stand at the rungs, where trials are compared and the worse ones stopped.",
        survival.compute,
        survival.draw,
        survival.draw_static,
    ),
    "failures": FigureKind(
        "Where trials failed",
        "One panel a setting, those that go with failing most first. Trials below the dotted line have no result: they "
        "lie where their setting was.",
        failures.compute,
        failures.draw,
        failures.draw_static,
    ),
    "timeline": FigureKind(
        "Who ran what when",
        "One row a worker, one bar each time that a trial ran there, coloured by how the trial ended; what is empty is "
        "time in which that worker waited or started up.",
        timeline.compute,
        timeline.draw,
        timeline.draw_static,
    ),
    "slice": FigureKind(
        "Setting by setting",
        "Each dot is a trial at its best epoch, filled if it was trained to the end, hollow if it was stopped early; "
        "the colour says when it was tried. Trials far below all others may lie outside.",
        slice.compute,
        slice.draw,
        slice.draw_static,
    ),
    "edf": FigureKind(
        "How rare a good trial was",
        "For each value the share of trials that reached it, stopped ones with what they had reached; where one "
        "setting of few values made a clear difference, a line for each of them.",
        edf.compute,
        edf.draw,
        edf.draw_static,
    ),
    "rank": FigureKind(
        "Where the good trials lie",
        "The trials in the plane of each pair of the settings that mattered most; the stronger the colour, the more of "
        "the others a trial was ahead of.",
        rank.compute,
        rank.draw,
        rank.draw_static,
    ),
}

# The parts of the report, in order; what is not named here is drawn as an image alone.
PARTS: dict[str, tuple[str, ...]] = {
    "answer": ("best_so_far",),
    "cost": ("pareto", "hypervolume"),
    "mattered": ("importance", "effects"),
    "parallel": ("parallel",),
    "together": ("pairs", "interaction", "correlation"),
    "happened": ("curves", "gap", "survival", "failures", "timeline"),
    "more": ("slice", "rank", "edf"),
}
