import math
from typing import Any

import pytest
import torch
from torch import nn

from tuner.errors import Infeasible
from tuner.spec.model import Cnn
from tuner.training.cnn import Whiten, Whitened, build
from tuner.training.networks import ACTIVATIONS, Network


def make(*, classes: int = 10, in_channels: int = 3, image_size: int = 16, **fields: Any) -> Network:
    torch.manual_seed(0)
    return build(Cnn.model_validate(fields), classes=classes, in_channels=in_channels, image_size=image_size)


def leaves(model: nn.Module) -> list[nn.Module]:
    return [layer for layer in model.modules() if not any(layer.children()) and not isinstance(layer, nn.Identity)]


def names(model: nn.Module) -> list[str]:
    return [type(layer).__name__ for layer in leaves(model)]


def convolutions(model: nn.Module) -> list[nn.Conv2d]:
    return [layer for layer in leaves(model) if isinstance(layer, nn.Conv2d)]


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def first_block(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    maps: torch.Tensor = model.get_submodule("body.block1")(images)
    return maps


def pixels(channels: int = 3, size: int = 16, images: int = 2) -> torch.Tensor:
    return torch.randn(images, channels, size, size, generator=torch.Generator().manual_seed(0))


def block(width: int = 4, down: Any = "none", **fields: Any) -> dict[str, Any]:
    return {"width": width, "down": down if isinstance(down, dict) else {"name": down}, **fields}


# ---------------------------------------------------------------- blocks


def test_layers_stand_in_the_order_conv_pool_norm_activation_dropout() -> None:
    assert names(make(depth=1, convs=2, dropout=0.1)) == [
        *("Conv2d", "BatchNorm2d", "ReLU"),
        *("Conv2d", "MaxPool2d", "BatchNorm2d", "ReLU", "Dropout2d"),
        *("AdaptiveAvgPool2d", "Flatten", "Dropout", "Linear"),
    ]


def test_pooling_may_come_after_the_activation() -> None:
    assert names(make(depth=1, pool_first=False, dropout=0.1))[:5] == [
        *("Conv2d", "BatchNorm2d", "ReLU", "Dropout2d", "MaxPool2d")
    ]


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_parameters_follow_from_depth_width_growth_and_kernel(depth: int) -> None:
    widths = [math.floor(6 * 1.5**i + 0.5) for i in range(depth)]
    weights = sum(a * b * 25 + 2 * b for a, b in zip([3, *widths[:-1]], widths, strict=True))
    assert count(make(depth=depth, width=6, growth=1.5, kernel=5)) == weights + widths[-1] * 10 + 10


def test_convolutions_of_a_block_keep_its_width() -> None:
    assert count(make(depth=1, width=8, convs=3)) == (3 + 8 + 8) * 8 * 9 + 3 * 16 + 90


def test_width_and_kernel_may_be_listed_for_each_block() -> None:
    found = convolutions(make(depth=2, width=[5, 7], kernel=[3, 1]))
    assert [(c.out_channels, c.kernel_size) for c in found] == [(5, (3, 3)), (7, (1, 1))]


@pytest.mark.parametrize(("width", "growth", "expected"), [(5, 1.5, [5, 8, 11]), (3, 0.25, [3, 1, 1])])
def test_grown_widths_are_whole_and_at_least_one(width: int, growth: float, expected: list[int]) -> None:
    assert [c.out_channels for c in convolutions(make(depth=3, width=width, growth=growth))] == expected


def test_blocks_listed_or_counted_are_the_same_network() -> None:
    listed = make(blocks=[block(4, "max", convs=["separable"] * 2), block(8, "max", convs=["separable"] * 2)])
    assert str(listed) == str(make(depth=2, width=4, convs=2, kind="separable"))


def test_a_separable_convolution_is_depthwise_with_bias_then_pointwise_with_bias() -> None:
    model = make(depth=1, width=8, kind="separable")
    assert names(model)[:3] == ["Conv2d", "Conv2d", "MaxPool2d"]
    assert count(model) == (3 * 9 + 3) + (3 * 8 + 8) + 16 + 90


@pytest.mark.parametrize("kind", ["standard", "separable"])
def test_dilated_convolutions_keep_the_map_and_see_further(kind: str) -> None:
    model = make(blocks=[block(convs=[kind, kind], dilation=[1, 3])], norm="none", head={"pool": "flatten"})
    spread = [c for c in convolutions(model) if c.kernel_size == (3, 3)]
    assert [(c.dilation, c.padding) for c in spread] == [((1, 1), (1, 1)), ((3, 3), (3, 3))]
    assert model.features(pixels()).shape == (2, 4 * 16 * 16)


@pytest.mark.parametrize(("padding", "side"), [("same", 16), ("valid", 14)])
def test_padding_decides_the_size_of_the_map(padding: str, side: int) -> None:
    model = make(depth=1, width=2, padding=padding, down={"name": "none"}, head={"pool": "flatten"})
    assert count(model) == 3 * 2 * 9 + 4 + side * side * 2 * 10 + 10


@pytest.mark.parametrize(("norm", "bias"), [("none", 8), ("batch", 16), ("group", 16)])
def test_convolutions_have_a_bias_only_without_norm(norm: str, bias: int) -> None:
    assert count(make(depth=1, width=8, norm=norm)) == 3 * 8 * 9 + bias + 90


@pytest.mark.parametrize(("width", "groups"), [(64, 8), (24, 3), (20, 2), (17, 1), (4, 1)])
def test_groups_have_eight_channels_or_the_next_that_divide_the_width(width: int, groups: int) -> None:
    norm = next(
        layer for layer in make(depth=1, width=width, norm="group").modules() if isinstance(layer, nn.GroupNorm)
    )
    assert norm.num_groups == groups


# Zeros at the edges halve the maps over eight layers; nine weights of a depthwise filter hit their scale less well.
@pytest.mark.parametrize(("kind", "least"), [("standard", 0.3), ("separable", 0.1)])
def test_without_norm_maps_keep_their_scale_through_many_layers(kind: str, least: float) -> None:
    model = make(depth=1, width=64, convs=8, norm="none", down={"name": "none"}, kind=kind)
    assert least < first_block(model, pixels(images=8)).square().mean().item() < 3


def test_each_activation_gives_other_logits() -> None:
    logits = [make(activation=name)(pixels()).flatten().tolist() for name in ACTIVATIONS]
    assert set(ACTIVATIONS) == {"relu", "leaky_relu", "gelu", "silu"}
    assert len({tuple(values) for values in logits}) == 4


# ---------------------------------------------------------------- reductions


@pytest.mark.parametrize(
    ("down", "layers", "side"),
    [
        ({"name": "max"}, ["MaxPool2d"], 8),
        ({"name": "average"}, ["AvgPool2d"], 8),
        ({"name": "none"}, [], 16),
        ({"name": "strided"}, ["Conv2d", "BatchNorm2d", "ReLU"], 8),
        ({"name": "dilated", "dilation": 5}, ["Conv2d", "BatchNorm2d"], 8),
    ],
)
def test_a_block_ends_as_its_reduction_says(down: dict[str, Any], layers: list[str], side: int) -> None:
    model = make(blocks=[block(2, down)], pool_first=False, head={"pool": "flatten"})
    assert names(model)[3:-2] == layers
    assert model.features(pixels()).shape == (2, 2 * side * side)


@pytest.mark.parametrize(("dilation", "side", "left"), [(9, 32, 16), (5, 16, 8), (3, 8, 4)])
def test_a_dilated_reduction_has_a_bias_and_takes_twice_its_dilation_less_two(
    dilation: int, side: int, left: int
) -> None:
    model = make(
        image_size=side, blocks=[block(4, {"name": "dilated", "dilation": dilation})], head={"pool": "flatten"}
    )
    assert count(model) == (3 * 4 * 9 + 8) + (4 * 4 * 9 + 4 + 8) + left * left * 4 * 10 + 10


@pytest.mark.parametrize(("norm", "bias"), [("none", 4), ("batch", 8)])
def test_a_strided_reduction_has_a_bias_only_without_norm(norm: str, bias: int) -> None:
    assert count(make(blocks=[block(4, "strided")], norm=norm)) == (3 + 4) * 4 * 9 + 2 * bias + 50


def test_a_strided_reduction_rounds_up() -> None:
    model = make(image_size=9, blocks=[block(2, "strided")], head={"pool": "flatten"})
    assert model.features(pixels(size=9)).shape == (2, 2 * 25)


# ---------------------------------------------------------------- ways around, squeeze-excitation, whitening, identity


@pytest.mark.parametrize(("width", "around"), [(3, 0), (8, 3 * 8 + 16)])
def test_the_way_around_has_weights_only_where_the_width_changes(width: int, around: int) -> None:
    plain, residual = (make(depth=1, width=width, convs=2, residual=flag) for flag in (False, True))
    assert count(residual) - count(plain) == around


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_a_residual_block_adds_its_input_before_the_reduction(padding: str) -> None:
    model = make(depth=1, width=3, residual=True, norm="none", padding=padding)
    for convolution in convolutions(model):
        nn.init.zeros_(convolution.weight)
    images = pixels() if padding == "same" else pixels()[:, :, 1:-1, 1:-1]
    pooled = nn.functional.max_pool2d(images, 2).relu().mean((2, 3))
    assert torch.allclose(model.features(pixels()), pooled, atol=1e-6)


def test_stochastic_depth_grows_with_a_blocks_place_and_leaves_blocks_out_in_training_only() -> None:
    model = make(depth=2, width=3, growth=1, residual=True, stochastic_depth=0.4)
    rates = [layer.p for layer in leaves(model) if type(layer).__name__ == "StochasticDepth"]
    assert rates == [0.2, 0.4]
    one = make(depth=1, width=3, residual=True, norm="none", stochastic_depth=0.5)
    maps, around = pixels(images=64), nn.functional.max_pool2d(pixels(images=64), 2).relu()
    left_out = (first_block(one, maps) == around).all(dim=(1, 2, 3))
    assert 10 < left_out.sum() < 54
    assert not (first_block(one.eval(), maps) == around).all(dim=(1, 2, 3)).any()


def test_squeeze_excitation_multiplies_each_channel_of_a_block_by_a_number() -> None:
    plain, squeezed = make(depth=1, width=8), make(depth=1, width=8, squeeze=4)
    assert count(squeezed) - count(plain) == (8 * 2 + 2) + (2 * 8 + 8)
    squeezed.load_state_dict(plain.state_dict(), strict=False)
    before, after = first_block(plain.eval(), pixels()), first_block(squeezed.eval(), pixels())
    ratios = (after / before).flatten(2)
    assert torch.allclose(ratios.nan_to_num(0).amax(2), ratios.nan_to_num(1).amin(2), atol=1e-5)


def test_whitened_patches_are_uncorrelated_and_stand_beside_their_negatives() -> None:
    model = make(whiten=True)
    smooth = nn.functional.avg_pool2d(pixels(size=48, images=32), 3) * 3
    assert isinstance(model, Whitened)
    model.prepare(smooth)
    maps = next(layer for layer in model.modules() if isinstance(layer, Whiten))(smooth)
    assert maps.shape == (32, 24, 15, 15)
    assert torch.equal(maps[:, :12], -maps[:, 12:])
    flat = maps[:, :12].transpose(0, 1).flatten(1)
    assert torch.allclose(flat @ flat.T / flat.shape[1], torch.eye(12), atol=0.02)


def test_the_whitening_layer_never_learns_but_is_saved() -> None:
    model = make(whiten=True, depth=1, width=4)
    assert count(model) == 24 * 4 * 9 + 8 + 50
    assert "body.whiten.conv.weight" in model.state_dict()
    assert model.requires_grad_(True).stages == (model.get_submodule("body.block1"),)


def test_identity_convolutions_begin_by_handing_on_their_maps() -> None:
    fields: dict[str, Any] = {"depth": 1, "convs": 2, "norm": "none", "down": {"name": "none"}, "init": "identity"}
    for kind in ("standard", "separable"):
        maps = first_block(make(width=5, kind=kind, **fields), pixels())
        assert torch.equal(maps[:, :3], pixels().relu())
        assert maps[:, 3:].std() > 0


# ---------------------------------------------------------------- dropout


def places(**fields: Any) -> list[str]:
    model = make(image_size=32, **fields)
    return [name for name, layer in model.named_modules() if isinstance(layer, nn.Dropout | nn.Dropout2d)]


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        (["conv"], ["body.block1.conv1.drop", "body.block1.conv2.drop", "body.block2.conv1.drop"]),
        (["block"], ["body.block1.conv2.drop", "body.block2.conv1.drop"]),
        (["down"], ["body.block1.drop", "body.block2.conv1.drop"]),
        (["last"], ["body.block2.conv1.drop"]),
        (["head"], ["head.drop", "head.drop2"]),
        (
            ["conv", "block", "down", "last"],
            [f"body.{where}.drop" for where in ("block1.conv1", "block1.conv2", "block1", "block2.conv1")],
        ),
        ([], []),
    ],
)
def test_dropout_stands_where_it_is_asked_for_and_once(at: list[str], expected: list[str]) -> None:
    blocks = [block(4, "strided", convs=["standard"] * 2), block(4, "max")]
    found = places(blocks=blocks, dropout={"rate": 0.1, "at": at}, head={"hidden": [6, 5]})
    assert found == expected


def test_a_late_pool_has_a_dropout_of_its_own() -> None:
    found = places(depth=1, pool_first=False, dropout={"rate": 0.1, "at": ["block", "down"]})
    assert found == ["body.block1.conv1.drop", "body.block1.drop"]


def test_a_residual_block_drops_after_its_sum() -> None:
    assert places(depth=1, convs=2, residual=True, dropout=0.1) == ["body.block1.drop", "head.drop"]


def test_dropout_changes_outputs_only_in_training() -> None:
    model, images = make(dropout=0.5), pixels(images=4)
    assert not torch.equal(model(images), model(images))
    assert torch.equal(model.eval()(images), model(images))


# ---------------------------------------------------------------- head


def test_hidden_layers_stand_before_the_output() -> None:
    model = make(depth=1, width=8, head={"hidden": [20, 6]}, activation="gelu", dropout=0.1)
    assert names(model)[-7:] == ["Linear", "GELU", "Dropout", "Linear", "GELU", "Dropout", "Linear"]
    assert count(model) == 3 * 8 * 9 + 16 + (8 * 20 + 20) + (20 * 6 + 6) + (6 * 10 + 10)


@pytest.mark.parametrize(("norm", "extra"), [("batch", 8 * 12 + 24), ("none", 8 * 12 + 12)])
def test_a_projection_comes_before_the_pooling(norm: str, extra: int) -> None:
    plain, projected = make(depth=1, width=8, norm=norm), make(depth=1, width=8, norm=norm, head={"project": 12})
    assert count(projected) - count(plain) == extra + 4 * 10


@pytest.mark.parametrize("pool", ["average", "max", "flatten"])
def test_the_head_pools_or_flattens_the_last_map(pool: str) -> None:
    model = make(depth=1, width=4, norm="none", head={"pool": pool})
    maps = first_block(model, pixels())
    expected = {"average": maps.mean((2, 3)), "max": maps.amax((2, 3)), "flatten": maps.flatten(1)}[pool]
    assert torch.allclose(model.features(pixels()), expected)


# ---------------------------------------------------------------- what does not fit


@pytest.mark.parametrize(
    ("fields", "size", "message"),
    [
        (
            {"depth": 4},
            8,
            "model.depth 4 leaves no pixel of 8x8 images: each block halves the map; at most 3 blocks fit",
        ),
        (
            {"depth": 2, "padding": "valid", "kernel": 5, "down": {"name": "none"}},
            8,
            "without padding shrink the map; at most 1 block fits",
        ),
        (
            {"depth": 1, "padding": "valid", "kernel": 9},
            8,
            "shrink the map and each block halves the map; not one block",
        ),
        (
            {"blocks": [block(down={"name": "dilated", "dilation": d}) for d in (4, 2)]},
            8,
            "model.blocks lists 2, which leaves no pixel of 8x8 images: a dilated reduction takes 2 x dilation - 2 "
            "pixels; at most 1 block fits",
        ),
        ({"depth": 1, "width": 1, "norm": "group"}, 8, "model.norm group has nothing to compare where a block has 1"),
        ({"depth": 3, "whiten": True}, 8, "whitening takes a pixel and each block halves the map; at most 2 blocks"),
        ({"depth": 9, "growth": 8, "down": {"name": "none"}}, 8, "model.width reaches 536,870,912 channels"),
    ],
)
def test_impossible_shapes_are_infeasible(fields: dict[str, Any], size: int, message: str) -> None:
    with pytest.raises(Infeasible, match=message):
        make(image_size=size, **fields)


def test_as_many_blocks_fit_as_the_message_says() -> None:
    assert make(depth=3, image_size=8)(torch.zeros(2, 3, 8, 8)).shape == (2, 10)
    assert make(depth=2, image_size=8, whiten=True)(torch.zeros(2, 3, 8, 8)).shape == (2, 10)
