"""Networks by name, and what all of them have in common: stages from the input to the head, and the head."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from importlib import import_module

import torch
from torch import Tensor, nn

from tuner.spec.model import AnyModel, UserModel
from tuner.spec.section import Section

ONE_IMAGE = (
    "train.batch_size 1 gives batch normalisation one value, where a map of the network is one pixel; "
    "use a batch of 2 or more, larger images, or of a cnn fewer blocks or model.norm group or none"
)

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": lambda: nn.ReLU(inplace=True),
    "leaky_relu": lambda: nn.LeakyReLU(inplace=True),
    "gelu": nn.GELU,
    "silu": nn.SiLU,
}


class Network(nn.Module):
    """A body of stages one after the other, and a head that turns its features (N, F) into logits (N, classes)."""

    def __init__(self, stages: Mapping[str, nn.Module], head: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(OrderedDict(stages))
        self.head = head

    @property
    def stages(self) -> tuple[nn.Module, ...]:
        """Parts of the body that can learn, from the input on; with the head they hold each parameter once."""
        return tuple(part for part in self.body if next(part.parameters(), None) is not None)

    def features(self, images: Tensor) -> Tensor:
        """What the head gets of images (N, C, S, S)."""
        made: Tensor = self.body(images)
        return made

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, C, S, S)."""
        logits: Tensor = self.head(self.features(images))
        return logits


class Residual(nn.Module):
    """A branch and a way around it, added up; training leaves the branch out, image by image, at `rate`.

    Stochastic depth: Huang et al., 2016. What stays is scaled by 1 / (1 - rate), so that nothing changes in use.
    """

    def __init__(self, branch: nn.Module, around: nn.Module, rate: float) -> None:
        super().__init__()
        self.branch, self.around, self.depth = branch, around, nn.Identity()
        if rate:
            from torchvision.ops import StochasticDepth  # a second to import

            self.depth = StochasticDepth(rate, "row")

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (N, C, S, S) to maps of the branch's shape."""
        added: Tensor = self.depth(self.branch(maps)) + self.around(maps)
        return added


def chain(parts: Iterable[tuple[str, nn.Module]]) -> nn.Sequential:
    """Named modules one after the other; a name that comes twice is numbered from its second time on: act, act2."""
    named: OrderedDict[str, nn.Module] = OrderedDict()
    for name, part in parts:
        times = sum(1 for known in named if known.rstrip("0123456789") == name)
        named[f"{name}{times + 1}" if times else name] = part
    return nn.Sequential(named)


def drop(rate: float, layer: type[nn.Dropout | nn.Dropout2d] = nn.Dropout) -> nn.Module:
    """Dropout; at rate 0 nothing stands in its place, so that names of modules never depend on a rate."""
    return layer(rate) if rate else nn.Identity()


def make_head(features: int, classes: int, hidden: Iterable[int], activation: str, rate: float) -> nn.Sequential:
    """Features (N, F) to logits (N, classes); dropout on each hidden layer, or on the features where there is none."""
    parts: list[tuple[str, nn.Module]] = []
    for units in hidden:
        parts += [("hidden", nn.Linear(features, units)), ("act", ACTIVATIONS[activation]()), ("drop", drop(rate))]
        features = units
    return chain([*(parts or [("drop", drop(rate))]), ("output", nn.Linear(features, classes))])


def _builder(module: str) -> Callable[..., nn.Module]:
    """`build` of a module of this folder, imported when it is first needed: they import this one, or take long."""

    def build(config: Section, *, classes: int, in_channels: int, image_size: int) -> nn.Module:
        function = import_module(f"tuner.training.{module}").build
        network: nn.Module = function(config, classes=classes, in_channels=in_channels, image_size=image_size)
        return network

    return build


MODELS: dict[str, Callable[..., nn.Module]] = {
    "cnn": _builder("cnn"),
    "resnet": _builder("resnet"),
    "densenet": _builder("densenet"),
    "inception": _builder("inception"),
    "backbone": _builder("backbone"),
    "user": _builder("usercode"),
}
"""Name -> builder, called as build(config, classes=, in_channels=, image_size=); raises Infeasible or BadInput."""


def make_network(config: AnyModel, *, classes: int, in_channels: int, image_size: int) -> nn.Module:
    """The network of a `model` section, for images (N, in_channels, image_size, image_size).

    Raises:
        Infeasible: it cannot be built for these images.
        BadInput: the section asks for something that is not there.
    """
    name = "user" if isinstance(config, UserModel) else config.name
    return MODELS[name](config, classes=classes, in_channels=in_channels, image_size=image_size)


def counting_device(config: AnyModel) -> torch.device:
    """Where a network is looked at that nobody trains: meta, without memory; code of the user's own may not know it."""
    return torch.device("cpu" if isinstance(config, UserModel) else "meta")


def without_rates(config: AnyModel) -> AnyModel:
    """The section without what changes no shape, so that what is counted or asked of a network is so once for all."""
    empty = {"dropout": 0.0, "stochastic_depth": 0.0, "weights": "none"}
    known = {name for name in type(config).model_fields if getattr(config, name) is not None}
    return config.model_copy(update={name: value for name, value in empty.items() if name in known})


def needs_two_images(config: AnyModel, *, classes: int, in_channels: int, image_size: int) -> bool:
    """Whether a batch normalisation of the network would have one value a channel with one image a batch.

    Raises:
        Infeasible: the network cannot be built for these images.
        BadInput: the section asks for something that is not there.
    """
    return _meets_one_value(without_rates(config), classes, in_channels, image_size)


@lru_cache(maxsize=1024)
def _meets_one_value(config: AnyModel, classes: int, in_channels: int, image_size: int) -> bool:
    found: list[bool] = []

    def look(norm: nn.Module, given: tuple[Tensor, ...], made: Tensor) -> None:
        found.append(given[0].numel() == given[0].shape[1])

    with counting_device(config), torch.no_grad():
        network = make_network(config, classes=classes, in_channels=in_channels, image_size=image_size).eval()
        for layer in network.modules():
            if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                layer.register_forward_hook(look)
        network(torch.zeros(1, in_channels, image_size, image_size))
    return any(found)
