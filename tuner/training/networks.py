"""Networks by name, and what all of them have in common: stages from the input to the head, and the head."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from tuner.training import cnn


class Network(nn.Module):
    """A body of stages one after the other, and a head that turns its features (N, F) into logits (N, classes)."""

    def __init__(self, stages: Mapping[str, nn.Module], head: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(OrderedDict(stages))
        self.head = head

    @property
    def stages(self) -> tuple[nn.Module, ...]:
        """Parts of the body from the input on; with the head they hold each parameter once."""
        return tuple(self.body)

    def features(self, images: Tensor) -> Tensor:
        """What the head gets of images (N, C, S, S)."""
        made: Tensor = self.body(images)
        return made

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, C, S, S)."""
        logits: Tensor = self.head(self.features(images))
        return logits


MODELS: dict[str, Callable[..., nn.Module]] = {"cnn": cnn.build}
"""Name -> builder, called as build(config, classes=, in_channels=, image_size=); raises Infeasible."""


def make_network(config: Any, *, classes: int, in_channels: int, image_size: int) -> nn.Module:
    """The network of a `model` section, for images (N, in_channels, image_size, image_size).

    Raises:
        Infeasible: it cannot be built for these images.
        BadInput: the section asks for something that is not there.
    """
    name = "user" if ":" in config.name else config.name
    return MODELS[name](config, classes=classes, in_channels=in_channels, image_size=image_size)
