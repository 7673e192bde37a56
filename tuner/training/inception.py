"""A small inception network: in each module convolutions of several sizes see the same map (Szegedy et al., 2015)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tuner.spec.model import Inception
from tuner.training.networks import ACTIVATIONS, Network, chain, make_head

STAGES = 3


class Module(nn.Module):
    """1x1, 3x3, double 3x3 and pooling side by side: (N, C, S, S) to (N, width, S, S), a quarter from each.

    Two 3x3 convolutions see what a 5x5 does, for less (Szegedy et al., 2016). Those dear ones get their maps from a
    1x1 convolution to a quarter of the width.
    """

    def __init__(self, config: Inception, channels: int, width: int) -> None:
        super().__init__()
        quarter = width // 4

        def convolve(number: int, *kernels: int) -> list[tuple[str, nn.Module]]:
            parts: list[tuple[str, nn.Module]] = []
            given = channels
            for kernel in kernels:
                parts += _convolve(config, given, number, kernel)
                given = number
            return parts

        self.branches = nn.ModuleList(
            [
                chain(convolve(width - 3 * quarter, 1)),
                chain(convolve(quarter, 1, 3)),
                chain(convolve(quarter, 1, 3, 3)),
                chain([("pool", nn.MaxPool2d(3, 1, padding=1)), *convolve(quarter, 1)]),
            ]
        )

    def forward(self, maps: Tensor) -> Tensor:
        """All four side by side."""
        return torch.cat([branch(maps) for branch in self.branches], 1)


def build(config: Inception, *, classes: int, in_channels: int, image_size: int) -> Network:
    """A first convolution, `depth` modules in three stages (the earlier ones longer), average pooling, output.

    Between two stages the map is halved, rounded up: images of any size fit.
    """
    stages = {"stem": chain(_convolve(config, in_channels, config.width, 3))}
    channels = config.width
    for number in range(STAGES):
        modules: list[tuple[str, nn.Module]] = []
        width = config.width * 2**number
        for module in range(config.depth // STAGES + (number < config.depth % STAGES)):
            modules.append((f"module{module + 1}", Module(config, channels, width)))
            channels = width
        if modules:
            halve = [("down", nn.MaxPool2d(3, 2, padding=1))] if number else []
            stages[f"stage{number + 1}"] = chain([*halve, *modules])
    stages["pool"] = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return Network(stages, make_head(channels, classes, (), config.activation, config.dropout))


def _convolve(config: Inception, channels: int, width: int, kernel: int) -> list[tuple[str, nn.Module]]:
    conv = nn.Conv2d(channels, width, kernel, padding=kernel // 2, bias=False)
    return [("conv", conv), ("norm", nn.BatchNorm2d(width)), ("act", ACTIVATIONS[config.activation]())]
