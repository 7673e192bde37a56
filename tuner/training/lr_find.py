"""The learning-rate range test: a short training at ever higher rates that shows which rates learn."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import count, islice
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure

from tuner.training import transfer
from tuner.training.trainer import Trainer, _lend_global

SMOOTHING = 0.8  # weight of the next step, and so on to both sides: 9 of 200 steps over 8 decades are 0.4 decades
BLOWN_UP = 4.0  # times the least loss at which the test ends
LEAST_FALL = 0.02  # share by which the loss must fall at all for the curve to say anything
LEAST_OF_NOISE = 1.2  # the same in standard deviations of a step's loss: noise alone falls by less in 99 of 100 tests
BLUE, GREEN, VERMILION, GREY = "#0072b2", "#009e73", "#d55e00", "#6b7280"


class Found(NamedTuple):
    """A range test's curve, rate by rate, and what it suggests.

    losses: of each step, smoothed; raw: as they came; suggestion: the rate at which the loss falls fastest; least: the
    rate of the least loss. Both are None where the loss never falls. why: in one sentence.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    raw: tuple[float, ...]
    suggestion: float | None
    least: float | None
    why: str

    @property
    def tenth(self) -> float | None:
        """A tenth of the least loss's rate: the usual rule beside it."""
        return None if self.least is None else self.least / 10


def find(
    step: Callable[[float], float],
    *,
    low: float = 1e-7,
    high: float = 10.0,
    steps: int = 200,
    tell: Callable[[int, float, float], None] | None = None,
) -> Found:
    """Trains one step at each of `steps` rates from low to high (Smith, 2017; arXiv 1506.01186) and reads the curve.

    `step` trains on a batch at a rate and returns its loss before the update; `tell` hears number, rate and smoothed
    loss of each. It ends early when the smoothed loss is four times its least, or a loss is not finite.
    """
    rates: list[float] = []
    raw: list[float] = []
    for number, rate in enumerate(np.geomspace(low, high, steps).tolist()):
        loss = step(rate)
        if not math.isfinite(loss):
            break
        rates.append(rate)
        raw.append(loss)
        smooth = _average(raw)
        if tell:
            tell(number, rate, smooth[-1])
        if smooth[-1] > BLOWN_UP * min(smooth):
            break
    return read_curve(rates, raw)


def try_rates(trainer: Trainer, *, steps: int, tell: Callable[[int, float, float], None] | None = None) -> Found:
    """The range test of what `trainer` would train, which it uses up; the same curve each time.

    As in an epoch an update sums up `train.accumulate` batches, and dropout draws from the trainer's own generator.
    """
    train = trainer.config.train
    torch.set_num_threads(trainer.threads)
    trainer.model.train()
    transfer.apply(trainer.model, train, 0, trainer.learning)
    window = min(train.accumulate, trainer.steps)
    batches = (batch for _ in count() for batch in trainer.batches(trainer.order()))

    def step(rate: float) -> float:
        losses = [
            trainer.step(index, pixels, rate, update=number == window, window=window)[0]
            for number, (index, pixels) in enumerate(islice(batches, window), 1)
        ]
        return float(torch.stack(losses).mean())

    with _lend_global(trainer.generators["dropout"]):
        return find(step, steps=steps, tell=tell)


def read_curve(rates: Sequence[float], raw: Sequence[float]) -> Found:
    """What the losses of a range test suggest: the rate at which 63% of the fall is done, and the least loss's.

    There it falls fastest: where an update takes a share of the loss that is proportional to the rate, and rates grow
    geometrically, the loss is exp(-rate / s), which is steepest over log(rate) at s, having fallen by 1 - 1/e. A
    gradient finds the same where there is no noise, but any wiggle of the flat start where there is. Measured on digits
    with dropout 0 to 0.5, over four seeds it varied by 1.1 decades (standard deviation), the 63% by 0.1.
    """
    if not raw:
        return Found((), (), (), None, None, "the loss is not a number at the lowest rate already")
    # Averaged to both sides: over what came before alone the curve would lag, and the suggestion come out too high. The
    # last losses can be beyond all measure and would hide what comes before them.
    steps = np.arange(len(raw))
    weights = SMOOTHING ** np.abs(steps[:, None] - steps)
    seen = np.minimum(raw, BLOWN_UP * raw[0])
    losses = weights @ seen / weights.sum(axis=1)
    lowest = int(np.argmin(losses))
    start = float(np.median(losses[: lowest // 4 + 1]))  # the first rates are too low to learn
    fall, noise = start - losses[lowest], float(np.std((seen - losses)[: lowest + 1]))
    if fall <= max(LEAST_FALL * start, LEAST_OF_NOISE * noise):
        why = (
            f"the loss hardly falls below the {start:.3g} it begins with, by {fall:.2g}, where single steps differ by "
            f"{noise:.2g}: look at the curve for a rate, or a fault; larger batches and less dropout make it clearer"
        )
        return Found(tuple(rates), tuple(losses.tolist()), tuple(raw), None, None, why)
    steepest = rates[int(np.flatnonzero(losses[: lowest + 1] > start - (1 - 1 / math.e) * fall)[-1])]
    least = rates[lowest]
    why = (
        f"the loss falls fastest at {steepest:.2g}; it is least at {least:.2g}, and a tenth of that, {least / 10:.2g}, "
        "is the usual other choice"
    )
    return Found(tuple(rates), tuple(losses.tolist()), tuple(raw), steepest, least, why)


def _average(losses: list[float]) -> list[float]:
    """Moving average at each step, with the start's bias taken out."""
    averages, total = [], 0.0
    for number, loss in enumerate(losses, 1):
        total = SMOOTHING * total + (1 - SMOOTHING) * loss
        averages.append(total / (1 - SMOOTHING**number))
    return averages


def draw(found: Found) -> Figure:
    """The curve over the rate on a logarithmic axis, with both suggestions; `.savefig(path)` writes it."""
    figure = Figure(figsize=(8, 4.5), dpi=150, layout="constrained")
    axes = figure.subplots()
    axes.semilogx(found.rates, found.raw, color=GREY, alpha=0.4, linewidth=1, label="each step")
    axes.semilogx(found.rates, found.losses, color=BLUE, linewidth=2.2, label="smoothed")
    for rate, colour, words in (
        (found.suggestion, VERMILION, "falls fastest"),
        (found.tenth, GREEN, "a tenth of the rate at the minimum"),
    ):
        if rate is not None:
            loss = float(np.interp(rate, found.rates, found.losses))
            axes.axvline(rate, color=colour, linewidth=1, linestyle="--")
            axes.plot([rate], [loss], "o", color=colour, label=f"{words}: {rate:.2g}")
    if found.losses:
        low, high = min(found.raw), max(found.raw[: int(np.argmin(found.losses)) + 1])
        margin = 0.1 * (high - low) or 1.0
        axes.set_ylim(low - margin, high + margin)  # the blow-up at the end would flatten the rest
    axes.set_xlabel("learning rate")
    axes.set_ylabel("training loss (nats)")
    axes.set_title("Learning-rate range test", loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure
