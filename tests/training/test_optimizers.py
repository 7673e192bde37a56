from typing import Any

import pytest
import torch
from torch import nn

from tuner.spec.model import Backbone
from tuner.spec.train import Train
from tuner.spec.trial_config import KINDS
from tuner.training.networks import Network, make_network
from tuner.training.optimizers import OPTIMIZERS, make_optimizer, orthogonalize

# Name -> torch's own, as a plain loop over tensors; and one change for each field.
TORCH: dict[str, Any] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "nadam": torch.optim.NAdam,
    "sgd": torch.optim.SGD,
    "rmsprop": torch.optim.RMSprop,
    "adagrad": torch.optim.Adagrad,
}
FIELDS: dict[str, dict[str, Any]] = {
    "adam": {"lr": 0.2, "betas": [0.5, 0.9], "weight_decay": 0.1},
    "adamw": {"lr": 0.2, "betas": [0.5, 0.9], "weight_decay": 0.1},
    "nadam": {"lr": 0.2, "betas": [0.5, 0.9], "weight_decay": 0.1},
    "sgd": {"lr": 0.2, "momentum": 0.5, "nesterov": True, "weight_decay": 0.1},
    "rmsprop": {"lr": 0.2, "alpha": 0.5, "momentum": 0.5, "weight_decay": 0.1},
    "adagrad": {"lr": 0.2, "lr_decay": 0.5, "weight_decay": 0.1},
    "muon": {"lr": 0.2, "momentum": 0.5, "adam_lr": 0.2, "weight_decay": 0.1},
}
SHARED = ("name", "decay_all", "head_lr", "lr_decay_per_stage")


def make_net() -> Network:
    """Three stages and a head, with matrices, kernels, norms and biases."""
    torch.manual_seed(0)
    stages = {
        "a": nn.Conv2d(3, 4, 3),
        "b": nn.Sequential(nn.Conv2d(4, 6, 3, bias=False), nn.BatchNorm2d(6)),
        "c": nn.Sequential(nn.Flatten(), nn.Linear(96, 5)),
    }
    return Network(stages, nn.Linear(5, 2))


def make(net: nn.Module, **optimizer: Any) -> torch.optim.Optimizer:
    return make_optimizer(Train.model_validate({"optimizer": optimizer}), net)


def descend(optimizer: torch.optim.Optimizer, net: nn.Module, steps: int = 3) -> dict[str, torch.Tensor]:
    for _ in range(steps):
        for parameter in net.parameters():
            parameter.grad = parameter.detach() ** 3 + 1
        optimizer.step()
    return {name: value.detach().clone() for name, value in net.named_parameters()}


def rates(optimizer: torch.optim.Optimizer, net: nn.Module, key: str = "factor") -> dict[str, float]:
    names = {id(p): name for name, p in net.named_parameters()}
    return {names[id(p)]: group[key] for group in optimizer.param_groups for p in group["params"]}


def test_every_kind_of_optimizer_is_there() -> None:
    assert set(OPTIMIZERS) == set(KINDS["train.optimizer"]) == set(FIELDS) == {*TORCH, "muon"}


@pytest.mark.parametrize("name", TORCH)
@pytest.mark.parametrize("fields", [False, True])
def test_an_optimizer_steps_as_torchs(name: str, fields: bool) -> None:
    given = FIELDS[name] if fields else {}
    values = KINDS["train.optimizer"][name].model_validate(given).model_dump(exclude=set(SHARED))
    theirs, ours = make_net(), make_net()
    expected = descend(TORCH[name](theirs.parameters(), **values, foreach=False), theirs)
    torch.testing.assert_close(descend(make(ours, name=name, **given), ours), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("name", "field"), [(name, field) for name in FIELDS for field in FIELDS[name]])
def test_every_field_changes_the_steps(name: str, field: str) -> None:
    plain, changed = make_net(), make_net()
    first = descend(make(plain, name=name, lr=0.1), plain)
    second = descend(make(changed, **{"name": name, "lr": 0.1, field: FIELDS[name][field]}), changed)
    assert any(not torch.equal(first[each], second[each]) for each in first)


@pytest.mark.parametrize("name", FIELDS)
def test_saved_and_loaded_state_goes_on_bit_for_bit(name: str) -> None:
    straight, first, second = make_net(), make_net(), make_net()
    expected = descend(make(straight, **{"name": name, **FIELDS[name]}), straight, steps=4)
    before = make(first, **{"name": name, **FIELDS[name]})
    second.load_state_dict(descend(before, first, steps=2), strict=False)
    after = make(second, **{"name": name, **FIELDS[name]})
    after.load_state_dict(before.state_dict())
    went_on = descend(after, second, steps=2)
    assert all(torch.equal(went_on[each], expected[each]) for each in expected)


@pytest.mark.parametrize("name", FIELDS)
def test_state_is_tensors_alone_by_the_number_of_the_parameter(name: str) -> None:
    net = make_net()
    optimizer = make(net, name=name)
    descend(optimizer, net)
    state = optimizer.state_dict()["state"]
    if name != "sgd":
        assert len(state) == len(list(net.parameters()))
    assert all(isinstance(value, torch.Tensor) for values in state.values() for value in values.values())


# ---------------------------------------------------------------- groups


def test_rates_fall_from_the_head_to_the_first_stage() -> None:
    net = make_net()
    found = rates(make(net, name="adamw", lr=0.1, head_lr=10.0, lr_decay_per_stage=0.5), net)
    expected = {"body.a": 0.25, "body.b.0": 0.5, "body.b.1": 0.5, "body.c.1": 1.0, "head": 10.0}
    assert found == {name: expected[name.rpartition(".")[0]] for name in found}
    assert set(found) == {name for name, _ in net.named_parameters()}


def test_one_rate_for_all_is_one_group() -> None:
    assert len(make(make_net(), name="adamw").param_groups) == 1


def test_norms_and_biases_do_not_decay_unless_all_do() -> None:
    net = make_net()
    decay = rates(make(net, name="sgd", weight_decay=0.1, decay_all=False), net, "weight_decay")
    assert {name for name, value in decay.items() if value} == {
        "body.a.weight", "body.b.0.weight", "body.c.1.weight", "head.weight"
    }  # fmt: skip
    assert set(rates(make(net, name="sgd", weight_decay=0.1), net, "weight_decay").values()) == {0.1}


def test_what_never_learns_is_in_no_group() -> None:
    net = make_net()
    few = make_optimizer(Train(trainable=1), net)
    assert set(rates(few, net)) == {"body.c.1.weight", "body.c.1.bias", "head.weight", "head.bias"}
    still = make_optimizer(Train(freeze_norm=True), net)
    assert set(rates(still, net)) == {n for n, _ in net.named_parameters()} - {"body.b.1.weight", "body.b.1.bias"}
    net.body[0].requires_grad_(False)
    assert not any(name.startswith("body.a") for name in rates(make(net, name="adam"), net))


def test_what_is_unfrozen_later_is_in_its_group_from_the_start() -> None:
    net = make_net()
    optimizer = make_optimizer(Train.model_validate({"unfreeze": {"every": 2, "stages": 3}}), net)
    assert {name.split(".")[1] for name in rates(optimizer, net) if name.startswith("body")} == {"b", "c"}


# ---------------------------------------------------------------- Muon


def test_a_matrix_steps_as_torchs_muon() -> None:
    net, theirs = make_net(), make_net()
    ours = descend(make(net, name="muon", lr=0.05, weight_decay=0.1), net)
    layer = theirs.body[2][1]  # type: ignore[index]
    weight = nn.Parameter(layer.weight.detach().clone())
    reference = torch.optim.Muon([weight], lr=0.05, momentum=0.95, weight_decay=0.1)
    for _ in range(3):
        weight.grad = weight.detach() ** 3 + 1
        reference.step()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(ours["body.c.1.weight"], weight.detach(), atol=2e-3, rtol=0)  # in bf16 or fp32


def test_a_convolution_steps_as_the_matrix_of_its_outputs() -> None:
    conv, linear = nn.Conv2d(4, 6, 3, bias=False), nn.Linear(36, 6, bias=False)
    linear.weight.data = conv.weight.data.flatten(1).clone()
    found = []
    for layer in (conv, linear):
        net = Network({"first": nn.Linear(1, 1), "layer": layer}, nn.Linear(1, 1))
        found.append(descend(make(net, name="muon", lr=0.05), net)["body.layer.weight"].flatten(1))
    torch.testing.assert_close(*found)


def test_all_but_the_matrices_of_the_body_step_as_adamw() -> None:
    net, theirs = make_net(), make_net()
    ours = descend(make(net, name="muon", lr=0.05, adam_lr=0.01, weight_decay=0.1), net)
    adam = descend(torch.optim.AdamW(theirs.parameters(), lr=0.01, weight_decay=0.1), theirs)
    same = {name for name in ours if torch.allclose(ours[name], adam[name], atol=1e-6)}
    assert set(ours) - same == {"body.b.0.weight", "body.c.1.weight"}


def test_depthwise_convolutions_and_embeddings_are_no_matrices() -> None:
    net = make_network(Backbone(arch="mobilenet_v3_small"), classes=2, in_channels=3, image_size=32)
    optimizer = make(net, name="muon")
    matrices = [p for group in optimizer.param_groups if group["matrices"] for p in group["params"]]
    assert matrices and all(p.ndim in (2, 4) and p.shape[1] > 1 for p in matrices)


def test_orthogonalized_matrices_have_singular_values_near_one() -> None:
    given = torch.randn(3, 8, 20, generator=torch.Generator().manual_seed(0))
    for matrices in (given, given.mT):
        values = torch.linalg.svdvals(orthogonalize(matrices))
        assert values.min() > 0.6 and values.max() < 1.25
    left, _, right = torch.linalg.svd(given, full_matrices=False)
    assert (
        torch.nn.functional.cosine_similarity(orthogonalize(given).flatten(1), (left @ right).flatten(1)).min() > 0.97
    )
