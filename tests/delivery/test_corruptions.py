"""Images get worse as published, every model sees the same ones, and the curves say how well they are still judged."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tuner.delivery.judging import corruptions
from tuner.delivery.judging.corruptions import KINDS, TABLES, Kind, corrupt, curves, strengths
from tuner.delivery.model import Model
from tuner.delivery.pictures import open_split
from tuner.delivery.predictions import judge

Pixels = NDArray[np.uint8]


def photographs(channels: int, size: int = 32, count: int = 24) -> Pixels:
    """Noise whose strength falls with its frequency, as in photographs (Field, 1987): neither waves nor flat."""
    drawn = np.random.default_rng(0).standard_normal((count, size, size, channels))
    height, width = np.fft.fftfreq(size)[:, None, None], np.fft.fftfreq(size)[:, None]
    frequency = np.hypot(height, width)
    images = np.fft.ifft2(np.fft.fft2(drawn, axes=(1, 2)) / np.maximum(frequency, 1 / size), axes=(1, 2)).real
    pixels: Pixels = np.clip(110 + 45 * images / images.std(), 0, 255).astype(np.uint8)
    return pixels


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_images_change_more_with_each_strength_and_not_at_all_with_none(
    kind: Kind, channels: int, table: corruptions.Strengths
) -> None:
    pixels = photographs(channels)
    made = [corrupt(kind, strength, pixels, table=table) for strength in range(6)]
    assert all(images.shape == pixels.shape and images.dtype == np.uint8 for images in made)
    change = [np.abs(images.astype(int) - pixels).mean() for images in made]
    assert change[0] == 0 and (np.diff(change) > 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_is_the_same_in_batches_of_any_size_and_is_not_written_to(kind: Kind) -> None:
    pixels = photographs(3)
    pixels.setflags(write=False)
    alone = [corrupt(kind, 3, pixels[n : n + 1], n)[0] for n in range(len(pixels))]
    assert np.array_equal(corrupt(kind, 3, pixels), alone)


def test_every_image_has_a_noise_of_its_own_with_the_deviation_of_its_strength() -> None:
    grey = np.full((2, 128, 128, 3), 128, dtype=np.uint8)
    noise = (corrupt("noise", 3, grey, table=TABLES[2]) - 128.0) / 255
    assert noise.std() == pytest.approx(0.18, rel=0.02) and noise.mean() == pytest.approx(0, abs=0.003)
    assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.02


def test_jpeg_is_what_pillow_writes_and_reads_at_that_quality() -> None:
    pixels = photographs(3)
    file = io.BytesIO()
    Image.fromarray(pixels[4]).save(file, "JPEG", quality=50)
    assert np.array_equal(corrupt("jpeg", 4, pixels)[4], np.asarray(Image.open(file)))


def test_blur_spreads_a_point_as_a_normal_curve() -> None:
    point = np.zeros((1, 31, 31, 1), dtype=np.uint8)
    point[0, 15, 15] = 255
    row = corrupt("blur", 5, point)[0, 15, :, 0]
    assert row[15] == round(255 / (2 * np.pi)) and row[16] == pytest.approx(row[15] * np.exp(-0.5), abs=1)


def test_brighter_keeps_the_hue_and_saturation_and_makes_black_grey() -> None:
    import colorsys

    made = corrupt("brightness", 2, np.array([[[[100, 50, 0], [0, 0, 0]]]], dtype=np.uint8), table=TABLES[0])[0, 0]
    by_hand = colorsys.hsv_to_rgb(*colorsys.rgb_to_hsv(100 / 255, 50 / 255, 0)[:2], 100 / 255 + 0.1)
    assert np.abs(made[0] - 255 * np.array(by_hand)).max() < 1 and made[1].tolist() == [26, 26, 26]


@pytest.mark.parametrize(
    ("size", "name"), [(8, "CIFAR-10-C"), (32, "CIFAR-10-C"), (64, "Tiny ImageNet-C"), (224, "ImageNet-C")]
)
def test_strengths_are_those_made_for_images_of_that_size(size: int, name: str) -> None:
    assert strengths(size).name == name


def test_curves_count_the_right_answers_under_each_corruption(model: Model) -> None:
    pictures = open_split(model.place, model.about, "validation", "test")
    told: list[tuple[int, int]] = []
    (found,) = curves([model], [pictures], progress=lambda done, count: told.append((done, count)))
    said = found.as_json()
    assert said["images"] == len(pictures) and told[-1] == (21 * len(pictures), 21 * len(pictures))
    assert [point[0]["accuracy"] for point in said["kinds"].values()] == [judge(model, pictures).right.mean()] * 4
    worse = corrupt("noise", 5, np.asarray(pictures.pixels[np.arange(len(pictures))]))
    right = (model.logits(worse).argmax(1) == pictures.labels).mean()
    last = said["kinds"]["noise"][5]
    assert last["accuracy"] == pytest.approx(right) and last["low"] < right <= last["high"] < last["low"] + 0.4


def test_of_many_images_the_same_few_are_taken_by_class(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = open_split(model.place, model.about, "train", "test")
    monkeypatch.setattr(corruptions, "MOST_IMAGES", 30)
    once, again = (curves([model], [pictures])[0] for _ in range(2))
    assert once.as_json() == again.as_json() and once.as_json()["images"] == 30


def test_two_models_are_judged_as_each_alone(model: Model) -> None:
    pictures = open_split(model.place, model.about, "validation", "test")
    other = replace(pictures, labels=(pictures.labels + 1) % 3)
    both = curves([model, model], [pictures, other])
    assert [one.as_json() for one in both] == [curves([model], [p])[0].as_json() for p in (pictures, other)]
