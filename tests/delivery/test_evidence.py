"""Where evidence is seen: against drawings whose place is known, against CAM by hand, in networks of all kinds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from tuner.delivery.about import About
from tuner.delivery.explaining.evidence import find_layer, grad_cam, list_layers, occlude
from tuner.delivery.explaining.explain import find_evidence, normalise
from tuner.delivery.model import Model, Shipped
from tuner.delivery.place import Place
from tuner.errors import BadInput
from tuner.spec.trial_config import TrialConfig
from tuner.training.datasets import open_dataset, prepare
from tuner.training.networks import make_network
from tuner.training.shapes import draw
from tuner.training.trainer import Trainer

CHANCE = 1 / 4


def small(**fields: Any) -> nn.Module:
    torch.manual_seed(0)
    config = TrialConfig.model_validate({"data": {"dataset": "shapes"}, "model": fields}).model
    return make_network(config, classes=3, in_channels=3, image_size=16).eval()


def noise(count: int = 2, side: int = 16) -> Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(1))


def scaled(maps: Tensor) -> NDArray[np.float32]:
    """From 0 to 1, each, as the library gives them."""
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return ((maps - low) / (high - low)).detach().numpy()


# ---------------------------------------------------------------- against drawings


class Drawn(NamedTuple):
    """A model that tells shapes apart, and images that it is right on, the box around each shape as a mask."""

    model: Model
    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    inside: NDArray[np.bool_]


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Drawn:
    config = TrialConfig.model_validate(
        {
            "data": {"dataset": "shapes", "images": 1200, "image_size": 32, "classes": 4},
            "model": {"name": "cnn", "depth": 3, "width": 16, "whiten": True},
            "train": {
                "epochs": 6, "batch_size": 32, "precision": "fp32", "optimizer": {"name": "adam", "lr": 0.01},
                "schedule": {"name": "onecycle"},
            },
        }
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HYPERTUNE_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        dataset = open_dataset(prepare(config.data, 0).folder, config.data, 0)
    trainer = Trainer(config, dataset)
    for _ in range(config.train.epochs):
        trainer.run_epoch()
    about = About(
        name="shapes", classes=dataset.classes, image_size=32, channels=3, resize="stretch", mean=dataset.mean,
        std=dataset.std, model=config.model, params=trainer.params,
    )  # fmt: skip
    network = Shipped(trainer.model, dataset.mean, dataset.std).eval()
    model = Model(about, Place(tmp_path_factory.mktemp("drawn"), "model"), network, torch.device("cpu"))
    pixels, labels, boxes = draw(config.data, 7, 200)
    right = model.logits(pixels).argmax(1) == labels
    rows = np.arange(32)
    across = (rows >= boxes[:, :1]) & (rows < boxes[:, 2:3])
    down = (rows >= boxes[:, 1:2]) & (rows < boxes[:, 3:])
    return Drawn(model, pixels[right], labels[right], (down[:, :, None] & across[:, None, :])[right])


def find(drawn: Drawn, method: Any, pixels: NDArray[np.uint8], targets: NDArray[np.int64]) -> NDArray[np.float32]:
    layer = find_layer(list_layers(drawn.model.network.network, normalise(drawn.model, pixels[:1])), "gradcam")
    return find_evidence(drawn.model, method, None if method == "occlusion" else layer, pixels, targets)[0]


def share_inside(evidence: NDArray[Any], inside: NDArray[np.bool_]) -> float:
    """Share of the evidence inside the boxes over the boxes' share of the area: 1 for evidence that lies anywhere."""
    return float(((evidence * inside).sum((1, 2)) / evidence.sum((1, 2)) / inside.mean((1, 2))).mean())


@pytest.mark.slow
@pytest.mark.parametrize("method", ["gradcam", "gradcam++", "occlusion"])
def test_the_evidence_lies_where_the_shape_was_drawn(method: str, drawn: Drawn) -> None:
    pixels, labels, inside = drawn.pixels[:40], drawn.labels[:40], drawn.inside[:40]
    assert len(pixels) == 40 and inside.mean() == pytest.approx(0.42, abs=0.02)  # so 2.4 is the most that is possible
    anywhere = np.random.default_rng(0).random(inside.shape)
    assert share_inside(find(drawn, method, pixels, labels), inside) > 1.25
    assert share_inside(anywhere, inside) == pytest.approx(1, abs=0.02)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "least"), [("gradcam", 0.45), ("gradcam++", 0.3), ("occlusion", 0.45)])
def test_of_four_shapes_the_evidence_lies_in_the_one_that_was_asked_for(
    method: str, least: float, drawn: Drawn
) -> None:
    """The grid pointing game (Boehle et al., 2021). Grad-CAM++ leaves out what speaks against a class: tells less."""
    each = [drawn.pixels[drawn.labels == label][:8] for label in range(4)]
    grids = np.concatenate([np.concatenate(each[:2], axis=2), np.concatenate(each[2:], axis=2)], axis=1)
    shares = []
    for label in range(4):
        evidence = find(drawn, method, grids, np.full(len(grids), label))
        quarters = evidence.reshape(len(grids), 2, 32, 2, 32).sum((2, 4)).reshape(len(grids), 4)
        shares.append((quarters[:, label] / quarters.sum(axis=1)).mean())
    assert np.mean(shares) > least > CHANCE


# ---------------------------------------------------------------- by hand


def test_grad_cam_is_cam_where_average_pooling_and_one_layer_follow() -> None:
    network, images, targets = small(name="cnn", depth=2, width=8, down={"name": "none"}), noise(), np.array([2, 0])
    layer = find_layer(list_layers(network, images[:1]), "gradcam")
    weights = network.get_submodule("head.output").weight[torch.from_numpy(targets)]  # type: ignore[index]
    cam = torch.einsum("nc,nchw->nhw", weights, layer.module(network.get_submodule("body.block1")(images))).relu()
    assert layer.name == "block2" and layer.even
    np.testing.assert_allclose(grad_cam(network, images, targets, layer), scaled(cam), atol=1e-5)


class WritesInto(nn.Module):
    """What follows the convolution writes into its output, as torchvision's DenseNet does."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.output = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 3)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.output(F.relu(self.conv(images), inplace=True).mean((2, 3)))
        return logits


def test_maps_are_read_before_the_next_layer_writes_into_them() -> None:
    torch.manual_seed(0)
    network, images = WritesInto().eval(), noise()
    maps = network.conv(images)
    weights = ((maps > 0).float() * network.output.weight[1].view(1, 4, 1, 1)).mean((2, 3))
    by_hand = scaled(torch.einsum("nc,nchw->nhw", weights, maps).relu())
    layer = find_layer(list_layers(network, images[:1]), "gradcam")
    np.testing.assert_allclose(grad_cam(network, images, np.array([1, 1]), layer), by_hand, atol=1e-5)


class Bright(nn.Module):
    """The log-odds of class 1 are the sum of the pixels."""

    def forward(self, images: Tensor) -> Tensor:
        total = images.sum((1, 2, 3))
        return torch.stack([torch.zeros_like(total), total], 1)


def test_occlusion_is_how_far_the_log_odds_fall() -> None:
    images = torch.zeros(1, 3, 16, 16)
    images[0, :, 9, 5] = 20  # so that class 1 has a probability of 1, as far as float32 goes
    found = occlude(Bright(), images / 3, np.array([1]))[0]
    assert found[9, 5] == pytest.approx(20, rel=1e-3) == found.max()
    assert not found[:5].any() and not found[:, 10:].any()  # no square of 4 pixels that hides it reaches there
    np.testing.assert_allclose(occlude(Bright(), images / 3, np.array([0]))[0], -found, rtol=1e-3)


# ---------------------------------------------------------------- which layer


@pytest.mark.parametrize(
    ("fields", "name", "side"),
    [
        ({"name": "cnn", "depth": 2, "width": 4}, "block2", 4),
        ({"name": "cnn", "depth": 4, "width": 4, "pool_first": False}, "block4.conv1", 2),  # block4 ends with one pixel
        ({"name": "cnn", "depth": 2, "width": 4, "head": {"project": 6}}, "project", 4),
        ({"name": "resnet", "depth": 8, "width": 4}, "stage3", 4),
        ({"name": "densenet", "depth": 10, "growth": 4}, "block3", 4),
        ({"name": "inception", "depth": 3, "width": 8}, "stage3", 4),
    ],
)
def test_evidence_is_read_from_the_last_maps_larger_than_a_pixel(fields: Any, name: str, side: int) -> None:
    layer = find_layer(list_layers(small(**fields), noise(1)), "gradcam")
    assert (layer.name, layer.side) == (name, side)


class Tokens(nn.Module):
    """A small vision transformer: patches of 4 pixels, a class token before them, two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.first = nn.Conv2d(3, 8, 4, 4), nn.Parameter(torch.randn(1, 1, 8))
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True) for _ in "ab"
        )
        self.output = nn.Linear(8, 3)

    def forward(self, images: Tensor) -> Tensor:
        tokens = torch.cat([self.first.expand(len(images), 1, 8), self.patches(images).flatten(2).transpose(1, 2)], 1)
        for layer in self.layers:
            tokens = layer(tokens)
        logits: Tensor = self.output(tokens[:, 0])
        return logits


class Last(nn.Module):
    """Maps with their channels last, as Swin has them."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.mix, self.output = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.output(self.mix(self.patches(images).permute(0, 2, 3, 1)).mean((1, 2)))
        return logits


class Stretched(nn.Module):
    """One pixel, brought back to 7 x 7 by the pool, as VGG does with small images."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.down, self.pool = nn.Conv2d(3, 8, 4, 4), nn.MaxPool2d(4), nn.AdaptiveAvgPool2d(7)
        self.output = nn.Linear(8 * 49, 3)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.output(self.pool(self.down(self.conv(images))).flatten(1))
        return logits


@pytest.mark.parametrize(
    ("make", "name"), [(Tokens, "layers.1.norm1"), (Last, "mix"), (Stretched, "conv")], ids=["tokens", "last", "pooled"]
)
def test_maps_of_other_forms_are_found(make: Callable[[], nn.Module], name: str) -> None:
    torch.manual_seed(0)
    network = make().eval()
    layer = find_layer(list_layers(network, noise(1)), "gradcam")
    found = grad_cam(network, noise(), np.array([0, 1]), layer)
    assert (layer.name, layer.side) == (name, 4) and found.shape == (2, 16, 16) and found.max() > 0.9


def test_a_network_without_maps_is_sent_to_occlusion() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(768, 16), nn.ReLU(), nn.Linear(16, 3)).eval()
    with pytest.raises(BadInput, match="--method occlusion"):
        find_layer(list_layers(network, noise(1)), "gradcam")
    assert occlude(network, noise(), np.array([0, 1])).shape == (2, 16, 16)


def test_looking_leaves_the_network_as_it_was(model: Model) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    before, network = model.logits(pixels), model.network.network
    layer = find_layer(list_layers(network, normalise(model, pixels[:1])), "gradcam")
    grad_cam(network, normalise(model, pixels), np.array([0, 1]), layer)
    assert np.array_equal(model.logits(pixels), before)
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not any(part._forward_hooks for part in network.modules())
