"""The batched transforms against Albumentations' own: the same pixels for fixed draws, else the same spread."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp

from tuner.spec.augment import Augment
from tuner.training.augment import Augmenter
from tuner.training.dataset import Dataset
from tuner.training.images import Images
from tuner.training.per_image import PerImage, albumentations

SIZE = 16
DRAWS = 3000
NOISE = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)


def dataset(image: Any = NOISE) -> Dataset:
    """One image, of mean 0 and deviation 1, so that normalised values are grey levels over 255."""
    images, none = image[None], np.zeros(0, np.int64)
    channels = image.shape[2]
    return Dataset("one", images, none, none, none, ("a",), (0.0,) * channels, (1.0,) * channels, "one")


def ours(config: Any, count: int, image: Any = NOISE, seed: int = 0) -> Any:
    """Grey levels (count, S, S, C) of that many draws."""
    images = Images(dataset(image), torch.device("cpu"), torch.float32)
    augmenter = Augmenter(Augment.model_validate(config), images)
    assert not any(isinstance(step, PerImage) for step in augmenter.steps), "not batched"
    pixels = images.pixels(torch.zeros(count, dtype=torch.long))
    return augmenter(pixels, torch.Generator().manual_seed(seed)).permute(0, 2, 3, 1).numpy() * 255


def make(name: str, arguments: dict[str, Any]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that ShiftScaleRotate is an Affine
        return getattr(albumentations(), name)(**arguments)


CV = {"constant": 0, "replicate": 1, "reflect": 2, "reflect_101": 4}


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("HorizontalFlip", {}),
        ("VerticalFlip", {}),
        ("Rotate", {"limit": [30, 30]}),
        ("Rotate", {"limit": [-100, -100], "fill": [10, 200, 90]}),
        *(("Rotate", {"limit": [40, 40], "border_mode": border}) for border in CV),
        ("Affine", {"scale": [1.4, 1.4], "rotate": [20, 20]}),
        ("Affine", {"scale": {"x": [0.7, 0.7], "y": [1.3, 1.3]}, "rotate": [-50, -50]}),
        ("Affine", {"shear": {"x": [25, 25], "y": [0, 0]}}),
        ("Affine", {"shear": {"x": [10, 10], "y": [-30, -30]}, "rotate": [10, 10], "scale": [1.1, 1.1]}),
        ("Affine", {"translate_percent": {"x": [0.3, 0.3], "y": [-0.17, -0.17]}}),
        ("Affine", {"translate_px": {"x": [5, 5], "y": [-2, -2]}, "rotate": [15, 15]}),
        (
            "ShiftScaleRotate",
            {
                "shift_limit_x": [0.2, 0.2],
                "shift_limit": [-0.1, -0.1],
                "scale_limit": [0.3, 0.3],
                "rotate_limit": [9, 9],
            },
        ),
        ("CoarseDropout", {"hole_height_range": [16, 16], "hole_width_range": [16, 16], "fill": [125, 123, 114]}),
        ("RandomBrightnessContrast", {"brightness_limit": [0.2, 0.2], "contrast_limit": [-0.4, -0.4]}),
        (
            "RandomBrightnessContrast",
            {"brightness_limit": [-0.3, -0.3], "contrast_limit": [0.4, 0.4], "brightness_by_max": False},
        ),
        ("ColorJitter", {"brightness": [1.5, 1.5], "contrast": [1, 1], "saturation": [1, 1], "hue": [0, 0]}),
        ("ColorJitter", {"brightness": [1, 1], "contrast": [0.3, 0.3], "saturation": [1, 1], "hue": [0, 0]}),
    ],
    ids=str,
)
def test_fixed_draws_give_the_same_pixels(name: str, arguments: dict[str, Any]) -> None:
    theirs = {key: CV.get(value, value) if isinstance(value, str) else value for key, value in arguments.items()}
    theirs = {key: tuple(value) if isinstance(value, list) else value for key, value in theirs.items()}
    expected = make(name, {**theirs, "p": 1.0})(image=NOISE)["image"].astype(float)
    found = ours({name: {**arguments, "p": 1.0}}, 1)[0]
    # OpenCV places pixels at 32nds, where noise differs by 8 grey levels at most; a wrong sign by 80 on average.
    assert np.abs(found - expected).max() <= 9
    assert np.abs(found - expected).mean() < 1.6
    assert np.abs(found - NOISE).mean() > 10


@pytest.mark.parametrize(
    ("name", "config", "arguments"),
    [
        ("HorizontalFlip", {"p": 0.3}, {"p": 0.3}),
        ("VerticalFlip", {}, {}),
        ("Rotate", {"limit": 40, "p": 0.7}, {"limit": (-40, 40), "p": 0.7}),
        ("Affine", {"rotate": 30, "p": 1}, {"rotate": (-30, 30), "p": 1}),
        ("Affine", {"scale": 0.3, "p": 1}, {"scale": (0.7, 1.3), "p": 1}),
        ("Affine", {"scale": 0.3, "keep_ratio": True, "p": 1}, {"scale": (0.7, 1.3), "keep_ratio": True, "p": 1}),
        ("Affine", {"shear": 20, "p": 1}, {"shear": (-20, 20), "p": 1}),
        ("Affine", {"translate_percent": 0.2, "p": 1}, {"translate_percent": (-0.2, 0.2), "p": 1}),
        ("Affine", {"translate_px": {"x": 3, "y": [0, 2]}}, {"translate_px": {"x": (-3, 3), "y": (0, 2)}}),
        (
            "ShiftScaleRotate",
            {"shift_limit": 0.1, "scale_limit": 0.1, "rotate_limit": 15},
            {"shift_limit": 0.1, "scale_limit": 0.1, "rotate_limit": 15},
        ),
        ("ShiftScaleRotate", {}, {}),
        ("CoarseDropout", {"p": 1}, {"p": 1}),
        (
            "CoarseDropout",
            {"num_holes_range": [1, 3], "hole_height_range": [2, 6], "hole_width_range": [1, 20], "fill": 200},
            {"num_holes_range": (1, 3), "hole_height_range": (2, 6), "hole_width_range": (1, 20), "fill": 200},
        ),
        ("Erasing", {"p": 1, "fill": [1, 2, 250]}, {"p": 1, "fill": (1, 2, 250)}),
        ("Erasing", {"scale": [0.1, 1], "ratio": [0.5, 4]}, {"scale": (0.1, 1), "ratio": (0.5, 4)}),
        ("RandomBrightnessContrast", {"p": 0.8}, {"p": 0.8}),
        (
            "RandomBrightnessContrast",
            {"brightness_limit": 0.5, "contrast_limit": [0, 0.9]},
            {"brightness_limit": 0.5, "contrast_limit": (0, 0.9)},
        ),
        (
            "ColorJitter",
            {"brightness": 0.8, "contrast": 0.8, "saturation": 0, "hue": 0},
            {"brightness": 0.8, "contrast": 0.8, "saturation": 0, "hue": 0},
        ),
    ],
    ids=str,
)
def test_random_draws_spread_as_theirs_do(name: str, config: dict[str, Any], arguments: dict[str, Any]) -> None:
    transform = make(name, arguments)
    transform.set_random_seed(0)
    theirs = np.stack([transform(image=NOISE)["image"] for _ in range(DRAWS)]).astype(np.float32)
    assert_same_spread(ours({name: config}, DRAWS), theirs)


MOMENTS: tuple[Callable[[Any], Any], ...] = (
    lambda v: v,
    lambda v: v * v / 255,
    lambda v: v * np.roll(v, 1, axis=2) / 255,
)
# Of an image, with the width that makes values equal that differ by rounding: changed values, and the mean.
STATISTICS: tuple[tuple[Callable[[Any], Any], float], ...] = (
    (lambda v: (np.abs(v - NOISE) > 12).sum((1, 2, 3)), 20),
    (lambda v: v.mean((1, 2, 3)), 2),
)


def assert_same_spread(ours: Any, theirs: Any) -> None:
    """Each pixel's mean, mean square and product with its neighbour within six standard errors, and the statistics of
    the images as they are by chance but once in a million (Kolmogorov and Smirnov).
    """
    for moment in MOMENTS:
        a, b = moment(ours), moment(theirs)
        error = np.sqrt((a.var(0) + b.var(0)) / DRAWS)
        assert (np.abs(a.mean(0) - b.mean(0)) < 6 * error + 1.5).all()
    blur = np.random.default_rng(1)
    for statistic, width in STATISTICS:
        a, b = (statistic(v) + blur.uniform(-width, width, DRAWS) for v in (ours, theirs))
        assert ks_2samp(a, b).pvalue > 1e-6
