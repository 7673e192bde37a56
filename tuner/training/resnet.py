"""Residual networks for small images, as He et al. built them for CIFAR-10 (2016, section 4.2)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from tuner.spec.model import ResNet
from tuner.training.networks import ACTIVATIONS, Network, Residual, chain, make_head

STAGES = 3


class Shortcut(nn.Module):
    """The way around a block that halves the map: every second pixel, further channels zero (the paper's option A).

    It has no parameters, as in the paper, whose ResNet-20 so has 0.27 million.
    """

    def __init__(self, further: int) -> None:
        super().__init__()
        self.further = further

    def forward(self, maps: Tensor) -> Tensor:
        """(N, C, S, S) to (N, C + further, S / 2 rounded up, the same)."""
        return F.pad(maps[:, :, ::2, ::2], (0, 0, 0, 0, 0, self.further))


def build(config: ResNet, *, classes: int, in_channels: int, image_size: int) -> Network:
    """A first convolution, three stages of (depth - 2) / 6 blocks of two convolutions, average pooling, output.

    Fits images of any size: a map of one pixel stays one.
    """
    each, width = (config.depth - 2) // (2 * STAGES), config.width
    stages = {"stem": chain([*_convolve(in_channels, width), _activation(config)])}
    channels, made = width, 0
    for number in range(STAGES):
        width = config.width * 2**number
        blocks = []
        for block in range(each):
            made += 1
            stride = 2 if number and not block else 1
            branch = [*_convolve(channels, width, stride), _activation(config), *_convolve(width, width)]
            around = Shortcut(width - channels) if stride == 2 else nn.Identity()
            residual = Residual(chain(branch), around, config.stochastic_depth * made / (STAGES * each))
            blocks.append((f"block{block + 1}", chain([("residual", residual), _activation(config)])))
            channels = width
        stages[f"stage{number + 1}"] = chain(blocks)
    stages["pool"] = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return Network(stages, make_head(channels, classes, (), config.activation, config.dropout))


def _convolve(channels: int, width: int, stride: int = 1) -> list[tuple[str, nn.Module]]:
    conv = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")  # as in the paper
    return [("conv", conv), ("norm", nn.BatchNorm2d(width))]


def _activation(config: ResNet) -> tuple[str, nn.Module]:
    return ("act", ACTIVATIONS[config.activation]())
