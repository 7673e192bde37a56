import hashlib
import json
import math
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tuner.errors import BadInput
from tuner.spec.model import Backbone, Cnn
from tuner.spec.trial_config import TrialConfig
from tuner.training import checkpoint, weights
from tuner.training.networks import make_network

ARCH = "squeezenet1_1"  # of all that torchvision has the one with the fewest tensors
SHAPE = {"classes": 3, "in_channels": 3, "image_size": 32}


def published(arch: str = ARCH) -> dict[str, Tensor]:
    from torchvision.models import get_model

    torch.manual_seed(1)
    return dict(get_model(arch, weights=None).state_dict())


def network(**fields: Any) -> tuple[Any, Backbone]:
    config = Backbone(**{"arch": ARCH, **fields})
    torch.manual_seed(2)
    return make_network(config, **SHAPE), config


def whole(**fields: Any) -> TrialConfig:
    data = {"dataset": "digits", **fields.pop("data", {})}
    return TrialConfig.model_validate({"data": data, "model": {"name": "backbone", "arch": ARCH, **fields}})


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HYPERTUNE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def offer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of weights that is published under a name with its hash, as torchvision's are."""
    torch.save(published(), tmp_path / "new.pth")
    digest = hashlib.sha256((tmp_path / "new.pth").read_bytes()).hexdigest()
    path = (tmp_path / "new.pth").rename(tmp_path / f"squeezenet1_1-{digest[:8]}.pth")
    monkeypatch.setattr(weights, "find_url", lambda arch: path.as_uri())
    return path


# ---------------------------------------------------------------- files


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pth"])
def test_a_file_fills_the_body_and_leaves_the_head_new(name: str, tmp_path: Path) -> None:
    given = published()
    save_file(given, tmp_path / name) if name.endswith("safetensors") else torch.save(given, tmp_path / name)
    net, config = network(weights=str(tmp_path / name))
    head = net.head.output.weight.clone()
    notes = weights.load_into(net, config)
    assert torch.equal(net.body.features[0].weight, given["features.0.weight"])
    assert torch.equal(net.head.output.weight, head)
    assert str(tmp_path / name) in notes[0] and "classifier.1.weight (1000, 512, 1, 1)" in notes[1]


def test_none_and_networks_of_our_own_start_at_random() -> None:
    net, config = network()
    before = net.body.features[0].weight.clone()
    assert weights.load_into(net, config) == [] == weights.load_into(net, Cnn())
    assert torch.equal(net.body.features[0].weight, before)


def test_a_checkpoint_of_ours_gives_body_and_head_and_averages_first(tmp_path: Path) -> None:
    trained, _ = network()
    values = {f"model.{name}": value + 1 for name, value in trained.state_dict().items()}
    values |= {"ema.head.output.bias": torch.full((3,), 7.0), "ema.updates": torch.tensor(4)}
    checkpoint.save(tmp_path / "checkpoint_best", {**values, "optimizer.0.step": torch.tensor(3.0)}, {"epoch": 1})
    net, config = network(weights=str(tmp_path / "checkpoint_best"))
    assert len(weights.load_into(net, config)) == 1
    assert torch.equal(net.body.features[0].weight, values["model.body.features.0.weight"])
    assert torch.equal(net.head.output.weight, values["model.head.output.weight"])
    assert net.head.output.bias.tolist() == [7.0] * 3


def test_of_a_checkpoint_with_other_classes_the_body_alone_is_taken(tmp_path: Path) -> None:
    trained: Any = make_network(Backbone(arch=ARCH), classes=9, in_channels=3, image_size=32)
    save_file({f"model.{n}": v + 1 for n, v in trained.state_dict().items()}, tmp_path / "a.safetensors")
    net, config = network(weights=str(tmp_path / "a.safetensors"))
    _, note = weights.load_into(net, config)
    assert note.startswith("the head is new; left out: head.output.bias (9,), head.output")
    assert torch.equal(net.body.features[0].weight, trained.body.features[0].weight + 1)


@pytest.mark.parametrize(
    ("arch", "new", "old"),
    [
        ("densenet121", "denseblock1.denselayer1.norm1.weight", "denseblock1.denselayer1.norm.1.weight"),
        ("densenet121", "denselayer2.conv2.weight", "denselayer2.conv.2.weight"),
        ("vit_b_32", ".mlp.0.weight", ".mlp.linear_1.weight"),
        ("vit_b_32", ".mlp.3.bias", ".mlp.linear_2.bias"),
    ],
)
def test_names_of_older_files_are_understood(arch: str, new: str, old: str) -> None:
    with torch.device("meta"):
        net = make_network(Backbone(arch=arch), classes=2, in_channels=3, image_size=224)
    own = net.get_submodule("body").state_dict()
    aged = {name.replace(new, old): value for name, value in own.items()}
    assert aged.keys() != own.keys()
    found, _ = weights._fit(net, aged, Backbone(arch=arch))
    assert found.keys() == {f"body.{name}" for name in own}


def test_positions_are_interpolated_to_other_sides() -> None:
    config = Backbone(arch="vit_b_32", weights="somewhere.pth")
    with torch.device("meta"):
        net = make_network(config, classes=2, in_channels=3, image_size=64)
        given = make_network(config, classes=2, in_channels=3, image_size=224).get_submodule("body").state_dict()
    given["encoder.pos_embedding"] = torch.ones(1, 50, 768)
    found, notes = weights._fit(net, given, config)
    assert notes == ["positions interpolated from 49 to 4 patches"]
    torch.testing.assert_close(found["body.encoder.pos_embedding"], torch.ones(1, 5, 768))


# ---------------------------------------------------------------- refusals


def test_what_does_not_match_is_named_with_its_shape(tmp_path: Path) -> None:
    given = published()
    given["features.0.weight"] = torch.zeros(64, 1, 3, 3)
    del given["features.0.bias"]
    given["neck.weight"] = torch.zeros(2)
    save_file(given, tmp_path / "a.safetensors")
    config = Backbone(arch=ARCH, weights=str(tmp_path / "a.safetensors"))
    with pytest.raises(BadInput) as error:
        weights.check_weights(config)
    assert "features.0.weight is (64, 1, 3, 3), squeezenet1_1 has (64, 3, 3, 3)" in str(error.value)
    assert "features.0.bias (64,) is missing" in str(error.value)
    assert "neck.weight (2,) is not in squeezenet1_1" in str(error.value)


def test_of_many_that_do_not_match_five_are_named(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "a.safetensors")
    with pytest.raises(BadInput, match=r"and \d+ more"):
        weights.check_weights(Backbone(arch=ARCH, weights=str(tmp_path / "a.safetensors")))


class Custom:
    """Something whose pickle would run code."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("code ran",))


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        ({"weights": {"a": 1}, "epoch": 3}, "nothing but tensors by name, it holds weights, epoch"),
        ([1, 2], "nothing but tensors by name, it holds list"),
        (Custom(), "cannot be read as tensors alone"),
    ],
)
def test_a_pth_file_that_holds_more_than_tensors_is_refused(
    content: Any, rule: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(BadInput, match=rule):
        weights.read(tmp_path / "a.pth")
    assert "code ran" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors", "a.bin"])
def test_a_damaged_or_foreign_file_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"nonsense")
    with pytest.raises(BadInput, match=r"model.weights: .*a\."):
        weights.read(tmp_path / name)


def test_a_missing_file_is_found_before_any_trial() -> None:
    with pytest.raises(BadInput, match=r"no such file: nowhere\.pth"):
        weights.check_weights(Backbone(arch=ARCH, weights="nowhere.pth"))


# ---------------------------------------------------------------- fetching


def test_weights_are_fetched_once_and_then_only_read(cache: Path, offer: Path) -> None:
    weights.check_weights(Backbone(arch=ARCH, weights="imagenet"))
    assert (cache / "weights" / offer.name).read_bytes() == offer.read_bytes()
    offer.unlink()
    net, config = network(weights="imagenet")
    weights.load_into(net, config)
    assert torch.equal(net.body.features[0].weight, published()["features.0.weight"])
    assert not [*(cache / "weights").glob("*.partial")]


def test_without_a_network_the_message_says_what_to_put_where(cache: Path, offer: Path) -> None:
    offer.unlink()
    with pytest.raises(BadInput) as error:
        weights.fetch(ARCH)
    for part in (offer.name, str(cache / "weights"), "model.weights: path/to/a/file"):
        assert part in str(error.value)


def test_a_file_that_was_put_there_by_hand_is_taken(cache: Path, offer: Path) -> None:
    (cache / "weights").mkdir(parents=True)
    offer.rename(cache / "weights" / offer.name)
    assert weights.fetch(ARCH) == cache / "weights" / offer.name


def test_damaged_weights_are_refused(cache: Path, offer: Path) -> None:
    offer.write_bytes(offer.read_bytes()[:-1])
    with pytest.raises(BadInput, match="is damaged or something else"):
        weights.fetch(ARCH)
    assert not [*(cache / "weights").glob("*.pth")]
    (cache / "weights" / offer.name).write_bytes(b"half")
    with pytest.raises(BadInput, match="is damaged"):
        weights.fetch(ARCH)


def test_every_classifier_of_torchvision_has_weights_with_a_hash() -> None:
    from tuner.spec.backbones import TORCHVISION

    for arch in TORCHVISION:
        int(weights.find_url(arch).rsplit("-", 1)[1].removesuffix(".pth"), 16)


def test_weights_of_timm_are_kept_with_their_normalisation(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body: Any = nn.Linear(2, 3)
    body.pretrained_cfg = {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)}
    timm: Any = ModuleType("timm")
    timm.create_model = lambda name, *, pretrained, num_classes: {("x", True, 0): body}[name, pretrained, num_classes]
    monkeypatch.setitem(sys.modules, "timm", timm)
    path = weights.fetch("timm:x")
    assert path == cache / "weights" / "timm_x.safetensors"
    assert torch.equal(weights.read(path)["weight"], body.weight)
    config = whole(arch="timm:x", weights="imagenet")
    assert weights.preprocessing(config) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


def test_weights_in_the_home_of_nobody() -> None:
    with pytest.raises(BadInput, match=r"no such file: ~nobody-of-that-name/a\.pth"):
        weights.check_weights(Backbone(arch=ARCH, weights="~nobody-of-that-name/a.pth"))


# ---------------------------------------------------------------- preprocessing


def test_the_normalisation_that_belongs_to_the_weights() -> None:
    assert weights.preprocessing(whole()) is None
    assert weights.preprocessing(whole(weights="imagenet")) == weights.IMAGENET
    halves = ((0.5,) * 3, (0.5,) * 3)
    assert weights.preprocessing(whole(arch="efficientnet_v2_l", weights="imagenet")) == halves
    assert weights.preprocessing(whole(arch="inception_v3", weights="imagenet")) == halves


def test_inceptions_own_renormalisation_is_the_same() -> None:
    from torchvision.models import Inception3

    image = torch.rand(1, 3, 2, 2)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in weights.IMAGENET)
    theirs = Inception3._transform_input(type("Asked", (), {"transform_input": True})(), (image - mean) / std)
    torch.testing.assert_close(theirs, (image - 0.5) / 0.5)


def test_a_space_file_may_say_another_normalisation() -> None:
    assert weights.preprocessing(whole(weights="imagenet", data={"normalize": "train"})) is None
    assert weights.preprocessing(whole(data={"normalize": "imagenet"})) == weights.IMAGENET
    assert weights.preprocessing(whole(data={"normalize": "none"}), channels=1) == ((0.0,), (1.0,))


def test_grey_images_get_the_average_of_the_colours() -> None:
    found = weights.preprocessing(whole(weights="imagenet"), channels=1)
    assert found is not None and (found[0][0], found[1][0]) == pytest.approx((0.449, 0.226))


def test_colour_images_get_the_normalisation_of_grey_weights_three_times(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "grey", {"x": torch.zeros(1)}, {}, about={"mean": "[0.25]", "std": "[0.5]"})
    config = whole(weights=str(tmp_path / "grey"))
    assert weights.preprocessing(config) == ((0.25,) * 3, (0.5,) * 3)
    assert weights.preprocessing(config, channels=1) == ((0.25,), (0.5,))


def test_a_safetensors_file_may_carry_its_normalisation(tmp_path: Path) -> None:
    values = {"mean": json.dumps([0.1, 0.2, 0.3]), "std": json.dumps([0.4, 0.5, 0.6])}
    save_file({"x": torch.zeros(1)}, tmp_path / "a.safetensors", metadata=values)
    save_file({"x": torch.zeros(1)}, tmp_path / "b.safetensors")
    save_file({"x": torch.zeros(1)}, tmp_path / "c.safetensors", metadata={"mean": "grey", "std": "grey"})
    found = weights.preprocessing(whole(weights=str(tmp_path / "a.safetensors")))
    assert found == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert weights.preprocessing(whole(weights=str(tmp_path / "b.safetensors"))) is None
    values = {"mean": "[0.1, 0.2]", "std": "[0.1, 0.2]"}
    save_file({"x": torch.zeros(1)}, tmp_path / "d.safetensors", metadata=values)
    for name in ("c", "d"):
        with pytest.raises(BadInput, match="must be lists of 1 or 3 numbers"):
            weights.preprocessing(whole(weights=str(tmp_path / f"{name}.safetensors")))


def test_a_checkpoint_carries_the_normalisation_of_its_images(tmp_path: Path) -> None:
    about = {"mean": "[0.25, 0.5, 0.75]", "std": "[0.5, 0.5, 0.5]"}
    checkpoint.save(tmp_path / "checkpoint_best", {"x": torch.zeros(1)}, {}, about=about)
    found = weights.preprocessing(whole(weights=str(tmp_path / "checkpoint_best")))
    assert found == ((0.25, 0.5, 0.75), (0.5, 0.5, 0.5))
    assert weights.preprocessing(whole(weights=str(tmp_path / "checkpoint_best" / "weights.safetensors"))) == found


def test_values_that_are_no_numbers_are_no_weights(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2), "b": torch.tensor([1.0, math.nan])}, tmp_path / "x.safetensors")
    with pytest.raises(BadInput, match="b holds values that are no finite numbers"):
        weights.read(tmp_path / "x.safetensors")


def test_a_folder_that_is_no_checkpoint_says_what_one_is(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"model\.weights: no checkpoint(.|\n)*checkpoint_best of a trial"):
        weights.read(tmp_path)


def test_what_training_scripts_put_around_weights_is_taken_off(tmp_path: Path) -> None:
    torch.save({"state_dict": {"module.a": torch.ones(2), "module.b": torch.zeros(1)}, "epoch": 3}, tmp_path / "x.pth")
    assert set(weights.read(tmp_path / "x.pth")) == {"a", "b"}
