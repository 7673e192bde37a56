"""Densely connected networks for small images: DenseNet-BC of Huang et al. (2017)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tuner.errors import Infeasible
from tuner.spec.model import DenseNet
from tuner.training.networks import ACTIVATIONS, Network, chain, drop, make_head

BLOCKS = 3
BOTTLENECK = 4  # a layer's 1x1 convolution gives so many times `growth` channels
SMALLEST = 2 ** (BLOCKS - 1)


class Dense(nn.Module):
    """Maps with those that a layer makes of them behind: (N, C, S, S) to (N, C + growth, S, S)."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, maps: Tensor) -> Tensor:
        """All maps so far, and the new ones."""
        return torch.cat([maps, self.layer(maps)], 1)


def build(config: DenseNet, *, classes: int, in_channels: int, image_size: int) -> Network:
    """A first convolution, three blocks of (depth - 4) / 6 layers with two transitions between them, output.

    Raises:
        Infeasible: both transitions halve the map, so an image needs four pixels a side.
    """
    if image_size < SMALLEST:
        raise Infeasible(
            f"model densenet halves the map {BLOCKS - 1} times: {image_size}x{image_size} images leave no pixel; "
            f"at least {SMALLEST}x{SMALLEST} fit"
        )
    each, channels = (config.depth - 4) // (2 * BLOCKS), 2 * config.growth
    stages = {"stem": chain([("conv", _convolution(in_channels, channels, 3))])}
    for number in range(1, BLOCKS + 1):
        parts: list[tuple[str, nn.Module]] = []
        for layer in range(1, each + 1):
            parts.append((f"layer{layer}", Dense(_build_layer(config, channels))))
            channels += config.growth
        parts += _activate(config, channels)
        if number < BLOCKS:
            kept = max(1, int(channels * config.compression))
            parts += [("conv", _convolution(channels, kept, 1)), ("pool", nn.AvgPool2d(2))]
            channels = kept
        stages[f"block{number}"] = chain(parts)
    stages["pool"] = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return Network(stages, make_head(channels, classes, (), config.activation, 0.0))


def _build_layer(config: DenseNet, channels: int) -> nn.Sequential:
    narrow = BOTTLENECK * config.growth
    squeezed = [*_activate(config, channels), ("conv", _convolution(channels, narrow, 1))]
    grown = [*_activate(config, narrow), ("conv", _convolution(narrow, config.growth, 3))]
    return chain([*squeezed, *grown, ("drop", drop(config.dropout))])


def _activate(config: DenseNet, channels: int) -> list[tuple[str, nn.Module]]:
    return [("norm", nn.BatchNorm2d(channels)), ("act", ACTIVATIONS[config.activation]())]


def _convolution(channels: int, width: int, kernel: int) -> nn.Conv2d:
    conv = nn.Conv2d(channels, width, kernel, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")  # as in the paper
    return conv
