import math
from typing import Any

import pytest
import torch
from torch import nn

from tuner.errors import Infeasible
from tuner.spec.model import Cnn
from tuner.spec.trial_config import KINDS
from tuner.training.cnn import ACTIVATIONS, MODELS, build, list_widths


def make(*, classes: int = 10, in_channels: int = 3, image_size: int = 16, **fields: Any) -> nn.Module:
    torch.manual_seed(0)
    return build(Cnn.model_validate(fields), classes=classes, in_channels=in_channels, image_size=image_size)


def names(model: nn.Module) -> list[str]:
    return [type(layer).__name__ for layer in model.children()]


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_every_kind_of_model_has_a_builder() -> None:
    assert set(MODELS) == set(KINDS["model"])


def test_layers_stand_in_the_order_conv_pool_norm_activation_dropout() -> None:
    assert names(make(depth=1, convs=2, dropout=0.1)) == [
        *("Conv2d", "BatchNorm2d", "ReLU"),
        *("Conv2d", "MaxPool2d", "BatchNorm2d", "ReLU", "Dropout2d"),
        *("AdaptiveAvgPool2d", "Flatten", "Dropout", "Linear"),
    ]


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_parameters_follow_from_depth_width_growth_and_kernel(depth: int) -> None:
    widths = [math.floor(6 * 1.5**i + 0.5) for i in range(depth)]
    convolutions = sum(a * b * 25 + 2 * b for a, b in zip([3, *widths[:-1]], widths, strict=True))
    assert count(make(depth=depth, width=6, growth=1.5, kernel=5)) == convolutions + widths[-1] * 10 + 10


def test_convolutions_of_a_block_keep_its_width() -> None:
    assert count(make(depth=1, width=8, convs=3)) == (3 + 8 + 8) * 8 * 9 + 3 * 16 + 90


def test_width_and_kernel_may_be_listed_for_each_block() -> None:
    convolutions = [m for m in make(depth=2, width=[5, 7], kernel=[3, 1]).modules() if isinstance(m, nn.Conv2d)]
    assert [(c.out_channels, c.kernel_size) for c in convolutions] == [(5, (3, 3)), (7, (1, 1))]


@pytest.mark.parametrize(("width", "growth", "expected"), [(5, 1.5, [5, 8, 11]), (3, 0.25, [3, 1, 1])])
def test_grown_widths_are_whole_and_at_least_one(width: int, growth: float, expected: list[int]) -> None:
    assert list_widths(Cnn.model_validate({"depth": 3, "width": width, "growth": growth})) == expected


@pytest.mark.parametrize(("padding", "side"), [("same", 16), ("valid", 14)])
def test_padding_decides_the_size_of_the_map(padding: str, side: int) -> None:
    model = make(depth=1, width=2, padding=padding, pool="none", head={"pool": "flatten"})
    assert count(model) == 3 * 2 * 9 + 4 + side * side * 2 * 10 + 10


@pytest.mark.parametrize(("norm", "bias"), [("none", 8), ("batch", 16)])
def test_convolutions_have_a_bias_only_without_norm(norm: str, bias: int) -> None:
    assert count(make(depth=1, width=8, norm=norm)) == 3 * 8 * 9 + bias + 90


def test_without_norm_maps_keep_their_scale_through_many_layers() -> None:
    images = torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    model = make(depth=1, width=64, convs=8, norm="none", pool="none")
    maps = nn.Sequential(*list(model.children())[:16])(images)
    assert 0.3 < maps.square().mean().item() < 3


@pytest.mark.parametrize(("pool", "layer"), [("max", "MaxPool2d"), ("average", "AvgPool2d"), ("none", None)])
def test_pool_halves_the_map_or_keeps_it(pool: str, layer: str | None) -> None:
    model = make(depth=1, width=2, pool=pool, head={"pool": "flatten"})
    assert (layer is None) or (layer in names(model))
    assert (
        model.get_submodule(str(len(list(model.children())) - 1)).in_features == 2 * (16 if layer is None else 8) ** 2
    )


def test_each_activation_gives_other_logits() -> None:
    images = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    logits = [make(activation=name)(images).flatten().tolist() for name in ACTIVATIONS]
    assert set(ACTIVATIONS) == {"relu", "leaky_relu", "gelu", "silu"}
    assert len({tuple(values) for values in logits}) == 4


def test_hidden_layers_stand_before_the_output() -> None:
    model = make(depth=1, width=8, head={"hidden": [20, 6]}, activation="gelu")
    assert names(model)[-5:] == ["Linear", "GELU", "Linear", "GELU", "Linear"]
    assert count(model) == 3 * 8 * 9 + 16 + (8 * 20 + 20) + (20 * 6 + 6) + (6 * 10 + 10)


def test_dropout_changes_outputs_only_in_training() -> None:
    model, images = make(dropout=0.5), torch.randn(4, 3, 16, 16)
    assert not torch.equal(model(images), model(images))
    assert torch.equal(model.eval()(images), model(images))


@pytest.mark.parametrize("fields", [{}, {"padding": "valid", "depth": 2}, {"pool": "none"}, {"norm": "none"}])
@pytest.mark.parametrize("channels", [1, 3])
def test_images_become_one_logit_a_class(fields: dict[str, Any], channels: int) -> None:
    model = make(classes=7, in_channels=channels, width=4, **fields)
    assert model(torch.zeros(2, channels, 16, 16)).shape == (2, 7)


@pytest.mark.parametrize(
    ("fields", "size", "message"),
    [
        (
            {"depth": 4},
            8,
            "model.depth 4 leaves no pixel of 8x8 images: each block halves the map; at most 3 blocks fit",
        ),
        (
            {"depth": 2, "padding": "valid", "kernel": 5, "pool": "none"},
            8,
            "without padding shrink the map; at most 1 block",
        ),
        (
            {"depth": 1, "padding": "valid", "kernel": 9},
            8,
            "shrink the map and each block halves the map; not one block",
        ),
        ({"depth": 9, "growth": 8, "pool": "none"}, 8, "model.width reaches 536,870,912 channels"),
    ],
)
def test_impossible_shapes_are_infeasible(fields: dict[str, Any], size: int, message: str) -> None:
    with pytest.raises(Infeasible, match=message):
        make(image_size=size, **fields)


def test_as_many_blocks_fit_as_the_message_says() -> None:
    assert make(depth=3, image_size=8)(torch.zeros(2, 3, 8, 8)).shape == (2, 10)
