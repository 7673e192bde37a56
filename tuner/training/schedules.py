"""The learning rate at every step, in closed form: a resumed trial needs no schedule state, only its step."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from tuner.spec.train import Constant, OneCycle

START_DIVISOR = 25.0
FINAL_DIVISOR = 10_000.0


def constant(config: Constant, base_lr: float, step: int, total_steps: int) -> float:
    """The base rate throughout."""
    return base_lr


def one_cycle(config: OneCycle, base_lr: float, step: int, total_steps: int) -> float:
    """One cycle (Smith, 2018; arXiv 1803.09820), both slopes cosines.

    Equals torch's OneCycleLR with pct_start = warmup, div_factor 25 and final_div_factor = base_lr / 25 / final_lr.
    """
    final_lr = base_lr / FINAL_DIVISOR if config.final_lr is None else config.final_lr
    last = total_steps - 1
    peak = max(0.0, config.warmup * total_steps - 1)
    if step < peak:
        return _slope(base_lr / START_DIVISOR, base_lr, step / peak)
    return _slope(base_lr, final_lr, (step - peak) / (last - peak)) if last > peak else base_lr


def _slope(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * share))


SCHEDULES: dict[str, Callable[[Any, float, int, int], float]] = {"constant": constant, "onecycle": one_cycle}


def rate(config: Constant | OneCycle, base_lr: float, step: int, total_steps: int) -> float:
    """Learning rate of a step, counted from 0; steps beyond the last keep the last rate."""
    return SCHEDULES[config.name](config, base_lr, min(step, total_steps - 1), total_steps)
