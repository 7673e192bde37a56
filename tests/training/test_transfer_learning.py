from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tuner.spec.model import Backbone
from tuner.spec.train import Train
from tuner.spec.trial_config import TrialConfig
from tuner.training.dataset import Dataset
from tuner.training.networks import Network, make_network
from tuner.training.optimizers import make_optimizer
from tuner.training.stream import Streamed
from tuner.training.transfer import apply, can_cache, features_once, trainable_stages

STAGES = ("a", "b", "c")


def make_net() -> Network:
    """Three stages of convolution, batch norm and dropout, and a head."""
    torch.manual_seed(0)
    stages = {
        name: nn.Sequential(nn.Conv2d(channels, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5))
        for name, channels in zip(STAGES, (3, 4, 4), strict=True)
    }
    return Network({**stages, "pool": nn.Flatten()}, nn.Linear(16, 2))


def epoch_of(net: Network, train: Train, epoch: int, optimizer: torch.optim.Optimizer) -> set[str]:
    """Train two steps at an epoch; names of the parts whose parameters moved."""
    before = {name: value.detach().clone() for name, value in net.named_parameters()}
    net.train()
    apply(net, train, epoch, net.parameters())
    for _ in range(2):
        optimizer.zero_grad()
        loss = F.cross_entropy(net(torch.randn(8, 3, 8, 8)), torch.arange(8) % 2)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    moved = [name for name, value in net.named_parameters() if not torch.equal(value, before[name])]
    return {name.split(".")[0 if name.startswith("head") else 1] for name in moved}


def course(fields: dict[str, Any], epochs: int = 8) -> list[set[str]]:
    train = Train.model_validate({"optimizer": {"name": "adamw"}, **fields})
    net = make_net()
    optimizer = make_optimizer(train, net)
    return [epoch_of(net, train, epoch, optimizer) for epoch in range(epochs)]


def steps(*counts: int) -> list[set[str]]:
    return [{"head", *STAGES[len(STAGES) - count :]} for count in counts]


@pytest.mark.parametrize(
    ("fields", "learning"),
    [
        ({}, steps(3, 3)),
        ({"trainable": "head"}, steps(0, 0)),
        ({"trainable": 2}, steps(2, 2)),
        ({"trainable": 9}, steps(3, 3)),
        ({"unfreeze": {"every": 2}}, steps(0, 0, 1, 1, 2, 2, 3, 3)),
        ({"unfreeze": {"every": 2, "stages": 3}}, steps(0, 0, 1, 1, 2, 2, 2, 2)),
        ({"unfreeze": {"at": [1, 4]}}, steps(0, 1, 1, 1, 2, 2)),
        ({"unfreeze": {"every": 1, "stages": 9}}, steps(0, 1, 2, 3, 3)),
    ],
)
def test_what_moves_at_each_epoch(fields: dict[str, Any], learning: list[set[str]]) -> None:
    assert course(fields, len(learning)) == learning


def test_five_steps_end_with_the_head_and_four_stages() -> None:
    train = Train.model_validate({"unfreeze": {"every": 3, "stages": 5}})
    assert [trainable_stages(train, 5, epoch) for epoch in range(0, 18, 3)] == [0, 1, 2, 3, 4, 4]


def test_a_resumed_trial_freezes_as_one_that_never_stopped() -> None:
    train = Train.model_validate({"unfreeze": {"every": 2}})
    resumed = make_net()
    apply(resumed.train(), train, 5, resumed.parameters())
    assert [p.requires_grad for p in resumed.stages[0].parameters()] == [False] * 4
    assert all(p.requires_grad for p in resumed.stages[1].parameters())


# ---------------------------------------------------------------- norms


def statistics(net: Network) -> list[Tensor]:
    return [layer.running_mean.clone() for layer in net.modules() if isinstance(layer, nn.BatchNorm2d)]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("fields", "still"),
    [({}, 0), ({"trainable": "head"}, 3), ({"trainable": 1}, 2), ({"freeze_norm": True}, 3)],
)
def test_frozen_norms_keep_their_statistics(fields: dict[str, Any], still: int) -> None:
    train, net = Train.model_validate(fields), make_net()
    before = statistics(net)
    epoch_of(net, train, 0, make_optimizer(train, net))
    same = [torch.equal(*pair) for pair in zip(before, statistics(net), strict=True)]
    assert same == [True] * still + [False] * (3 - still)


def test_freeze_norm_keeps_the_weights_of_norms_but_not_of_convolutions() -> None:
    train, net = Train(freeze_norm=True), make_net()
    before = {name: value.detach().clone() for name, value in net.named_parameters()}
    epoch_of(net, train, 0, make_optimizer(train, net))
    moved = {name for name, value in net.named_parameters() if not torch.equal(value, before[name])}
    assert {name.split(".")[2] for name in moved if name.startswith("body")} == {"0"}  # the convolution of each stage


def test_a_frozen_body_gives_the_same_features_in_training_as_in_use() -> None:
    net, images = make_net(), torch.randn(4, 3, 8, 8)
    net.train()
    apply(net, Train(trainable="head"), 0, net.parameters())
    assert torch.equal(net.features(images), net.eval().features(images))


# ---------------------------------------------------------------- features computed once


def whole(model: dict[str, Any] | None = None, train: dict[str, Any] | None = None, **data: Any) -> TrialConfig:
    arch = {"name": "backbone", "arch": "squeezenet1_1", "weights": "some.pth"}
    return TrialConfig.model_validate(
        {
            "data": {"dataset": "digits", "normalize": "train", **data},
            "model": {**arch, **(model or {})},
            "train": {"trainable": "head", **(train or {})},
        }
    )


def test_features_can_be_kept_where_nothing_in_the_body_and_no_image_changes() -> None:
    assert can_cache(whole())
    assert can_cache(whole(train={"mixup": 0.2, "mix_p": 0.0}))


@pytest.mark.parametrize(
    "config",
    [
        whole(train={"trainable": "all"}),
        whole(train={"trainable": 1}),
        whole(train={"trainable": "all", "unfreeze": {"every": 1}}),
        whole(train={"mixup": 0.2}),
        whole(train={"cutmix": 1.0}),
        whole(augment="flip_crop"),
        whole(model={"weights": "none"}),
        TrialConfig.model_validate({"data": {"dataset": "digits"}, "train": {"trainable": "head"}}),
    ],
)
def test_else_they_cannot(config: TrialConfig) -> None:
    assert not can_cache(config)


@pytest.fixture(scope="module")
def net() -> Any:
    torch.manual_seed(0)
    return make_network(Backbone(arch="squeezenet1_1"), classes=3, in_channels=1, image_size=32)


def test_kept_features_are_those_of_each_image_and_computed_once(
    net: Any, make_images: Callable[..., Dataset], tmp_path: Path
) -> None:
    dataset, seen = make_images(size=32, train=10, validation=5), []

    def batch(index: Tensor) -> Tensor:
        seen.append(len(index))
        return torch.from_numpy(dataset.images[index.numpy()].copy()).permute(0, 3, 1, 2) / 255

    def ask(config: TrialConfig) -> Tensor:
        given: Any = {"precision": "fp32", "device": torch.device("cpu"), "root": tmp_path}
        return features_once(net, config, dataset, batch, **given).batch(torch.tensor([3, 12]))

    kept = ask(whole())
    with torch.no_grad():
        torch.testing.assert_close(kept, net.eval().features(batch(torch.tensor([3, 12]))))
    seen.clear()
    assert torch.equal(ask(whole()), kept) and torch.equal(ask(whole({"hidden": [8], "dropout": 0.5})), kept)
    assert seen == []
    assert len([*tmp_path.glob("features/*/features.npy")]) == 1


@pytest.mark.parametrize("change", ["weights", "normalisation", "precision", "rows", "images", "files"])
def test_what_changes_features_is_another_file(
    change: str, net: Any, make_images: Callable[..., Dataset], tmp_path: Path
) -> None:
    dataset = make_images(size=32, train=3, validation=2)

    def ask(data: Dataset, precision: Any = "fp32", **fields: Any) -> None:
        given = {"precision": precision, "device": torch.device("cpu"), "root": tmp_path}
        features_once(net, whole(**fields), data, lambda index: torch.zeros(len(index), 1, 32, 32), **given)

    ask(dataset)
    if change == "weights":
        with torch.no_grad():
            net.body.features[0].bias += 1
    different: dict[str, Callable[[], None]] = {
        "weights": lambda: ask(dataset),
        "normalisation": lambda: ask(dataset, normalize="imagenet"),
        "precision": lambda: ask(dataset, "bf16"),
        "rows": lambda: ask(make_images(size=32, train=4, validation=2)),
        "images": lambda: ask(Dataset(**{**dataset.__dict__, "fingerprint": "other"})),
        "files": lambda: ask(Dataset(**{**dataset.__dict__, "images": Streamed(["x"] * 5, 32, 1, "stretch", "key")})),
    }
    different[change]()
    assert len([*tmp_path.glob("features/*/features.npy")]) == 2


def test_images_of_neither_split_are_not_computed(
    net: Any, make_images: Callable[..., Dataset], tmp_path: Path
) -> None:
    whole_set = make_images(size=32, train=6, validation=3)
    part = Dataset(**{**whole_set.__dict__, "train": np.array([0, 4])})
    given: Any = {"precision": "fp32", "device": torch.device("cpu"), "root": tmp_path}
    found = features_once(net, whole(), part, lambda index: torch.ones(len(index), 1, 32, 32), **given)
    assert found.values.any(1).nonzero().flatten().tolist() == [0, 4, 6, 7, 8]


def test_what_came_frozen_stays_frozen_when_its_stage_learns() -> None:
    net, train = make_net(), Train.model_validate({"epochs": 6, "unfreeze": {"every": 1}})
    frozen = next(net.stages[0].parameters()).requires_grad_(False)
    learning = [p for p in net.parameters() if p is not frozen]
    for epoch in range(6):
        apply(net.train(), train, epoch, learning)
        assert not frozen.requires_grad
    assert all(p.requires_grad for p in learning)
