"""Ema: a moving average of the weights, which is often better than where the last steps have left them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from tuner.errors import BadInput

UPDATES = "updates"


class Ema:
    """Average of a network's parameters (Polyak and Juditsky, 1992), on their device and in their precision.

    After update t, counted from 0, it is `d * average + (1 - d) * parameters` with d = min(decay, (1 + t) / (10 + t)):
    the untrained weights are forgotten soon. The statistics of norms are averaged as the parameters are: those of the
    network belong to its last steps. Other buffers are the network's own.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self._averages = {name: value.clone() for name, value in _values(network).items()}

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """After a step of the optimiser; a GPU is not waited for."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_([*self._averages.values()], [*_values(network).values()], 1 - decay)
        self.updates += 1

    @contextmanager
    def swapped(self, network: nn.Module) -> Iterator[None]:
        """Within it the network has the averaged weights; after it exactly those from before.

        Values are copied and no tensors exchanged, so that optimisers and captured graphs keep the memory they know.
        """
        values = [*_values(network).values()]
        raw = [value.clone() for value in values]
        torch._foreach_copy_(values, [*self._averages.values()])
        try:
            yield
        finally:
            torch._foreach_copy_(values, raw)

    def state_dict(self) -> dict[str, Tensor]:
        """The averages by the parameters' names, and the number of updates; not copied."""
        return {**self._averages, UPDATES: torch.tensor(self.updates)}

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Goes on where `state_dict` was taken.

        Raises:
            BadInput: the tensors are not averages of this network.
        """
        shapes = {name: value.shape for name, value in tensors.items() if name != UPDATES}
        if shapes != {name: value.shape for name, value in self._averages.items()} or UPDATES not in tensors:
            raise BadInput(
                "these averaged weights belong to another model; resume with the configuration that wrote them"
            )
        for name, average in self._averages.items():
            average.copy_(tensors[name])
        self.updates = int(tensors[UPDATES])


def _values(network: nn.Module) -> dict[str, Tensor]:
    """What is averaged: parameters and the statistics of norms, by name."""
    buffers = {
        name: buffer for name, buffer in network.named_buffers() if name.endswith(("running_mean", "running_var"))
    }
    return {**{name: value.detach() for name, value in network.named_parameters()}, **buffers}
