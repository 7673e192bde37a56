"""The learning-rate range test of a space: its first configuration, trained on ever higher rates."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tuner.runner.plan import Plan
from tuner.training.datasets import open_dataset
from tuner.training.lr_find import Found, draw, try_rates
from tuner.training.trainer import Trainer

STEPS = 200


def find_rate(plan: Plan, tell: Callable[[int, float, float], None] | None = None) -> Found:
    """The curve of the configuration with the first value of everything; the space's own rates do not matter.

    Raises:
        Infeasible: the model cannot be built for these images.
    """
    config = plan.space.fixed.trial()
    data = open_dataset(plan.folder(config), config.data, plan.space.fixed.seed)
    return try_rates(Trainer(config, data, device=plan.device, threads=plan.threads), steps=STEPS, tell=tell)


def save_picture(found: Found, path: Path) -> None:
    """The curve as a PNG."""
    draw(found).savefig(path)
