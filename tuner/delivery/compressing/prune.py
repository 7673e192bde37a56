"""Prune: a network without its weakest weights, which stay as zeros, or without its weakest channels, which go."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import torch
from torch import nn
from torch.nn.utils import prune

from tuner.delivery.model import Model, Shipped
from tuner.errors import Infeasible
from tuner.training.cnn import Whiten
from tuner.training.networks import Residual
from tuner.training.resnet import Shortcut

LAYERS = (nn.Conv2d, nn.Linear)


def mask_weights(model: Model, share: float) -> Model:
    """A copy in which this share of all weights is zero: the smallest of convolutions and linear layers together.

    Global magnitude pruning: Han et al., 2015. The zeros stay zero in training until `settle`.
    """
    network = copy.deepcopy(model.network).to(memory_format=torch.contiguous_format)  # torch lays the weights in a row
    layers = [layer for layer in network.modules() if isinstance(layer, LAYERS) and not isinstance(layer, Whiten)]
    prune.global_unstructured([(layer, "weight") for layer in layers], prune.L1Unstructured, amount=share)
    return _changed(model, network, model.about.params)


def settle(network: nn.Module) -> None:
    """Write the zeros into the weights themselves, in place."""
    for layer in network.modules():
        if isinstance(layer, LAYERS) and prune.is_pruned(layer):
            prune.remove(layer, "weight")  # type: ignore[no-untyped-call]


def take_channels(model: Model, share: float) -> Model:
    """A copy without this share of each layer's channels, rounded to whole ones: those whose weights are smallest.

    What is coupled (both sides of a sum, a norm and its convolution) goes together, by the dependency graph of Fang et
    al., 2023 (arXiv 2301.12900), channels ranked by the norm of all of their weights. One channel stays at least. Kept
    are the output layer, whitening, which is no weight that learns, and what runs through a network whose shortcuts add
    zero channels (resnet): there the channels inside of the blocks go.

    Raises:
        Infeasible: the network cannot be followed, or has nothing that could go; the text says why.
    """
    import torch_pruning

    shipped = copy.deepcopy(model.network).to(memory_format=torch.contiguous_format)
    network = shipped.network
    if any("attention" in type(layer).__name__.lower() for layer in network.modules()):
        raise Infeasible("its layers of attention have no channels that could be taken out one by one")
    layers = [layer for layer in network.modules() if isinstance(layer, LAYERS)]
    size = model.about.image_size
    images = torch.zeros(1, model.about.channels, size, size, device=model.device)
    before = count(network)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="torch_pruning")  # parameters outside of layers: it takes them on
            torch_pruning.pruner.BasePruner(
                network,
                images,
                importance=torch_pruning.importance.GroupMagnitudeImportance(),
                pruning_ratio_dict={layer: _exact(layer, share) for layer in layers},
                pruning_ratio=0.0,
                ignored_layers=_kept(network, layers),
            ).step()
        with torch.inference_mode():
            made = network(images).shape
    except Exception as error:  # it raises whatever its walk through an unknown network ends in
        why = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise Infeasible(f"its channels cannot be followed through the network ({why})") from error
    if made != (1, len(model.about.classes)):
        raise Infeasible(f"its channels cannot be followed through the network (logits of {tuple(made)})")
    if count(network) == before and share:
        raise Infeasible("it has no layer with channels to spare")
    return _changed(model, shipped, count(network))


def _exact(layer: nn.Module, share: float) -> float:
    """The ratio at which torch_pruning, which rounds up, takes out the nearest whole number of channels."""
    assert isinstance(layer, LAYERS)
    channels = len(layer.weight)
    taken = min(round(channels * share), channels - 1)
    return (taken - 0.5) / channels if taken else 0.0


def _kept(network: nn.Module, layers: list[Any]) -> list[nn.Module]:
    kept = [layers[-1], *(layer for layer in layers if isinstance(layer, Whiten))]
    if isinstance(layers[0], nn.Conv2d) and layers[0].groups > 1:  # its channels are those of the image
        kept.append(layers[0])
    if any(isinstance(layer, Shortcut) for layer in network.modules()):
        kept.append(layers[0])
        for block in network.modules():
            if isinstance(block, Residual):
                kept.append([layer for layer in block.branch.modules() if isinstance(layer, LAYERS)][-1])
    return kept


def count(network: nn.Module) -> int:
    """Parameters, zeros among them."""
    return sum(parameter.numel() for parameter in network.parameters())


def _changed(model: Model, network: Shipped, params: int) -> Model:
    about = model.about.model_copy(update={"params": params})
    network = network.to(memory_format=torch.channels_last)
    return Model(about, model.place, network, model.device)
