"""Learning curves without training: tasks whose every configuration has a known curve and whose optimum is known.

A task is a small image classification with seven settings, two of them conditional. Its curves are of the Weibull form,
one of those of Domhan, Springenberg and Hutter (2015, IJCAI) that LC-PFN (Adriaensen et al., 2023, arXiv:2310.20447) is
built on, which extrapolates the real curves of LCBench, NAS-Bench-201, Taskset and PD1:

    accuracy(t) = chance + (ceiling - chance) (1 - exp(-(t / tau)^beta))

- `ceiling` falls with the square of the distance to the best learning rate in decades, more steeply above it; the best
  rate falls with width and depth. Too small a network underfits; one too large overfits, unless dropout or augmentation
  hold it. There is a best dropout that grows with size.
- `tau`, the epochs to 63%, grows as the rate falls below the best one, and with augmentation, dropout, depth and SGD,
  all of which a task may reward with a higher ceiling: these start slowly and win late, so that curves cross.
- `beta` is 0.6 to 0.9 (a fast start and a long tail), larger where augmentation makes the first epochs flat.
- Rates far above the best one diverge in epochs 1 to 3: not a number.
- Two normal deviates are added: one a configuration, which stays, one an epoch. Together 1.1 points, as measured over
  seeds on 1,000 validation images (results/LOG.md).

The constants of a task are drawn from its seed within plausible ranges, fixed before any search ran on them, so that a
result is about a family of tasks and not about one surface.
"""

from __future__ import annotations

import math
import random
import zlib
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from functools import cached_property
from itertools import product
from typing import Any

from tuner.spec.space import Space, parse_space

CHANCE = 0.1
NOISE = 0.008
"""Standard deviation of either deviate; sqrt(2) * 0.008 = 0.011."""
DEPTHS, WIDTHS, DROPOUT = (1, 2, 3, 4, 5), (8, 16, 32, 64, 128), (0.0, 0.6)
RATES = {"adam": (1e-5, 1e-1), "sgd": (1e-4, 1.0)}
SPACE = """
name: curves
seed: {seed}
data: {{dataset: digits, augment: {{flip_crop: {{choice: {{without: null, with: {{padding: 4}}}}}}}}}}
model: {{name: cnn, depth: {{int: [1, 5]}}, width: {{choice: [8, 16, 32, 64, 128]}}, dropout: {{uniform: [0, 0.6]}}}}
train:
  epochs: {full}
  optimizer:
    choice:
      adam: {{lr: {{loguniform: [1.0e-5, 1.0e-1]}}}}
      sgd: {{lr: {{loguniform: [1.0e-4, 1.0]}}}}
search: {{{search}}}
"""


def make_space(seed: int, full: int, search: str = "") -> Space:
    """The space of every task, as a space file says it; `search`: fields of its search section."""
    return parse_space(SPACE.format(seed=seed, full=full, search=search), "curves")


@dataclass(frozen=True)
class Settings:
    """A configuration of the space."""

    optimizer: str
    lr: float
    depth: int
    width: int
    dropout: float
    augment: bool


def settings(parameters: Mapping[str, Any]) -> Settings:
    """A configuration from its parameters by name."""
    optimizer = str(parameters["train.optimizer"])
    return Settings(
        optimizer,
        float(parameters[f"train.optimizer[{optimizer}].lr"]),
        int(parameters["model.depth"]),
        int(parameters["model.width"]),
        float(parameters["model.dropout"]),
        parameters["data.augment.flip_crop"] == "with",
    )


@dataclass(frozen=True)
class Curve:
    """Noise-free course of one configuration; `diverges`: the first epoch that is not a number."""

    ceiling: float
    tau: float
    beta: float
    diverges: int | None = None

    def at(self, epoch: int) -> float:
        """Accuracy after an epoch; not a number from divergence on."""
        if self.diverges is not None and epoch >= self.diverges:
            return math.nan
        return CHANCE + (self.ceiling - CHANCE) * (1 - math.exp(-((epoch / self.tau) ** self.beta)))


class Task:
    """One task of the family: `full` is the full training length in epochs, to which all times are in proportion."""

    def __init__(self, seed: int, full: int) -> None:
        draw = random.Random(f"curves/{seed}").uniform
        self.seed, self.full = seed, full
        self.top = draw(0.70, 0.92)
        self.best_rate = {"adam": draw(-3.4, -2.6), "sgd": draw(-1.9, -1.1)}  # log10, at depth 3 and width 32
        self.rate_by_width, self.rate_by_depth = draw(0.05, 0.2), draw(0.0, 0.12)  # decades a doubling, a block
        self.below, self.above = draw(0.03, 0.07), draw(0.08, 0.16)  # accuracy lost a decade squared
        self.limit = {"adam": draw(1.1, 1.6), "sgd": draw(0.7, 1.1)}  # decades above the best rate: diverges
        self.needs = draw(6.5, 9.5)  # size that neither under- nor overfits; sizes are 3.8 to 11
        self.underfit, self.overfit = draw(0.02, 0.04), draw(0.006, 0.014)
        self.dropout_cost = draw(0.15, 0.4)
        self.augment_gain, self.augment_slow = draw(-0.01, 0.04), draw(1.2, 2.0)
        self.sgd_gain, self.sgd_slow = draw(-0.015, 0.02), draw(1.0, 1.8)
        self.tau, self.beta = draw(0.08, 0.18) * full, draw(0.6, 0.9)

    def curve(self, s: Settings) -> Curve:
        """The course of a configuration."""
        size = math.log2(s.width) + 0.8 * s.depth
        best = self.best_rate[s.optimizer]
        best -= self.rate_by_width * (math.log2(s.width) - 5) + self.rate_by_depth * (s.depth - 3)
        off = math.log10(s.lr) - best
        lost = (self.above if off > 0 else self.below) * off**2
        lacks = self.needs - size
        held = 0.5 if s.augment else 1.0
        lost += self.underfit * max(0.0, lacks) ** 1.5 + self.overfit * held * max(0.0, -lacks) ** 2
        fitting = min(0.5, max(0.0, 0.15 - 0.06 * lacks - (0.1 if s.augment else 0.0)))
        lost += self.dropout_cost * (s.dropout - fitting) ** 2
        gain = self.augment_gain * s.augment + self.sgd_gain * (s.optimizer == "sgd")
        ceiling = min(0.98, max(CHANCE + 0.02, self.top + gain - lost))
        tau = self.tau * 10 ** (0.5 * max(0.0, -off)) * (1 + s.dropout) * 1.1 ** (s.depth - 3)
        tau *= (self.augment_slow if s.augment else 1.0) * (self.sgd_slow if s.optimizer == "sgd" else 1.0)
        beyond = off - self.limit[s.optimizer]
        diverges = None if beyond <= 0 else max(1, 3 - int(beyond / 0.25))
        return Curve(ceiling, tau, self.beta * (1.25 if s.augment else 1.0), diverges)

    def final(self, s: Settings) -> float:
        """True accuracy after full training, without noise; chance for a configuration that diverges."""
        value = self.curve(s).at(self.full)
        return value if math.isfinite(value) else CHANCE

    def accuracy(self, s: Settings, epoch: int) -> float:
        """Accuracy as measured after an epoch, the same whenever it is asked; not a number after divergence."""
        key = f"{self.seed}/{astuple(s)}"
        stays = random.Random(zlib.crc32(key.encode())).gauss(0, NOISE)
        value = self.curve(s).at(epoch) + stays + random.Random(zlib.crc32(f"{key}/{epoch}".encode())).gauss(0, NOISE)
        return min(1.0, max(0.0, value)) if math.isfinite(value) else math.nan

    def seconds(self, s: Settings) -> float:
        """Duration of an epoch: a fixed part and one in proportion to the multiply-adds of the network's blocks.

        Each block has twice the channels on a quarter of the map, so that all cost the same. 1 at depth 3, width 32.
        """
        return 0.3 + 0.7 * (s.depth * s.width**2) / (3 * 32**2)

    @cached_property
    def optimum(self) -> float:
        """The best true accuracy after full training: all discrete choices, and a grid that closes in on the others."""
        best = 0.0
        for optimizer, depth, width, augment in product(RATES, DEPTHS, WIDTHS, (False, True)):
            rates, drops = tuple(map(math.log10, RATES[optimizer])), DROPOUT
            for _ in range(5):
                found = max(
                    (self.final(Settings(optimizer, 10**rate, depth, width, drop, augment)), rate, drop)
                    for rate in steps(rates[0], rates[1])
                    for drop in steps(drops[0], drops[1])
                )
                best = max(best, found[0])
                rates, drops = around(found[1], rates), around(found[2], drops)
        return best


def steps(low: float, high: float, parts: int = 10) -> list[float]:
    """Evenly spaced points, both ends included."""
    return [low + (high - low) * i / parts for i in range(parts + 1)]


def around(middle: float, ends: tuple[float, ...]) -> tuple[float, float]:
    """A range a fifth as wide, within the old one."""
    low, high = ends
    return max(low, middle - (high - low) / 10), min(high, middle + (high - low) / 10)
