"""The contract of all networks, and what the small families are by the hand counts of their papers."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from torch import nn

from tuner.errors import Infeasible
from tuner.spec.model import AnyModel
from tuner.spec.trial_config import KINDS
from tuner.training.networks import MODELS, chain, counting_device, make_network, needs_two_images, without_rates

EVERYTHING = {
    "name": "cnn",
    "blocks": [
        {"width": 6, "convs": ["standard", "separable"], "dilation": [1, 2], "down": {"name": "strided"}},
        {"width": 16, "kernel": 5, "down": {"name": "dilated", "dilation": 2}},
        {"width": 16, "down": {"name": "none"}},
    ],
    "norm": "group",
    "activation": "silu",
    "residual": True,
    "squeeze": 4,
    "whiten": True,
    "init": "identity",
    "head": {"project": 8, "pool": "flatten", "hidden": [12]},
    "dropout": {"at": ["conv", "down", "head"]},
}
SECTIONS: dict[str, dict[str, Any]] = {
    "cnn": {"name": "cnn", "width": 4},
    "cnn with everything": EVERYTHING,
    "cnn without norm": {"name": "cnn", "depth": 2, "convs": 2, "norm": "none", "down": {"name": "average"}},
    "resnet": {"name": "resnet", "depth": 8, "width": 4},
    "densenet": {"name": "densenet", "depth": 10, "growth": 4},
    "inception": {"name": "inception", "depth": 4, "width": 10},
    "backbone": {"name": "backbone", "arch": "resnet18"},
    "user": {"name": "nets_of_a_user:plain", "width": 4},
    "user with stages": {"name": "nets_of_a_user:Staged", "width": 4},
}
RATES: dict[str, dict[str, Any]] = {
    **{name: {"dropout": 0.5} for name in ("cnn", "cnn without norm", "densenet", "inception", "backbone")},
    "cnn with everything": {"dropout": {"rate": 0.5, "at": ["conv", "down", "head"]}, "stochastic_depth": 0.2},
    "resnet": {"dropout": 0.5, "stochastic_depth": 0.2},
}
CASES = [(name, channels, size) for name in SECTIONS for channels in (1, 3) for size in (8, 32)]
NETS_OF_A_USER = """
from torch import nn

def plain(classes, in_channels, image_size, width=8):
    first = nn.Linear(in_channels * image_size**2, width)
    return nn.Sequential(nn.Flatten(), first, nn.ReLU(), nn.Linear(width, classes))

class Staged(nn.Module):
    def __init__(self, *, classes, in_channels, image_size, **arguments):
        super().__init__()
        self.first = nn.Sequential(nn.Flatten(), nn.Linear(in_channels * image_size**2, arguments["width"]), nn.ReLU())
        self.stages, self.head = (self.first,), nn.Linear(arguments["width"], classes)

    def features(self, images):
        return self.first(images)

    def forward(self, images):
        return self.head(self.features(images))
"""


@pytest.fixture(autouse=True)
def nets_of_a_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A module of the user's own that can be imported."""
    folder: Path = tmp_path_factory.mktemp("user")
    (folder / "nets_of_a_user.py").write_text(NETS_OF_A_USER)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield


def section(name: str, **fields: Any) -> AnyModel:
    config: AnyModel = TypeAdapter(AnyModel).validate_python(SECTIONS[name] | fields)
    return config


def make(config: AnyModel, channels: int = 3, size: int = 8) -> Any:
    torch.manual_seed(0)
    return make_network(config, classes=5, in_channels=channels, image_size=size)


def pixels(channels: int, size: int) -> torch.Tensor:
    return torch.randn(4, channels, size, size, generator=torch.Generator().manual_seed(0))


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


# ---------------------------------------------------------------- the contract


def test_every_kind_of_model_has_a_builder() -> None:
    assert set(MODELS) == {*KINDS["model"], "user"}


@pytest.mark.parametrize(("name", "channels", "size"), CASES)
def test_images_become_one_logit_a_class_through_flat_features(name: str, channels: int, size: int) -> None:
    network, images = make(section(name), channels, size).eval(), pixels(channels, size)
    features = network.features(images)
    assert features.ndim == 2
    assert network(images).shape == (4, 5)
    assert torch.equal(network.head(features), network(images))


@pytest.mark.parametrize("name", SECTIONS)
def test_stages_and_head_hold_each_parameter_once(name: str) -> None:
    network = make(section(name))
    held = Counter(id(p) for part in (*network.stages, network.head) for p in part.parameters())
    assert held == Counter(id(p) for p in network.parameters())
    assert all(isinstance(part, nn.Module) and any(True for _ in part.parameters()) for part in network.stages)


@pytest.mark.parametrize("name", SECTIONS)
def test_stages_run_from_the_input_to_the_head(name: str) -> None:
    network, order = make(section(name)), []
    for number, part in enumerate((*network.stages, network.head)):
        for layer in part.modules():
            if any(True for _ in layer.parameters(recurse=False)):
                layer.register_forward_hook(lambda layer, given, made, number=number: order.append(number))
    network(pixels(3, 8))
    assert order == sorted(order)
    assert len({*order}) >= len(network.stages)


@pytest.mark.parametrize(("name", "channels", "size"), CASES)
def test_every_parameter_that_learns_gets_a_gradient(name: str, channels: int, size: int) -> None:
    network = make(section(name), channels, size)
    network(pixels(channels, size)).logsumexp(1).sum().backward()
    assert [n for n, p in network.named_parameters() if p.requires_grad and p.grad is None] == []


@pytest.mark.parametrize("name", RATES)
def test_names_and_first_weights_do_not_depend_on_rates(name: str) -> None:
    without, dropping = make(section(name)), make(section(name, **RATES[name]))
    assert [n for n, _ in without.named_modules()] == [n for n, _ in dropping.named_modules()]
    assert without.state_dict().keys() == dropping.state_dict().keys()
    assert all(torch.equal(a, b) for a, b in zip(without.parameters(), dropping.parameters(), strict=True))
    assert not torch.equal(without.train()(pixels(3, 8)), dropping.train()(pixels(3, 8)))


@pytest.mark.parametrize(("name", "channels", "size"), CASES)
def test_without_memory_the_same_network_is_built(name: str, channels: int, size: int) -> None:
    config = section(name)
    with counting_device(config):
        counted = make_network(without_rates(config), classes=5, in_channels=channels, image_size=size)
    built = make(config, channels, size)
    shapes = [{n: v.shape for n, v in network.state_dict().items()} for network in (counted, built)]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("name", SECTIONS)
def test_two_networks_of_a_seed_are_the_same(name: str) -> None:
    first, second = make(section(name)), make(section(name))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


# ---------------------------------------------------------------- one value


@pytest.mark.parametrize(
    ("name", "fields", "size", "expected"),
    [
        ("cnn", {"depth": 3}, 8, True),
        ("cnn", {"depth": 3}, 16, False),
        ("cnn", {"depth": 3, "norm": "none"}, 8, False),
        ("cnn", {"depth": 3, "norm": "group"}, 8, False),
        ("cnn", {"depth": 3, "pool_first": False}, 8, False),
        ("resnet", {}, 4, True),
        ("resnet", {}, 8, False),
        ("densenet", {}, 4, True),
        ("inception", {}, 4, True),
        ("backbone", {}, 32, True),
        ("user", {}, 8, False),
    ],
)
def test_a_batch_of_one_is_refused_exactly_where_training_would_fail(
    name: str, fields: dict[str, Any], size: int, expected: bool
) -> None:
    config = section(name, **fields)
    assert needs_two_images(config, classes=5, in_channels=3, image_size=size) is expected
    network, fails = make(config, size=size).train(), False
    try:
        network(pixels(3, size)[:1])
    except ValueError as error:
        fails = "more than 1 value per channel" in str(error)
    assert fails is expected


# ---------------------------------------------------------------- parts


def test_chained_parts_of_one_name_are_numbered() -> None:
    parts = chain([(name, nn.Identity()) for name in ("act", "drop", "act", "act", "conv1", "conv2")])
    assert [name for name, _ in parts.named_children()] == ["act", "drop", "act2", "act3", "conv1", "conv2"]


# ---------------------------------------------------------------- small families


def resnet(depth: int, width: int) -> int:
    """By hand: 3x3 convolutions and two numbers a channel of each norm; the way around has no parameters."""
    each, total, channels = (depth - 2) // 6, 3 * width * 9 + 2 * width, width
    for number in range(3):
        out = width * 2**number
        total += channels * out * 9 + (2 * each - 1) * out * out * 9 + 2 * each * 2 * out
        channels = out
    return total + channels * 10 + 10


def densenet(depth: int, growth: int, compression: float) -> int:
    """By hand: a layer is norm, 1x1 to 4 x growth, norm, 3x3 to growth; a transition is norm and 1x1."""
    channels = 2 * growth
    total = 3 * channels * 9
    for number in range(3):
        for _ in range((depth - 4) // 6):
            total += 2 * channels + channels * 4 * growth + 8 * growth + 4 * growth * growth * 9
            channels += growth
        total += 2 * channels
        if number < 2:
            kept = int(channels * compression)
            total, channels = total + channels * kept, kept
    return total + channels * 10 + 10


def params(**fields: Any) -> int:
    config: AnyModel = TypeAdapter(AnyModel).validate_python(fields)
    with torch.device("meta"):
        return count(make_network(config, classes=10, in_channels=3, image_size=32))


@pytest.mark.parametrize(("depth", "width", "published"), [(20, 16, 0.27e6), (56, 16, 0.85e6), (8, 12, None)])
def test_resnets_have_the_parameters_of_the_paper(depth: int, width: int, published: float | None) -> None:
    made = params(name="resnet", depth=depth, width=width)
    assert made == resnet(depth, width)
    assert published is None or made == pytest.approx(published, rel=0.02)


def test_resnet_20_has_269_722_parameters() -> None:
    assert params(name="resnet") == 269_722


@pytest.mark.parametrize(
    ("depth", "growth", "compression", "published"), [(100, 12, 0.5, 0.8e6), (40, 12, 0.5, None), (10, 5, 0.7, None)]
)
def test_densenets_have_the_parameters_of_the_paper(
    depth: int, growth: int, compression: float, published: float | None
) -> None:
    made = params(name="densenet", depth=depth, growth=growth, compression=compression)
    assert made == densenet(depth, growth, compression)
    assert published is None or made == pytest.approx(published, rel=0.05)


@pytest.mark.parametrize(("depth", "sides"), [(1, [16]), (2, [16, 8]), (3, [16, 8, 4]), (7, [16, 16, 16, 8, 8, 4, 4])])
def test_inception_halves_its_map_and_doubles_its_width_between_thirds(depth: int, sides: list[int]) -> None:
    network, shapes = make(section("inception", depth=depth, width=10), size=16), []
    for layer in network.modules():
        if type(layer).__name__ == "Module":
            layer.register_forward_hook(lambda layer, given, made: shapes.append(made.shape[1:3]))
    network(pixels(3, 16))
    assert [tuple(shape) for shape in shapes] == [(10 * 16 // side, side) for side in sides]


def test_an_inception_network_is_small_at_its_defaults() -> None:
    assert 100_000 < params(name="inception") < 1_000_000


def test_stochastic_depth_of_a_resnet_grows_evenly_from_block_to_block() -> None:
    network = make(section("resnet", depth=14, stochastic_depth=0.6))
    rates = [layer.p for layer in network.modules() if type(layer).__name__ == "StochasticDepth"]
    assert rates == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])


def test_the_way_around_of_a_resnet_takes_every_second_pixel() -> None:
    network = make(section("resnet", width=2))
    block = network.get_submodule("body.stage2.block1.residual")
    for layer in block.branch.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.zeros_(layer.weight)
    maps = torch.rand(1, 2, 5, 5)
    made = block(maps)
    assert torch.equal(made[:, :2], maps[:, :, ::2, ::2])
    assert not made[:, 2:].any()


def test_images_too_small_for_a_densenet_are_infeasible() -> None:
    with pytest.raises(Infeasible, match="3x3 images leave no pixel; at least 4x4 fit"):
        make(section("densenet"), size=3)


@pytest.mark.parametrize("name", ["resnet", "densenet", "inception"])
def test_the_activation_of_a_family_is_the_one_asked_for(name: str) -> None:
    network = make(section(name, activation="gelu"))
    kinds = {type(layer) for layer in network.modules()}
    assert nn.GELU in kinds
    assert nn.ReLU not in kinds
