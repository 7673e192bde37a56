"""How the delivered model was trained: loss and accuracy over the epochs, the delivered epoch marked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from analysis import style
from analysis.evaluation.read import Evaluation
from analysis.plots import canvas

if TYPE_CHECKING:
    from matplotlib.figure import Figure as StaticFigure
    from plotly.graph_objects import Figure

Which = Literal["accuracy", "loss"]
SIDES = (("train", "training images", style.CATEGORIES[0], "dash"), ("val", "validation images", style.ACCENT, "solid"))
NOTE = "Nothing is known of the epochs of this training."


def _series(evaluation: Evaluation, which: Which, side: str) -> tuple[list[int], list[float]]:
    """Epochs and values, accuracies in percent; epochs without a value are left out."""
    factor = 100 if which == "accuracy" else 1
    told = [(row.epoch, getattr(row, f"{side}_{which}")) for row in evaluation.training]
    known = sorted((epoch, factor * value) for epoch, value in told if value is not None)
    return [epoch for epoch, _ in known], [value for _, value in known]


def has(evaluation: Evaluation, which: Which) -> bool:
    """Whether there is anything to draw."""
    return any(_series(evaluation, which, side)[0] for side, *_ in SIDES)


def _delivered(evaluation: Evaluation) -> int | None:
    epochs = {row.epoch for row in evaluation.training}
    return evaluation.model.epoch if evaluation.model.epoch in epochs else None


def draw(evaluation: Evaluation, which: Which) -> Figure:
    """A line for training images, one for validation images."""
    if not has(evaluation, which):
        return canvas.empty(NOTE)
    figure = canvas.plot()
    for side, label, colour, dash in SIDES:
        x, y = _series(evaluation, which, side)
        if x:
            figure.add_scatter(
                x=x, y=canvas.floats(y), mode="lines+markers" if len(x) <= 30 else "lines", name=label,
                line={"color": colour, "width": 2.5, "dash": dash}, marker={"size": 6},
                hovertemplate=f"epoch %{{x}}, {label}: %{{y:.4~g}}{'%' if which == 'accuracy' else ''}<extra></extra>",
            )  # fmt: skip
    epoch = _delivered(evaluation)
    if epoch is not None:
        figure.add_vline(x=epoch, line={"color": style.PALE, "width": 1.5, "dash": "dot"})
        place = 0.04 if which == "accuracy" else 0.96  # where the lines are not
        late = epoch > (evaluation.training[0].epoch + evaluation.training[-1].epoch) / 2
        figure.add_annotation(
            x=epoch, y=place, yref="paper", yanchor="middle", text=f"delivered: epoch {epoch}", showarrow=False,
            xanchor="right" if late else "left", xshift=-5 if late else 5, font={"size": 12},
        )  # fmt: skip
    figure.update_layout(
        height=380,
        xaxis={"title": {"text": "epoch"}, **({"dtick": 1} if len(evaluation.training) <= 12 else {"nticks": 8})},
        yaxis={"title": {"text": "accuracy (%)" if which == "accuracy" else "loss"}},
    )
    return figure


def draw_static(evaluation: Evaluation, which: Which) -> StaticFigure:
    """The same for paper."""
    if not has(evaluation, which):
        return canvas.empty_static(NOTE)
    from matplotlib.ticker import MaxNLocator

    figure, axes = canvas.sheet(7, 4.6)
    for side, label, colour, dash in SIDES:
        x, y = _series(evaluation, which, side)
        if x:
            look = "--" if dash == "dash" else "-"
            axes.plot(x, y, look, color=colour, lw=2.2, marker="o" if len(x) <= 30 else "", ms=4, label=label)
    epoch = _delivered(evaluation)
    if epoch is not None:
        axes.axvline(epoch, color=style.PALE, lw=1.5, ls=":", label=f"delivered: epoch {epoch}")
    axes.set(xlabel="epoch", ylabel="accuracy (%)" if which == "accuracy" else "loss")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(color=style.THEMES["light"]["grid"])
    canvas.caption(figure)
    return figure
