import sys
from functools import lru_cache
from types import ModuleType
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from tuner.errors import BadInput, Infeasible
from tuner.spec.backbones import TORCHVISION
from tuner.spec.model import Backbone
from tuner.training.backbone import BackboneNetwork, build
from tuner.training.networks import needs_two_images

SMALL = {"classes": 5, "in_channels": 3, "image_size": 32}
# One of each family: number of stages, and features.
FAMILIES = {
    "alexnet": (4, 4096),
    "convnext_tiny": (5, 768),
    "densenet121": (5, 1024),
    "efficientnet_b0": (5, 1280),
    "googlenet": (4, 1024),
    "inception_v3": (4, 2048),
    "maxvit_t": (6, 512),
    "mnasnet0_5": (5, 1280),
    "mobilenet_v2": (5, 1280),
    "mobilenet_v3_small": (6, 1024),
    "regnet_x_400mf": (5, 400),
    "resnet18": (5, 512),
    "shufflenet_v2_x0_5": (4, 1024),
    "squeezenet1_1": (4, 512),
    "swin_t": (5, 768),
    "vgg11": (6, 4096),
    "vit_b_32": (13, 768),
}


def on_meta(arch: str, image_size: int = 224, in_channels: int = 3, **fields: Any) -> BackboneNetwork:
    config = Backbone(arch=arch, **fields)
    with torch.device("meta"):
        return build(config, classes=5, in_channels=in_channels, image_size=image_size)


family = lru_cache(on_meta)


def test_the_names_are_torchvisions() -> None:
    from torchvision import models

    assert list(TORCHVISION) == models.list_models(module=models)


@pytest.mark.parametrize(("arch", "hint"), [("resnet81", "did you mean resnet18?"), ("llama", "such as resnet18")])
def test_a_name_that_is_not_there_meets_the_nearest(arch: str, hint: str) -> None:
    with pytest.raises(ValidationError, match="no classifier") as error:
        Backbone(arch=arch)
    assert hint in str(error.value)


@pytest.mark.parametrize("arch", FAMILIES)
def test_stages_and_head_hold_each_parameter_once(arch: str) -> None:
    net = family(arch)
    held = [id(p) for part in (*net.stages, net.head) for p in part.parameters()]
    assert sorted(held) == sorted(id(p) for p in net.parameters())
    assert len(net.stages) == FAMILIES[arch][0]


@pytest.mark.parametrize("arch", FAMILIES)
def test_features_go_through_the_head_to_the_classes(arch: str) -> None:
    net = family(arch)
    features = net.features(torch.empty(2, 3, 224, 224, device="meta"))
    assert features.shape == (2, FAMILIES[arch][1])
    assert net.head(features).shape == (2, 5)


@pytest.mark.parametrize("arch", ["resnet18", "mnasnet0_5", "squeezenet1_1"])
def test_the_body_computes_what_torchvision_does(arch: str) -> None:
    from torchvision.models import get_model

    theirs = get_model(arch, weights=None).eval()
    net = build(Backbone(arch=arch), **SMALL).eval()
    net.body.load_state_dict({n: v for n, v in theirs.state_dict().items() if n in net.body.state_dict()})
    last = [layer for layer in theirs.modules() if isinstance(layer, nn.Linear | nn.Conv2d)][-1]
    seen: list[torch.Tensor] = []
    last.register_forward_hook(lambda layer, given, made: seen.append(given[0]))
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        theirs(images)
        expected = seen[0].relu().mean((2, 3)) if seen[0].ndim == 4 else seen[0]
        torch.testing.assert_close(net.features(images), expected)


def test_forward_is_the_head_of_the_features() -> None:
    net = build(Backbone(arch="mobilenet_v3_small", hidden=(8,), dropout=0.5), **SMALL).eval()
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(net(images), net.head(net.features(images)))


def test_a_grey_image_is_seen_as_three_equal_channels() -> None:
    net = build(Backbone(arch="mobilenet_v3_small"), classes=5, in_channels=1, image_size=32).eval()
    grey = torch.randn(2, 1, 32, 32)
    assert torch.equal(net.features(grey), net.body(grey.repeat(1, 3, 1, 1)))


def test_hidden_layers_and_dropout_stand_before_the_output() -> None:
    net = on_meta("resnet18", hidden=(16, 8), dropout=0.25)
    assert [layer.out_features for layer in net.head.modules() if isinstance(layer, nn.Linear)] == [16, 8, 5]
    assert {layer.p for layer in net.head.modules() if isinstance(layer, nn.Dropout)} == {0.25}


@pytest.mark.parametrize("arch", ["mobilenet_v3_small", "vgg11", "squeezenet1_1", "googlenet"])
def test_no_dropout_is_left_but_the_one_that_was_asked_for(arch: str) -> None:
    assert not any(isinstance(layer, nn.Dropout) and layer.p for layer in on_meta(arch).modules())


def test_names_of_weights_do_not_depend_on_rates() -> None:
    plain, dropped = on_meta("efficientnet_b0"), on_meta("efficientnet_b0", dropout=0.3, stochastic_depth=0.5)
    assert plain.state_dict().keys() == dropped.state_dict().keys()


def test_stochastic_depth_rises_to_the_rate_of_the_last_block() -> None:
    from torchvision.ops import StochasticDepth

    net = on_meta("convnext_tiny", stochastic_depth=0.5)
    rates = [layer.p for layer in net.modules() if isinstance(layer, StochasticDepth)]
    assert rates == sorted(rates) and rates[0] == 0 and rates[-1] == 0.5
    own = [layer.p for layer in on_meta("convnext_tiny").modules() if isinstance(layer, StochasticDepth)]
    assert max(own) == pytest.approx(0.1)


def test_what_has_no_stochastic_depth_says_so() -> None:
    with pytest.raises(BadInput, match=r"model.stochastic_depth: resnet18 has no stochastic depth"):
        on_meta("resnet18", stochastic_depth=0.1)


@pytest.mark.parametrize(("arch", "side", "least"), [("inception_v3", 32, 75), ("vgg11", 31, 32), ("alexnet", 32, 63)])
def test_images_that_are_too_small_meet_the_smallest_side_that_is_not(arch: str, side: int, least: int) -> None:
    with pytest.raises(Infeasible, match=f"data.image_size: {least}$"):
        on_meta(arch, side)
    on_meta(arch, least)


@pytest.mark.parametrize(("arch", "side", "near"), [("vit_b_16", 90, 96), ("maxvit_t", 96, 224)])
def test_windows_and_patches_must_divide_the_side(arch: str, side: int, near: int) -> None:
    with pytest.raises(Infeasible, match=f"multiple of .*data.image_size: {near}$"):
        on_meta(arch, side)


def test_a_vision_transformer_takes_sides_of_its_patches() -> None:
    assert on_meta("vit_b_32", 64)(torch.empty(1, 3, 64, 64, device="meta")).shape == (1, 5)


@pytest.mark.parametrize(("side", "alone"), [(32, True), (64, False)])
def test_one_image_is_too_few_where_its_last_map_is_a_pixel(side: int, alone: bool) -> None:
    assert needs_two_images(Backbone(arch="resnet18"), classes=5, in_channels=3, image_size=side) == alone


# ---------------------------------------------------------------- timm


def test_without_timm_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(BadInput, match=r"timm:resnet10t needs the package timm(.|\n)*pip install timm"):
        on_meta("timm:resnet10t")


class Tiny(nn.Module):
    """As timm lays its networks out: a stem, `blocks`, a norm, and nothing as the head when num_classes is 0."""

    def __init__(self, drop_path_rate: float = 0.0) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 4))
        self.stem = nn.Conv2d(3, 4, 3)
        self.blocks = nn.ModuleList([nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)])
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Identity()
        self.rate = drop_path_rate

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = self.stem(images)
        for block in self.blocks:
            maps = block(maps)
        made: torch.Tensor = self.head(self.norm(maps).mean((2, 3)))
        return made


def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """timm's documented functions, for one network that has no argument img_size."""
    timm: Any = ModuleType("timm")
    timm.is_model = lambda name: name == "tiny"
    timm.list_models = lambda: ["tiny"]

    def create_model(name: str, pretrained: bool, num_classes: int, in_chans: int, **more: Any) -> nn.Module:
        assert (name, pretrained, num_classes, in_chans) == ("tiny", False, 0, 3)
        return Tiny(**more)

    timm.create_model = create_model
    monkeypatch.setitem(sys.modules, "timm", timm)


def test_a_network_of_timm_is_cut_at_its_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch)
    net = on_meta("timm:tiny", 16, stochastic_depth=0.3)
    assert net.parts == (("cls_token", "stem"), ("blocks.0",), ("blocks.1", "norm", "head"))
    assert net.body.rate == 0.3
    assert net(torch.empty(2, 3, 16, 16, device="meta")).shape == (2, 5)


def test_a_name_that_timm_does_not_know_meets_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch)
    with pytest.raises(BadInput, match="timm has no network 'tinny'; did you mean timm:tiny"):
        on_meta("timm:tinny", 16)


def test_what_does_not_fit_is_looked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from tuner.training import backbone

    backbone._find_features.cache_clear()
    tried: list[int] = []
    look = backbone._try

    def count(body: nn.Module, size: int) -> int | str:
        tried.append(size)
        return look(body, size)

    monkeypatch.setattr(backbone, "_try", count)
    for _ in range(2):
        with pytest.raises(Infeasible, match="or more"):
            backbone.count_features("alexnet", 32)
        assert tried.count(32) == 1
