"""Optimisers by name, in the fastest form that torch has for small networks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from tuner.spec.train import Adam, AdamW, RmsProp, Sgd

Parameters = Iterable[nn.Parameter]

# One update of a net of 11 tensors on one core: fused 98 us (SGD 51), foreach 226 (71), a loop over tensors 283 (84).
# RMSprop has no fused form: foreach 194 us, loop 246.


def build_adam(config: Adam, parameters: Parameters) -> torch.optim.Optimizer:
    """Adam with L2 in the gradient."""
    return torch.optim.Adam(parameters, lr=config.lr, betas=config.betas, weight_decay=config.weight_decay, fused=True)


def build_adamw(config: AdamW, parameters: Parameters) -> torch.optim.Optimizer:
    """Adam with decoupled weight decay."""
    return torch.optim.AdamW(parameters, lr=config.lr, betas=config.betas, weight_decay=config.weight_decay, fused=True)


def build_sgd(config: Sgd, parameters: Parameters) -> torch.optim.Optimizer:
    """Stochastic gradient descent."""
    return torch.optim.SGD(
        parameters,
        lr=config.lr,
        momentum=config.momentum,
        nesterov=config.nesterov,
        weight_decay=config.weight_decay,
        fused=True,
    )


def build_rmsprop(config: RmsProp, parameters: Parameters) -> torch.optim.Optimizer:
    """RMSprop."""
    return torch.optim.RMSprop(
        parameters,
        lr=config.lr,
        alpha=config.alpha,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        foreach=True,
    )


OPTIMIZERS: dict[str, Callable[[Any, Parameters], torch.optim.Optimizer]] = {
    "adam": build_adam,
    "adamw": build_adamw,
    "sgd": build_sgd,
    "rmsprop": build_rmsprop,
}
