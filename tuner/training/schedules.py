"""The learning rate at every step, in closed form: a resumed trial needs its step and no schedule's state."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from tuner.spec.train import (
    AnySchedule,
    Constant,
    Cosine,
    Exponential,
    MultiStep,
    OneCycle,
    Plateau,
    Polynomial,
    Step,
)

WARMUP_START = 0.01  # share of the rate at the first step of a warm-up
START_DIVISOR = 25.0
FINAL_DIVISOR = 10_000.0
LEAST_CHANGE = 1e-8  # a smaller reduction on a plateau is not made, as in torch


class Now(NamedTuple):
    """Where a trial is. step: from 0; warm: steps of the warm-up; plateau: what a PlateauState's factor says."""

    step: int
    total_steps: int
    steps_per_epoch: int
    warm: int
    plateau: float

    @property
    def epoch(self) -> int:
        """Epochs that are complete, the warm-up's too."""
        return self.step // self.steps_per_epoch

    @property
    def share(self) -> float:
        """Share of the steps after the warm-up that are done: 0 at the first, below 1 at the last."""
        return max(0, self.step - self.warm) / (self.total_steps - self.warm)


def rate(
    config: AnySchedule,
    base_lr: float,
    step: int,
    total_steps: int,
    steps_per_epoch: int,
    plateau: float = 1.0,
) -> float:
    """Learning rate of a step, counted from 0; steps beyond the last keep the last rate.

    `warmup` raises the rate linearly from a hundredth over that share of all steps. Cosine and polynomial begin after
    it and have the remaining steps; step, multistep, exponential and plateau count epochs from the start of training,
    and a warm-up multiplies what they say.
    """
    step = min(step, total_steps - 1)
    if isinstance(config, OneCycle):  # its warm-up is its own
        return one_cycle(config, base_lr, Now(step, total_steps, steps_per_epoch, 0, plateau))
    warm = min(round(config.warmup * total_steps), total_steps - 1)
    now = Now(step, total_steps, steps_per_epoch, warm, plateau)
    lr = COURSES[config.name](config, base_lr, now)
    return lr if step >= warm else lr * (WARMUP_START + (1 - WARMUP_START) * step / warm)


def constant(config: Constant, base_lr: float, now: Now) -> float:
    """The base rate throughout."""
    return base_lr


def reduce_in_steps(config: Step, base_lr: float, now: Now) -> float:
    """Times `factor` every so many epochs, as torch's StepLR."""
    return base_lr * float(config.factor ** (now.epoch // config.every))


def reduce_at(config: MultiStep, base_lr: float, now: Now) -> float:
    """Times `factor` after each epoch of `at`, as torch's MultiStepLR."""
    return base_lr * float(config.factor ** sum(now.epoch >= epoch for epoch in config.at))


def exponential(config: Exponential, base_lr: float, now: Now) -> float:
    """Times `factor` an epoch, a little at each step; at the start of an epoch as torch's ExponentialLR."""
    return base_lr * float(config.factor ** (now.step / now.steps_per_epoch))


def cosine(config: Cosine, base_lr: float, now: Now) -> float:
    """Half a cosine (Loshchilov and Hutter, 2017; arXiv 1608.03983), as torch's CosineAnnealingLR over all steps.

    `final_lr` would be the rate of the step after the last, so that no step is spent at a rate of 0.
    """
    return _cosine(base_lr, config.final_lr, now.share)


def polynomial(config: Polynomial, base_lr: float, now: Now) -> float:
    """A power of the share that is left, down to `final_lr` after the last step, as torch's PolynomialLR."""
    return config.final_lr + (base_lr - config.final_lr) * float((1 - now.share) ** config.power)


def on_plateau(config: Plateau, base_lr: float, now: Now) -> float:
    """What the validation loss has left of the base rate; never below `least`, unless the base rate is."""
    return max(base_lr * now.plateau, min(base_lr, config.least))


def one_cycle(config: OneCycle, base_lr: float, now: Now) -> float:
    """One cycle (Smith, 2018; arXiv 1803.09820), `final_lr` at the last step.

    Equals torch's OneCycleLR with pct_start = warmup, div_factor 25 and final_div_factor = base_lr / 25 / final_lr.
    """
    final_lr = base_lr / FINAL_DIVISOR if config.final_lr is None else config.final_lr
    slope = _cosine if config.shape == "cosine" else _line
    last = now.total_steps - 1
    peak = max(0.0, config.warmup * now.total_steps - 1)
    if now.step < peak:
        return slope(base_lr / START_DIVISOR, base_lr, now.step / peak)
    return slope(base_lr, final_lr, (now.step - peak) / (last - peak)) if last > peak else base_lr


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * share))


def _line(start: float, end: float, share: float) -> float:
    return start + (end - start) * share


COURSES: dict[str, Callable[[Any, float, Now], float]] = {
    "constant": constant,
    "step": reduce_in_steps,
    "multistep": reduce_at,
    "exponential": exponential,
    "cosine": cosine,
    "polynomial": polynomial,
    "plateau": on_plateau,
    "onecycle": one_cycle,
}


class PlateauState(NamedTuple):
    """What a plateau schedule has heard, in JSON values.

    factor: the rate is so many times the base rate; best: least loss so far; bad: epochs since without a better one.
    """

    factor: float = 1.0
    best: float | None = None
    bad: int = 0

    def step(self, config: Plateau, base_lr: float, val_loss: float) -> PlateauState:
        """After an epoch; as torch's ReduceLROnPlateau with mode min, threshold_mode rel and min_lr = least."""
        to_beat = math.inf if self.best is None else self.best * (1 - config.threshold)
        if val_loss < to_beat:
            return PlateauState(self.factor, val_loss, 0)
        if self.bad < config.patience:
            return self._replace(bad=self.bad + 1)
        lr = base_lr * self.factor
        less = max(lr * config.factor, config.least)
        return PlateauState(less / base_lr if lr - less > LEAST_CHANGE else self.factor, self.best, 0)
