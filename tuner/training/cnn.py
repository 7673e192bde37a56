"""Plain convolutional networks, built from the fields of `model`."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import nn

from tuner.errors import Infeasible
from tuner.spec.model import Cnn

# Wider than any network that trains in practice: beyond it, counting or building would only exhaust the memory.
MAX_CHANNELS = 2**16

ONE_IMAGE = (
    "train.batch_size 1 gives batch normalisation a single value where the map is one pixel; "
    "use a batch of 2 or more, fewer blocks or model.norm none"
)

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": lambda: nn.ReLU(inplace=True),
    "leaky_relu": lambda: nn.LeakyReLU(inplace=True),
    "gelu": nn.GELU,
    "silu": nn.SiLU,
}
POOLS: dict[str, Callable[[], list[nn.Module]]] = {
    "max": lambda: [nn.MaxPool2d(2)],
    "average": lambda: [nn.AvgPool2d(2)],
    "none": list,
}


def list_widths(config: Cnn) -> list[int]:
    """Channels of each block: as listed, or the first block's times growth^i, rounded to whole channels.

    Raises:
        Infeasible: a block is wider than `MAX_CHANNELS`.
    """
    if isinstance(config.width, tuple):
        widths = list(config.width)
    else:
        widths = [max(1, math.floor(config.width * config.growth**i + 0.5)) for i in range(config.depth)]
    if max(widths) > MAX_CHANNELS:
        raise Infeasible(f"model.width reaches {max(widths):,} channels in a block; at most {MAX_CHANNELS:,} are built")
    return widths


def list_kernels(config: Cnn) -> list[int]:
    """Kernel side of each block."""
    return list(config.kernel) if isinstance(config.kernel, tuple) else [config.kernel] * config.depth


def list_sides(config: Cnn, image_size: int) -> list[int]:
    """Side of the map after each block, in pixels.

    Raises:
        Infeasible: a block has no pixel left to give.
    """
    sides: list[int] = []
    side = image_size
    for kernel in list_kernels(config):
        if config.padding == "valid":
            side -= config.convs * (kernel - 1)
        if config.pool != "none":
            side //= 2
        if side < 1:
            raise Infeasible(_explain(config, image_size, fits=len(sides)))
        sides.append(side)
    return sides


def build(config: Cnn, *, classes: int, in_channels: int, image_size: int) -> nn.Module:
    """The network: (N, in_channels, image_size, image_size) to logits (N, classes).

    Raises:
        Infeasible: the blocks leave no pixel of the image, or are too wide.
    """
    side = list_sides(config, image_size)[-1]
    layers: list[nn.Module] = []
    channels = in_channels
    for width, kernel in zip(list_widths(config), list_kernels(config), strict=True):
        for i in range(config.convs):
            layers.append(_build_conv(config, channels, width, kernel))
            if i == config.convs - 1:
                # Pooled before norm and activation, as airbench does: these see a quarter of the pixels, and a CPU
                # trains 1.2 to 1.4 times as many images/s.
                layers += POOLS[config.pool]()
            if config.norm == "batch":
                layers.append(nn.BatchNorm2d(width))
            layers.append(ACTIVATIONS[config.activation]())
            channels = width
        if config.dropout:
            layers.append(nn.Dropout2d(config.dropout))
    if config.head.pool == "average":
        layers.append(nn.AdaptiveAvgPool2d(1))
    layers.append(nn.Flatten())
    features = channels * (1 if config.head.pool == "average" else side * side)
    for hidden in config.head.hidden:
        layers += [nn.Linear(features, hidden), ACTIVATIONS[config.activation]()]
        features = hidden
    if config.dropout:
        layers.append(nn.Dropout(config.dropout))
    return nn.Sequential(*layers, nn.Linear(features, classes))


def _build_conv(config: Cnn, channels: int, width: int, kernel: int) -> nn.Conv2d:
    # A norm has its own offset: a bias before it would do nothing.
    conv = nn.Conv2d(channels, width, kernel, padding=config.padding, bias=config.norm == "none")
    if conv.bias is not None:
        # He's start (arXiv 1502.01852) where nothing rescales the maps, which torch's own start shrinks layer by layer.
        # CIFAR-10, 3,000 images or so: 44.0, not 33.1%, with 6 convolutions and Adam; 44.9, not 40.7%, with 3 and SGD.
        # With batch norm torch's start is the better one: 50.2 against 47.4%.
        nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
        nn.init.zeros_(conv.bias)
    return conv


def needs_two_images(config: Cnn, image_size: int) -> bool:
    """Whether batch normalisation meets a map of one pixel: with one image a batch it would have one value to average.

    The map that the last norm sees is already pooled, so it has the side that the last block gives.
    """
    return config.norm == "batch" and list_sides(config, image_size)[-1] == 1


def _explain(config: Cnn, image_size: int, fits: int) -> str:
    reasons = []
    if config.padding == "valid":
        reasons.append("convolutions without padding shrink the map")
    if config.pool != "none":
        reasons.append("each block halves the map")
    room = {0: "not one block fits", 1: "at most 1 block fits"}.get(fits, f"at most {fits} blocks fit")
    images = f"{image_size}x{image_size} images"
    return f"model.depth {config.depth} leaves no pixel of {images}: {' and '.join(reasons)}; {room}"


# Builders by name, all called as `build(config, classes=, in_channels=, image_size=)`.
MODELS: dict[str, Callable[..., nn.Module]] = {"cnn": build}
