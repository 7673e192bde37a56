"""Convolutional networks, built from the fields of `model`: blocks, their reductions, a head."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from tuner.errors import Infeasible
from tuner.spec.model import Block, Cnn, DilatedDown, Position
from tuner.training.networks import ACTIVATIONS, Network, Residual, chain, drop, make_head

# Wider than any network that trains in practice: beyond it, counting or building would only exhaust the memory.
MAX_CHANNELS = 2**16
GROUP = 8  # channels at least in a group of group normalisation, where there are so many

POOLS: dict[str, Callable[[], nn.Module]] = {"max": lambda: nn.MaxPool2d(2), "average": lambda: nn.AvgPool2d(2)}
HEAD_POOLS: dict[str, Callable[[], nn.Module]] = {
    "average": lambda: nn.AdaptiveAvgPool2d(1),
    "max": lambda: nn.AdaptiveMaxPool2d(1),
    "flatten": nn.Identity,
}

Parts = list[tuple[str, nn.Module]]


class Whiten(nn.Conv2d):
    """2x2 convolution to uncorrelated maps of mean square 1, each beside its negative for the activation that follows.

    It never learns: its weights are no parameters, and random until `fit`. Channels C become 2 x 4C; a pixel is lost.
    The idea is Page's and Jordan's (arXiv 2404.00498): of small networks on CIFAR-10, the fastest begin so.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, 8 * channels, 2, bias=False)
        weight = self.weight.detach()
        del self.weight
        self.register_buffer("weight", weight)

    def fit(self, images: Tensor) -> None:
        """Take the weights from all 2x2 patches of normalised training images (N, C, S, S)."""
        patches = images.float().unfold(2, 2, 1).unfold(3, 2, 1).transpose(1, 3).flatten(0, 2).flatten(1)
        values, vectors = torch.linalg.eigh((patches.T @ patches / len(patches)).double())
        # 5e-4: what hardly varies, such as the colours of grey images, is not blown up to the size of the rest.
        filters = (vectors / (values + 5e-4).sqrt()).T.reshape(-1, images.shape[1], 2, 2)
        self.weight.copy_(torch.cat([filters, -filters]))


class Whitened(Network):
    """A network whose first stage whitens; `prepare` must see training images once, before the first step."""

    def prepare(self, images: Tensor) -> None:
        """Fit the first stage to normalised training images (N, C, S, S)."""
        for layer in self.modules():
            if isinstance(layer, Whiten):
                layer.fit(images)


def list_sides(config: Cnn, image_size: int) -> list[int]:
    """Side of the map after each block, in pixels.

    Raises:
        Infeasible: a block has no pixel left to give.
    """
    sides: list[int] = []
    side = image_size - config.whiten
    for block in config.all_blocks:
        side -= 2 * _margin(config, block)
        if side > 0:
            side = _reduce(block, side)
        if side < 1:
            raise Infeasible(_explain(config, image_size, fits=len(sides)))
        sides.append(side)
    return sides


def _margin(config: Cnn, block: Block) -> int:
    """Pixels that the convolutions of a block cut from each edge."""
    return sum(block.dilations) * (block.kernel - 1) // 2 if config.padding == "valid" else 0


def _reduce(block: Block, side: int) -> int:
    if isinstance(block.down, DilatedDown):
        return side + 2 - 2 * block.down.dilation
    if block.down.name == "strided":
        return (side + 1) // 2
    return side if block.down.name == "none" else side // 2


def build(config: Cnn, *, classes: int, in_channels: int, image_size: int) -> Network:
    """The network: (N, in_channels, image_size, image_size) to logits (N, classes). A stage is a block.

    Raises:
        Infeasible: the blocks leave no pixel of the image, are too wide, or too narrow for group normalisation.
    """
    side, blocks, head = list_sides(config, image_size)[-1], config.all_blocks, config.head
    widest = max(block.width for block in blocks)
    if widest > MAX_CHANNELS:
        raise Infeasible(f"model.width reaches {widest:,} channels in a block; at most {MAX_CHANNELS:,} are built")
    stages, channels = {}, in_channels
    if config.whiten:
        stages["whiten"] = chain([("conv", Whiten(channels)), _activation(config)])
        channels = 8 * channels
    for number, block in enumerate(blocks, start=1):
        stages[f"block{number}"] = _build_block(config, block, channels, number / len(blocks))
        channels = block.width
    if head.project:
        conv = _start(config, nn.Conv2d(channels, head.project, 1, bias=config.norm == "none"))
        stages["project"] = chain([("conv", conv), *_norm(config, head.project), _activation(config)])
        channels = head.project
    stages["pool"] = nn.Sequential(HEAD_POOLS[head.pool](), nn.Flatten())
    features = channels * (side * side if head.pool == "flatten" else 1)
    rate = config.drop.rate if "head" in config.drop.at else 0.0
    logits = make_head(features, classes, head.hidden, config.activation, rate)
    return (Whitened if config.whiten else Network)(stages, logits)


def _build_block(config: Cnn, block: Block, channels: int, place: float) -> nn.Sequential:
    """One block; `place` is its place among all of them, the last at 1."""
    # Pooled before norm and activation, as airbench does: these see a quarter of the pixels, and a CPU trains 1.2 to
    # 1.4 times as many images/s. With a way around, whose sum the norm belongs to, before the activation alone.
    pool = POOLS.get(block.down.name)
    early: Parts = [("pool", pool())] if pool and config.pool_first else []
    ends: list[tuple[Position, bool]] = [("conv", True), ("block", True), ("last", place == 1), ("down", bool(early))]
    dropout = _drop(config, *(position for position, here in ends if here))

    *units, last = _list_convolutions(config, block, channels)
    parts: Parts = []
    for number, unit in enumerate(units, start=1):
        parts.append((f"conv{number}", chain([*unit, _activation(config), *_drop(config, "conv")])))
    name, squeeze = f"conv{len(block.convs)}", _squeeze(config, block.width)
    if config.residual:
        branch, around = chain([*parts, (name, chain(last)), *squeeze]), _build_way_around(config, block, channels)
        residual = Residual(branch, around, config.stochastic_depth * place)
        parts = [("residual", residual), *early, _activation(config), *dropout]
    else:
        conv, *norm = last
        parts.append((name, chain([conv, *early, *norm, _activation(config), *squeeze, *dropout])))
    return chain(parts if early else [*parts, *_build_down(config, block)])


def _list_convolutions(config: Cnn, block: Block, channels: int) -> Iterator[Parts]:
    """Each convolution of a block, with its norm."""
    for kind, dilation in zip(block.convs, block.dilations, strict=True):
        padding = dilation * (block.kernel - 1) // 2 if config.padding == "same" else 0
        width, kernel, bias = block.width, block.kernel, config.norm == "none"
        if kind == "separable":
            depthwise = nn.Conv2d(channels, channels, kernel, padding=padding, dilation=dilation, groups=channels)
            pointwise = nn.Conv2d(channels, width, 1)
            conv = chain([("depthwise", _start(config, depthwise, "linear")), ("pointwise", _start(config, pointwise))])
            yield [("conv", conv), *_norm(config, width)]
        else:
            # A norm has its own offset: a bias before it would do nothing.
            plain = nn.Conv2d(channels, width, kernel, padding=padding, dilation=dilation, bias=bias)
            yield [("conv", _start(config, plain)), *_norm(config, width)]
        channels = width


def _build_way_around(config: Cnn, block: Block, channels: int) -> nn.Sequential:
    margin = _margin(config, block)
    parts: Parts = [("crop", nn.ZeroPad2d(-margin))] if margin else []
    if channels != block.width:
        conv = nn.Conv2d(channels, block.width, 1, bias=config.norm == "none")
        parts += [("conv", _start(config, conv, "linear")), *_norm(config, block.width)]
    return chain(parts)


def _build_down(config: Cnn, block: Block) -> Parts:
    """The reduction after the activation, with its dropout; nothing where the map keeps its side."""
    width, down = block.width, block.down
    if isinstance(down, DilatedDown):
        conv = nn.Conv2d(width, width, 3, padding=1, dilation=down.dilation)
        layer: nn.Module = chain([("conv", _start(config, conv, "linear", identity=False)), *_norm(config, width)])
    elif down.name == "strided":
        conv = nn.Conv2d(width, width, 3, padding=1, stride=2, bias=config.norm == "none")
        layer = chain([("conv", _start(config, conv, identity=False)), *_norm(config, width), _activation(config)])
    elif down.name in POOLS:
        layer = POOLS[down.name]()
    else:
        return []
    return [("down", layer), *_drop(config, "down")]


def _activation(config: Cnn) -> tuple[str, nn.Module]:
    return ("act", ACTIVATIONS[config.activation]())


def _norm(config: Cnn, width: int) -> Parts:
    if config.norm == "group":
        if width == 1:
            raise Infeasible("model.norm group has nothing to compare where a block has 1 channel; give it 2 or more")
        groups = max(count for count in range(1, max(1, width // GROUP) + 1) if width % count == 0)
        return [("norm", nn.GroupNorm(groups, width))]
    return [("norm", nn.BatchNorm2d(width))] if config.norm == "batch" else []


def _squeeze(config: Cnn, width: int) -> Parts:
    """Squeeze-excitation (Hu et al., 2018): each channel times what a small network says of all of their averages."""
    if config.squeeze is None:
        return []
    from torchvision.ops import SqueezeExcitation  # a second to import

    return [("squeeze", SqueezeExcitation(width, max(1, width // config.squeeze)))]


def _drop(config: Cnn, *positions: Position) -> Parts:
    """One layer of dropout where any of these positions is asked for."""
    return [("drop", drop(config.drop.rate, nn.Dropout2d))] if set(positions) & set(config.drop.at) else []


def _start(config: Cnn, conv: nn.Conv2d, follows: str = "relu", *, identity: bool = True) -> nn.Conv2d:
    """The first weights of a convolution that is followed by an activation, or by nothing: `linear`."""
    if config.norm == "none" and conv.bias is not None:
        # He's start (arXiv 1502.01852) where nothing rescales the maps, which torch's own start shrinks layer by layer.
        # CIFAR-10, 3,000 images or so: 44.0, not 33.1%, with 6 convolutions and Adam; 44.9, not 40.7%, with 3 and SGD.
        # With batch norm torch's start is the better one: 50.2 against 47.4%.
        nn.init.kaiming_normal_(conv.weight, nonlinearity="relu" if follows == "relu" else "linear")
        nn.init.zeros_(conv.bias)
    if config.init == "identity" and identity:
        # The first of the maps go on as they came, as in airbench; further ones begin as they would.
        nn.init.dirac_(conv.weight.detach()[: conv.in_channels], conv.groups)
    return conv


def _explain(config: Cnn, image_size: int, fits: int) -> str:
    downs = {block.down.name for block in config.all_blocks}
    each = "blocks" if config.blocks else "each block"
    reasons = []
    if config.whiten:
        reasons.append("whitening takes a pixel")
    if config.padding == "valid":
        reasons.append("convolutions without padding shrink the map")
    if downs - {"dilated", "none"}:
        reasons.append(f"{each} halve{'' if config.blocks else 's'} the map")
    if "dilated" in downs:
        reasons.append("a dilated reduction takes 2 x dilation - 2 pixels")
    room = {0: "not one block fits", 1: "at most 1 block fits"}.get(fits, f"at most {fits} blocks fit")
    what = f"model.blocks lists {len(config.blocks)}, which" if config.blocks else f"model.depth {config.depth}"
    return f"{what} leaves no pixel of {image_size}x{image_size} images: {' and '.join(reasons)}; {room}"
