"""The figures for notebooks: `results.plot.parallel()` returns a figure, and shows or saves nothing by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure as StaticFigure
    from plotly.graph_objects import Figure

    from analysis.results import Results


class Plots:
    """Every figure of the report as a Plotly figure; `static` gives the same for paper, by matplotlib.

    A figure that has nothing to draw holds one sentence that says why.
    """

    def __init__(self, results: Results) -> None:
        self._results = results

    def static(self, name: str, **options: Any) -> StaticFigure:
        """A figure for paper, by the name of its method, such as "parallel"; options as that method takes them.

        Raises:
            KeyError: there is no such figure.
        """
        from analysis.plots import FIGURES

        kind = FIGURES[name]
        drawn: StaticFigure = kind.draw_static(kind.compute(self._results, **options))
        return drawn

    def best_so_far(self) -> Figure:
        """The best value so far against trials, epochs and time, beside what random order would have given."""
        return self._draw("best_so_far")

    def pareto(self) -> Figure:
        """The metric against the second objective, or what a trial costs: the front and its knee."""
        return self._draw("pareto")

    def hypervolume(self) -> Figure:
        """Of two objectives together, how much had been reached with each trial."""
        return self._draw("hypervolume")

    def importance(self) -> Figure:
        """How much each setting mattered: functional ANOVA and PED-ANOVA with 90% intervals."""
        return self._draw("importance")

    def effects(self) -> Figure:
        """How the standing of trials goes with each setting, with a band."""
        return self._draw("effects")

    def parallel(self) -> Figure:
        """Parallel coordinates, at most 1,000 trials: Plotly draws no more in a second."""
        return self._draw("parallel")

    def pairs(self) -> Figure:
        """Maps of the pairs of settings that interact most."""
        return self._draw("pairs")

    def interaction(self, x: str | None = None, color: str | None = None) -> Figure:
        """The metric against the setting x, coloured by the setting color; each by path, last part or label.

        Raises:
            ValueError: no such setting varied; the text lists those that did.
        """
        return self._draw("interaction", x=x, color=color)

    def correlation(self) -> Figure:
        """How the settings go together, and each with the result."""
        return self._draw("correlation")

    def curves(self) -> Figure:
        """The metric over the epochs, every trial a line."""
        return self._draw("curves")

    def gap(self) -> Figure:
        """Training against validation: who learned by heart."""
        return self._draw("gap")

    def survival(self) -> Figure:
        """How many trials got to each epoch, and what became of them there."""
        return self._draw("survival")

    def failures(self) -> Figure:
        """Where trials diverged, ran out of memory or failed."""
        return self._draw("failures")

    def timeline(self) -> Figure:
        """Which worker ran which trial when."""
        return self._draw("timeline")

    def slice(self) -> Figure:
        """The metric of each trial against each setting, coloured by when it was tried."""
        return self._draw("slice")

    def rank(self) -> Figure:
        """The trials in the planes of the settings that mattered most, coloured by how they stood."""
        return self._draw("rank")

    def edf(self) -> Figure:
        """The share of trials that reached each value."""
        return self._draw("edf")

    def _draw(self, name: str, **options: Any) -> Figure:
        from analysis.plots import FIGURES

        kind = FIGURES[name]
        drawn: Figure = kind.draw(kind.compute(self._results, **options))
        return drawn
