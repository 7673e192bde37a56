from __future__ import annotations

import numpy as np
import pytest

from tuner.spec.data import Data
from tuner.training.shapes import LUMINANCE, SHAPES, class_names, draw


def shapes(**fields: object) -> Data:
    return Data.model_validate({"dataset": "shapes", **fields})


def test_the_same_seed_draws_the_same_pictures_and_another_does_not() -> None:
    once, again, other = (draw(shapes(), seed, 40)[0] for seed in (3, 3, 4))
    assert np.array_equal(once, again) and not np.array_equal(once, other)


def test_classes_are_equally_frequent_and_named() -> None:
    labels = draw(shapes(classes=12), 0, 120)[1]
    assert np.bincount(labels).tolist() == [10] * 12
    assert class_names(shapes(classes=3)) == ("circle", "square", "triangle")


@pytest.mark.parametrize("size", [4, 17, 64])
@pytest.mark.parametrize("channels", [1, 3])
def test_any_size_grey_or_colour(size: int, channels: int) -> None:
    images, _, boxes = draw(shapes(image_size=size, channels=channels, classes=12), 0, 60)
    assert images.shape == (60, size, size, channels)
    assert (boxes[:, :2] >= 0).all() and (boxes[:, :2] < boxes[:, 2:]).all() and (boxes[:, 2:] <= size).all()


def test_the_evidence_lies_inside_the_box_and_only_there() -> None:
    images, _, boxes = draw(shapes(noise=0.0, classes=12, image_size=48), 0, 120)
    for image, (x0, y0, x1, y1) in zip(images, boxes, strict=True):
        # Without the slope of the background, what differs from it is the shape.
        grey = image @ LUMINANCE
        inside = grey[y0:y1, x0:x1].copy()
        grey[y0:y1, x0:x1] = np.nan
        assert np.nanmax(grey) - np.nanmin(grey) < 0.25 * 255  # a slope of at most 0.2
        assert np.abs(inside - np.nanmedian(grey)).max() > 0.2 * 255


def test_noise_is_the_deviation_of_the_pixels() -> None:
    clean, noisy = (draw(shapes(noise=noise), 0, 50)[0].astype(float) for noise in (0.0, 0.05))
    unclipped = (clean > 60) & (clean < 195)
    assert np.std((noisy - clean)[unclipped]) == pytest.approx(0.05 * 255, rel=0.02)


def test_another_size_shows_the_same_pictures() -> None:
    small, large = (draw(shapes(noise=0.0, image_size=size), 0, 20)[0].astype(float) for size in (32, 64))
    halved = large.reshape(20, 32, 2, 32, 2, 3).mean(axis=(2, 4))
    assert np.abs(halved - small).mean() < 2


@pytest.mark.parametrize("name", SHAPES)
def test_every_shape_fills_the_unit_circle_and_does_not_leave_it(name: str) -> None:
    axis = np.linspace(-1.5, 1.5, 301, dtype=np.float32)
    inside = SHAPES[name](*np.meshgrid(axis, axis)) > 0
    u, v = np.meshgrid(axis, axis)
    reach = np.hypot(u, v)[inside].max()
    assert 0.8 < reach < 1.03
    assert 0.1 < inside.sum() * 0.01**2 < 2.4


def test_no_two_shapes_are_alike() -> None:
    axis = np.linspace(-1.2, 1.2, 121, dtype=np.float32)
    masks = [shape(*np.meshgrid(axis, axis)) > 0 for shape in SHAPES.values()]
    overlaps = [(a & b).sum() / (a | b).sum() for i, a in enumerate(masks) for b in masks[:i]]
    assert max(overlaps) < 0.85
