from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest

from tuner.errors import BadInput, Infeasible
from tuner.spec.train import AnyOptimizer
from tuner.spec.trial_config import TrialConfig
from tuner.training import cost
from tuner.training.cost import STATE, Cost, count, measure_epoch_seconds
from tuner.training.dataset import Dataset
from tuner.training.memory import MIB
from tuner.training.trainer import Trainer

Configure = Callable[..., TrialConfig]


def of(config: TrialConfig, size: int = 8, channels: int = 1) -> Cost:
    return count(config, classes=3, image_size=size, channels=channels)


def configured(model: dict[str, Any], **train: Any) -> TrialConfig:
    return TrialConfig.model_validate({"data": {"dataset": "digits"}, "model": model, "train": train})


def test_parameters_and_multiply_adds_are_those_of_a_hand_count(configure: Configure) -> None:
    made = of(configure(model={"depth": 2, "width": 4, "convs": 2, "head": {"hidden": [5]}}))
    weights = [1 * 4 * 9, 4 * 4 * 9, 4 * 8 * 9, 8 * 8 * 9]
    assert made.params == sum(weights) + 2 * (4 + 4 + 8 + 8) + (8 * 5 + 5) + (5 * 3 + 3)
    assert made.multiply_adds == 64 * sum(weights[:2]) + 16 * sum(weights[2:]) + 8 * 5 + 5 * 3


def test_separable_dilated_and_strided_convolutions_are_counted_as_they_compute() -> None:
    blocks = [{"width": 4, "convs": ["separable"], "down": {"name": "strided"}}]
    blocks.append({"width": 6, "dilation": 2, "down": {"name": "dilated", "dilation": 2}})
    expected = 64 * (1 * 9 + 1 * 4) + 16 * 4 * 4 * 9 + 16 * 4 * 6 * 9 + 4 * 6 * 6 * 9 + 6 * 3
    assert of(configured({"name": "cnn", "blocks": blocks})).multiply_adds == expected


def test_attention_is_counted() -> None:
    config = configured({"name": "backbone", "arch": "vit_b_16"})
    tokens, width = (224 // 16) ** 2 + 1, 768
    projections = 12 * tokens * (4 + 8) * width**2
    attention = 12 * 2 * tokens**2 * width
    patches = (tokens - 1) * 3 * 16 * 16 * width
    assert of(config, size=224, channels=3).multiply_adds == projections + attention + patches + width * 3


def test_the_counted_parameters_are_those_trained(configure: Configure, make_images: Callable[..., Dataset]) -> None:
    config = configure(model={"depth": 2, "dropout": 0.1})
    assert of(config).params == Trainer(config, make_images()).params


def test_a_model_that_does_not_fit_is_infeasible(configure: Configure) -> None:
    with pytest.raises(Infeasible, match="at most 3 blocks fit"):
        of(configure(model={"depth": 4}))


def test_a_batch_of_one_that_batch_norm_cannot_take_is_infeasible(configure: Configure) -> None:
    with pytest.raises(Infeasible, match=r"train\.batch_size 1 gives batch normalisation one value"):
        of(configure(model={"depth": 3}, train={"batch_size": 1}))


@pytest.mark.parametrize("width", [60_000, 30_000])
def test_a_huge_model_is_counted_without_memory(configure: Configure, width: int) -> None:
    assert of(configure(model={"depth": 2, "width": width, "growth": 1.0})).params > 8e9


@pytest.mark.parametrize("model", [{"name": "cnn", "residual": True}, {"name": "resnet"}, {"name": "densenet"}])
def test_models_that_differ_in_a_rate_are_counted_once(model: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    of(configured(model))
    monkeypatch.setattr(cost, "make_network", None)
    rates = {"dropout": 0.5} | ({} if model["name"] == "densenet" else {"stochastic_depth": 0.2})
    assert of(configured(model | rates)) == of(configured(model))


# ---------------------------------------------------------------- memory


def test_every_optimiser_says_what_it_keeps() -> None:
    assert set(STATE) == {kind.model_fields["name"].default for kind in get_args(AnyOptimizer)}


def weights_mb(**train: Any) -> float:
    """Memory that does not depend on the batch, of a ResNet."""
    one, two = (of(configured({"name": "resnet"}, batch_size=n, **train), size=32).memory_mb for n in (400, 800))
    return 2 * one - two


def test_what_learns_has_gradients_and_optimiser_state_and_an_average_is_a_copy_of_all() -> None:
    mb = 4 * of(configured({"name": "resnet"})).params / MIB
    assert weights_mb(optimizer={"name": "adam"}) == pytest.approx(4 * mb)
    assert weights_mb(optimizer={"name": "adagrad"}) == pytest.approx(3 * mb)
    assert weights_mb(optimizer={"name": "adam"}, ema=0.99) == pytest.approx(5 * mb)
    assert weights_mb(optimizer={"name": "adam"}, trainable="head") == pytest.approx(mb + 3 * 4 * (64 * 3 + 3) / MIB)


def maps_mb(**train: Any) -> float:
    """Memory of an image's maps, of a small ResNet."""
    network = {"name": "resnet", "depth": 8, "width": 4}
    one, two = (of(configured(network, batch_size=n, **train), size=32).memory_mb for n in (400, 401))
    return two - one


def test_only_stages_that_learn_keep_their_maps() -> None:
    kept = [maps_mb(trainable=stages) for stages in (1, 2, 4)]
    assert kept[0] < kept[1] < kept[2] == pytest.approx(maps_mb())
    assert maps_mb(trainable=99) == pytest.approx(maps_mb())
    assert maps_mb(unfreeze={"every": 1, "stages": 3}) == pytest.approx(kept[1])


def test_the_largest_map_needs_memory_even_if_only_the_head_learns() -> None:
    assert maps_mb(trainable="head") == pytest.approx(2 * 4 * (4 * 32 * 32) / MIB)


def test_validation_of_many_images_can_need_more_than_training_on_few() -> None:
    network = {"name": "resnet", "depth": 8, "width": 4}
    one, two = (of(configured(network, batch_size=n), size=96).memory_mb for n in (1, 2))
    assert one == pytest.approx(two)
    assert one > 2 * 113 * 4 * (4 * 96 * 96) / MIB


def test_a_head_without_weights_cannot_learn_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "from torch import nn\n\ndef flat(classes, in_channels, image_size):\n"
    code += "    return nn.Sequential(nn.Flatten(), nn.Linear(in_channels * image_size**2, classes))\n"
    (tmp_path / "a_users_flat_net.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    model = {"name": "a_users_flat_net:flat"}
    assert of(configured(model)).params == 64 * 3 + 3
    with pytest.raises(BadInput, match=r"train\.trainable: the head of a_users_flat_net:flat has no parameters"):
        of(configured(model, trainable="head"))
    with pytest.raises(BadInput, match=r"train\.unfreeze: the head"):
        of(configured(model, unfreeze={"every": 1}))


# ---------------------------------------------------------------- seconds


def test_seconds_grow_with_the_images(configure: Configure, make_images: Callable[..., Dataset]) -> None:
    few, many = make_images(train=64, validation=16), make_images(train=64_000, validation=16_000)
    assert 0 < measure_epoch_seconds(configure(), few) < measure_epoch_seconds(configure(), many)
