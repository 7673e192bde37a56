"""What is written of explained images: which are chosen, what is drawn, what the command says."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from tuner.delivery.explaining import overlay
from tuner.delivery.explaining.explain import UNKNOWN, choose, explain, open_images
from tuner.delivery.model import Model, Shipped, open_torch
from tuner.delivery.predictions import Predictions
from tuner.errors import BadInput
from tuner.spec.trial_config import TrialConfig
from tuner.training.cnn import Whiten
from tuner.training.networks import make_network
from tuner.training.shapes import draw

Call = Callable[..., tuple[int, str, str]]


def small(**fields: Any) -> nn.Module:
    torch.manual_seed(0)
    config = TrialConfig.model_validate({"data": {"dataset": "shapes"}, "model": fields}).model
    return make_network(config, classes=3, in_channels=3, image_size=16).eval()


# ---------------------------------------------------------------- what is chosen and drawn


def test_right_ones_are_taken_evenly_and_wrong_ones_by_confidence() -> None:
    sure = np.array([1, 5, 1, 2, 1, 9, 1, 1], dtype=np.float32)
    labels = np.array([0, 1, 0, 1, 0, 1, 0, UNKNOWN])
    said = Predictions(np.stack([sure, 0 * sure], 1), labels, [str(n) for n in range(8)], ("a", "b"))
    assert choose(said, 2).tolist() == [7, 0, 6, 5, 1]


def test_overlay_is_grey_without_evidence_and_the_brighter_the_stronger_it_is() -> None:
    image = overlay.enlarge(np.full((16, 16, 3), (200, 40, 40), np.uint8))
    strength = np.repeat(np.linspace(0, 1, 16, dtype=np.float32)[None], 16, axis=0)
    made = overlay.cover(image, strength)
    assert image.shape == made.shape == (224, 224, 3)
    assert len(set(made[0, 0].tolist())) == 1 and made[0, -1].tolist()[0] > 180 > made[0, -1].tolist()[2]
    light = made[0].astype(float) @ [0.299, 0.587, 0.114]
    assert light[-1] > light[120] + 30


@pytest.mark.parametrize(("shape", "colours"), [((5, 3, 3, 3), True), ((5, 1, 3, 3), False), ((5, 8, 3, 3), False)])
def test_filters_are_in_colour_where_they_see_three_channels(
    shape: tuple[int, ...], colours: bool, tmp_path: Path
) -> None:
    weights = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    (tmp_path / "f.png").write_bytes(overlay.filters(weights))
    with Image.open(tmp_path / "f.png") as image:
        tile = np.asarray(image.convert("RGB"))[:56, :56].astype(int)
    assert bool(np.ptp(tile, axis=2).any()) == colours


def test_a_whitening_layer_is_called_what_it_is(model: Model, tmp_path: Path) -> None:
    network = small(name="cnn", depth=2, width=8, whiten=True)
    assert isinstance(network.get_submodule("body.whiten.conv"), Whiten)
    other = replace(model, network=Shipped(network, model.about.mean, model.about.std).eval())
    Image.new("RGB", (16, 16), "red").save(tmp_path / "a.png")
    said = explain(other, open_images([tmp_path / "a.png"], other.about), tmp_path / "out", "gradcam", 1)
    assert "24 filters of 2×2" in said["filters"]["about"] and "never learned" in said["filters"]["about"]
    assert said["layer"]["name"] == "block2"


@pytest.mark.parametrize(("pool", "even"), [("average", True), ("flatten", False), ("max", False)])
def test_a_head_that_weighs_places_apart_is_noted(pool: str, even: bool, model: Model, tmp_path: Path) -> None:
    network = small(name="cnn", depth=2, width=8, head={"pool": pool})
    other = replace(model, network=Shipped(network, model.about.mean, model.about.std).eval())
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    said = explain(other, open_images([tmp_path / "a.png"], other.about), tmp_path / "out", "gradcam", 1)
    assert bool(said["notes"]) != even


# ---------------------------------------------------------------- the command


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """square/ and circle/ with twelve drawn images each."""
    data = TrialConfig.model_validate({"data": {"dataset": "shapes", "image_size": 24, "classes": 2}}).data
    pixels, labels, _ = draw(data, 3, 24)
    for number, (image, label) in enumerate(zip(pixels, labels.tolist(), strict=True)):
        path = tmp_path / "photos" / ("circle", "square")[label] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return tmp_path / "photos"


def test_images_become_pictures_with_what_was_seen_in_them(run: Path, photos: Path, call: Call) -> None:
    (photos / "broken.png").write_text("no image")
    shutil.copy(next((photos / "circle").iterdir()), photos / "x y$z.png")
    shutil.copy(next((photos / "square").iterdir()), photos / "x-y-z.png")
    paths = [photos / name for name in ("x y$z.png", "x-y-z.png", "broken.png", "gone.png")]
    code, out, _ = call("explain", run, *paths, "--json")
    said, folder = json.loads(out), run / "final" / "explain"
    assert code == 0 and json.loads((folder / "explain.json").read_text())["images"] == said["images"]
    assert [(i["name"], i["picture"], i["truth"]) for i in said["images"]] == [
        ("x y$z.png", "x-y-z.png", None), ("x-y-z.png", "x-y-z-2.png", None),
    ]  # fmt: skip
    assert len(said["data"]["problems"]) == 2 and "gone.png was left out: No such file" in said["data"]["problems"][1]
    for name in ("x-y-z.png", "x-y-z-2.png", "filters.png", "maps_x-y-z.png", "panels/x-y-z.png"):
        with Image.open(folder / name) as image:
            assert image.width >= 2 * 224 or name == "filters.png"
    assert "x y$z.png" in (folder / "index.html").read_text()
    assert not (run / "final" / "test_looks.jsonl").exists()


def test_of_class_folders_right_and_wrong_ones_are_shown(run: Path, photos: Path, tmp_path: Path, call: Call) -> None:
    code, out, _ = call("explain", run, photos, "--most", 3, "--out", tmp_path / "out")
    said = json.loads((tmp_path / "out" / "explain.json").read_text())
    wrong = [i for i in said["images"] if not i["right"]]
    assert code == 0 and said["data"]["images"] == 24 and 0 < said["data"]["right"] < 24
    assert len(said["images"]) - len(wrong) == min(3, said["data"]["right"])
    assert len(wrong) == min(3, 24 - said["data"]["right"])
    assert [i["confidence"] for i in wrong] == sorted((i["confidence"] for i in wrong), reverse=True)
    with Image.open(tmp_path / "out" / wrong[0]["panels"]) as image:
        assert image.size == (3 * 224 + 16, 224)  # the image, the evidence for what it says, that for the truth
    assert f"{wrong[0]['name']}" in out and not (run / "final").exists()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["gradcam++", "occlusion"])
def test_another_method_gives_another_picture(
    method: str, trained: Path, photos: Path, tmp_path: Path, call: Call
) -> None:
    path = next((photos / "circle").iterdir())
    for name in ("gradcam", method):
        code, out, _ = call("explain", trained, path, "--method", name, "--out", tmp_path / name, "--json")
        assert code == 0 and json.loads(out)["method"] == name
    first, other = ((tmp_path / name / "panels" / f"{path.stem}.png").read_bytes() for name in ("gradcam", method))
    assert first != other


def test_what_cannot_be_explained_is_refused_in_words(run: Path, photos: Path, tmp_path: Path, call: Call) -> None:
    (tmp_path / "a.png").write_text("no image")
    code, _, err = call("explain", run, tmp_path / "a.png", tmp_path / "b.png")
    assert code == 2 and "a.png: cannot identify" in err and "b.png: No such file" in err
    code, _, err = call("explain", run, photos / "circle")
    assert code == 2 and "name its images themselves" in err
    code, _, err = call("explain", run, photos / "circle", photos / "square")
    assert code == 2 and "one folder of class folders" in err
    code, _, err = call("explain", run, photos, "--out", tmp_path / "a.png" / "out")
    assert code == 2 and "--out" in err


def test_pictures_never_lie_among_the_images_that_they_are_of(run: Path, photos: Path, call: Call) -> None:
    path = next((photos / "circle").iterdir())
    before = path.read_bytes()
    for images, out in (([path], path.parent), ([photos], photos / "out"), ([path], photos)):
        code, _, err = call("explain", run, *images, "--out", out)
        assert code == 2 and "choose another folder with --out" in err
    assert path.read_bytes() == before and not (photos / "out").exists()


def test_a_file_whose_name_is_no_text_is_explained_all_the_same(run: Path, photos: Path, call: Call) -> None:
    path = next((photos / "circle").iterdir()).rename(photos / os.fsdecode(b"\xff.png"))
    code, out, _ = call("explain", run, path, photos / os.fsdecode(b"\xfe.png"))
    assert code == 0 and "\\udcff.png" in out and "\\udcfe.png was left out" in out


def test_a_model_whose_weights_are_no_numbers_is_refused(trained: Path, photos: Path, tmp_path: Path) -> None:
    model = open_torch(trained)
    model.network.network.get_submodule("head.output").bias.data.fill_(torch.nan)  # type: ignore[operator]
    with pytest.raises(BadInput, match="no numbers"):
        explain(model, open_images([photos], model.about), tmp_path / "out", "gradcam", 1)
