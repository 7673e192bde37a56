import random
import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tuner.spec.augment import Augment
from tuner.training.augment import Images, augment
from tuner.training.dataset import Dataset

DRAWS = 3600
SQUARE = np.arange(1, 10, dtype=np.float32).reshape(3, 3)


def draw(config: Any, count: int = DRAWS, seed: int = 0) -> Tensor:
    images = torch.from_numpy(SQUARE).expand(count, 1, 3, 3).contiguous(memory_format=torch.channels_last)
    return augment(images, Augment.model_validate(config), torch.Generator().manual_seed(seed))


def tally(images: Tensor) -> Counter[tuple[float, ...]]:
    return Counter(tuple(image.flatten().tolist()) for image in images)


def distance(ours: Counter[Any], theirs: Counter[Any]) -> float:
    """Chi-square of two tallies of equal size over the same outcomes."""
    return sum((ours[key] - theirs[key]) ** 2 / (ours[key] + theirs[key]) for key in ours | theirs)


def test_outcomes_are_as_frequent_as_albumentations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_ALBUMENTATIONS_UPDATE", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what it says on import
        import albumentations as A
    random.seed(0)
    theirs = A.Compose(
        [A.HorizontalFlip(p=0.5), A.Pad(1, border_mode=0, fill=0), A.RandomCrop(3, 3)],
        seed=0,
    )
    expected = Counter(tuple(theirs(image=SQUARE)["image"].flatten().tolist()) for _ in range(DRAWS))
    ours = tally(draw({"HorizontalFlip": {"p": 0.5}, "RandomCrop": {"padding": 1}}))
    assert set(ours) == set(expected)
    assert len(ours) == 18
    # 17 degrees of freedom: a chi-square above 57 has a probability of 3 in a million.
    assert distance(ours, expected) < 57
    assert distance(ours, Counter(dict.fromkeys(ours, DRAWS // 18))) < 57


@pytest.mark.parametrize("p", [0.0, 0.2, 1.0])
def test_flip_mirrors_with_its_probability(p: float) -> None:
    counts = tally(draw({"HorizontalFlip": {"p": p}}))
    assert set(counts) <= {tuple(SQUARE.flatten()), tuple(SQUARE[:, ::-1].flatten())}
    assert counts[tuple(SQUARE[:, ::-1].flatten())] / DRAWS == pytest.approx(p, abs=0.03)


@pytest.mark.parametrize("p", [0.0, 0.5])
def test_crop_moves_with_its_probability(p: float) -> None:
    still = tally(draw({"RandomCrop": {"padding": 2, "p": p}}))[tuple(SQUARE.flatten())] / DRAWS
    assert still == pytest.approx(1 - p + p / 25, abs=0.03)


def test_a_crop_shows_zeros_beyond_the_edge_and_all_channels_move_together() -> None:
    images = torch.from_numpy(SQUARE).expand(50, 3, 3, 3).contiguous(memory_format=torch.channels_last)
    crops = augment(images, Augment.model_validate({"RandomCrop": {"padding": 2}}), torch.Generator().manual_seed(0))
    assert crops.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(crops[:, 0], crops[:, 2])
    assert set(crops.flatten().tolist()) == set(range(10))


def test_equal_seeds_draw_equally_and_no_augmentation_draws_nothing() -> None:
    both = {"HorizontalFlip": {"p": 0.5}, "RandomCrop": {"padding": 1}}
    assert torch.equal(draw(both), draw(both))
    assert not torch.equal(draw(both), draw(both, seed=1))
    assert tally(draw({})) == {tuple(SQUARE.flatten()): DRAWS}


@pytest.mark.parametrize("channels", [1, 3])
def test_batches_are_normalised_and_leave_the_pixels_where_they_are(
    channels: int, make_images: Callable[..., Dataset]
) -> None:
    dataset = make_images(channels=channels)
    images = Images(dataset, torch.device("cpu"), torch.float32)
    index = torch.tensor([5, 2])
    expected = (dataset.images[[5, 2]] / 255 - 0.4) / 0.2
    batch = images.batch(index)
    assert batch.permute(0, 2, 3, 1).numpy() == pytest.approx(expected, abs=1e-5)
    assert images.pixels.data_ptr() == dataset.images.ctypes.data
    assert Images(dataset, torch.device("cpu"), torch.bfloat16).batch(index).dtype == torch.bfloat16


def test_a_preset_is_its_transforms_at_its_magnitude() -> None:
    written = {"HorizontalFlip": {"p": 0.5}, "RandomCrop": {"padding": 2}}
    assert torch.equal(draw({"flip_crop": {"padding": 2}}), draw(written))
    assert not torch.equal(draw({"flip_crop": {"padding": 2}}), draw({"flip_crop": {"padding": 1}}))
