"""Weights that become zeros stay zeros; channels that are taken out are the weakest, and really go."""

from __future__ import annotations

import copy
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
import torch_pruning
from torch import nn

from tuner.delivery.compressing.finetune import finetune
from tuner.delivery.compressing.prune import LAYERS, _kept, count, mask_weights, settle, take_channels
from tuner.delivery.model import Model, Shipped
from tuner.delivery.pictures import open_run
from tuner.errors import Infeasible
from tuner.spec.trial_config import TrialConfig
from tuner.training.networks import make_network

PIXELS = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), dtype=np.uint8)


def weights_of(model: Model) -> torch.Tensor:
    return torch.cat([layer.weight.flatten() for layer in model.network.modules() if isinstance(layer, LAYERS)])


def network_of(model: Model, **section: Any) -> Model:
    """An untrained network of another kind in the place of the model's own."""
    config = TrialConfig.model_validate({"data": {"dataset": "shapes"}, "model": section}).model
    torch.manual_seed(0)
    network = make_network(config, classes=len(model.about.classes), in_channels=3, image_size=16)
    about = model.about.model_copy(update={"params": count(network), "model": config})
    return replace(model, about=about, network=Shipped(network, model.about.mean, model.about.std).eval())


def test_masking_leaves_exactly_the_share_of_zeros_and_the_largest_weights(model: Model) -> None:
    before = weights_of(model)
    masked = mask_weights(model, 0.4)
    settle(masked.network)
    after = weights_of(masked)
    assert int((after == 0).sum()) == round(0.4 * len(before))
    assert before[after == 0].abs().max() <= before[after != 0].abs().min()
    assert torch.equal(after[after != 0], before[after != 0]) and not (weights_of(model) == 0).any()


def test_zeros_stay_zeros_in_fine_tuning_and_the_rest_learns(model: Model) -> None:
    masked = mask_weights(model, 0.4)
    zeros = weights_of(masked) == 0
    before = weights_of(masked).detach().clone()
    finetune(masked, open_run(model.place, model.about), 1)
    settle(masked.network)
    after = weights_of(masked)
    assert torch.equal(after == 0, zeros) and not torch.equal(after, before)


def test_fine_tuning_starts_at_a_tenth_of_the_rate_and_ends_near_nothing(model: Model) -> None:
    train = {**model.about.settings["train"], "batch_size": 1_000}  # all images: a step an epoch
    model = replace(model, about=model.about.model_copy(update={"settings": {**model.about.settings, "train": train}}))
    dataset, seen = open_run(model.place, model.about), [weights_of(model).detach().clone()]
    finetune(model, dataset, 4, lambda *_: seen.append(weights_of(model).detach().clone()))
    steps = [float((after - before).abs().max()) for before, after in pairwise(seen)]
    assert steps[0] == pytest.approx(0.1 * train["optimizer"]["lr"], rel=1e-3)  # Adam's first step is its rate
    assert len(steps) == 4 and steps[3] < 0.5 * steps[0]  # at a quarter of it


def test_channels_are_taken_out_of_every_layer_but_the_output(model: Model) -> None:
    pruned = take_channels(model, 0.5)
    sizes = [
        tuple(layer.weight.shape) for layer in pruned.network.modules() if isinstance(layer, (nn.Conv2d, nn.Linear))
    ]
    assert sizes == [(4, 3, 3, 3), (8, 4, 3, 3), (3, 8)]
    assert pruned.about.params == sum(p.numel() for p in pruned.network.parameters()) < 0.4 * model.about.params
    assert pruned.logits(PIXELS).shape == (8, 3)


def test_a_share_too_small_for_one_channel_changes_nothing(model: Model) -> None:
    with pytest.raises(Infeasible, match="no layer with channels to spare"):
        take_channels(model, 0.01)
    assert np.array_equal(take_channels(model, 0.0).logits(PIXELS), model.logits(PIXELS))


@pytest.mark.parametrize(
    "section",
    [
        {"name": "cnn", "depth": 2, "width": 8},
        {"name": "cnn", "depth": 2, "width": 8, "head": {"pool": "flatten", "hidden": [12]}},
        {"name": "cnn", "depth": 2, "width": 8, "residual": True, "squeeze": 2},
        {"name": "cnn", "depth": 2, "width": 8, "whiten": True},
        {"name": "cnn", "depth": 2, "width": 8, "kind": "separable"},
        {"name": "resnet", "depth": 8, "width": 8},
        {"name": "densenet", "depth": 10, "growth": 8},
        {"name": "inception", "depth": 3, "width": 16},
    ],
    ids=lambda section: "-".join(map(str, list(section.values())[:1] + list(section)[3:])),
)
def test_without_channels_that_do_nothing_the_network_computes_the_same(model: Model, section: Any) -> None:
    plain = network_of(model, **section)
    silent = silence(plain)
    pruned = take_channels(silent, 0.25)
    assert count(pruned.network) < count(silent.network)
    np.testing.assert_allclose(pruned.logits(PIXELS), silent.logits(PIXELS), atol=1e-5)


def silence(model: Model) -> Model:
    """The same network with a quarter of the channels of each layer that may lose some made zero, its norms too."""
    network = copy.deepcopy(model.network)
    inner = network.network
    layers = [layer for layer in inner.modules() if isinstance(layer, LAYERS)]
    graph = torch_pruning.DependencyGraph().build_dependency(inner, torch.zeros(1, 3, 16, 16))
    with torch.no_grad():
        for group in graph.get_all_groups(ignored_layers=_kept(inner, layers)):
            for dependency, places in group:
                if graph.is_out_channel_pruning_fn(dependency.handler):
                    for value in dependency.target.module.parameters(recurse=False):
                        value[list(places)[: len(group[0].idxs) // 4]] = 0
    return replace(model, network=network)


def test_attention_is_refused_with_a_reason(model: Model) -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(2), nn.MultiheadAttention(8, 2))
    with pytest.raises(Infeasible, match="attention"):
        take_channels(replace(model, network=Shipped(network, model.about.mean, model.about.std)), 0.5)
