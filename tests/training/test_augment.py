"""Augmenter: whole recipes, their order, their seeds, and what goes image by image."""

import random
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tuner.errors import BadInput
from tuner.spec.augment import Augment
from tuner.spec.transforms import library
from tuner.training import catalogue
from tuner.training.augment import Augmenter
from tuner.training.dataset import Dataset
from tuner.training.images import Images
from tuner.training.per_image import PerImage, albumentations, check
from tuner.training.transforms import Gather

DRAWS = 3600
SQUARE = np.arange(1, 10, dtype=np.uint8).reshape(3, 3, 1)
NOISE = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)


def images_of(image: Any, count: int = 1) -> Images:
    """So many copies of an image; of mean 0 and deviation 1, so that normalised values are grey levels over 255."""
    stack, none = np.repeat(image[None], count, 0), np.zeros(0, np.int64)
    channels = image.shape[2]
    dataset = Dataset("one", stack, none, none, none, ("a",), (0.0,) * channels, (1.0,) * channels, "one")
    return Images(dataset, torch.device("cpu"), torch.float32)


def draw(config: Any, count: int = DRAWS, seed: int = 0, image: Any = SQUARE) -> Tensor:
    """Grey levels (count, S, S, C) of draws of one image."""
    images = images_of(image)
    augmenter = Augmenter(Augment.model_validate(config), images)
    batch = augmenter(images.pixels(torch.zeros(count, dtype=torch.long)), torch.Generator().manual_seed(seed))
    return (batch.permute(0, 2, 3, 1) * 255).round()


def tally(images: Tensor) -> Counter[tuple[float, ...]]:
    return Counter(tuple(image.flatten().tolist()) for image in images)


def distance(ours: Counter[Any], theirs: Counter[Any]) -> float:
    """Chi-square of two tallies of equal size over the same outcomes."""
    return sum((ours[key] - theirs[key]) ** 2 / (ours[key] + theirs[key]) for key in ours | theirs)


# ---------------------------------------------------------------- flips and crops


def test_outcomes_are_as_frequent_as_albumentations() -> None:
    A = albumentations()
    random.seed(0)
    theirs = A.Compose([A.HorizontalFlip(p=0.5), A.Pad(1, border_mode=0, fill=0), A.RandomCrop(3, 3)], seed=0)
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


def test_a_crop_shows_the_mean_beyond_the_edge_and_all_channels_move_together() -> None:
    images = images_of(SQUARE.repeat(3, 2), 50)
    images.colour = torch.tensor([51.0, 102.0, 153.0])
    augmenter = Augmenter(Augment.model_validate({"RandomCrop": {"padding": 2}}), images)
    crops = augmenter(images.pixels(torch.arange(50)), torch.Generator().manual_seed(0))
    assert crops.is_contiguous(memory_format=torch.channels_last)
    for channel, border in enumerate((51, 102, 153)):
        assert {*map(round, (crops[:, channel] * 255).flatten().tolist())} == {*range(1, 10), border}
    shown = crops * 255 < 10
    assert torch.equal(shown[:, 0], shown[:, 2])


# ---------------------------------------------------------------- what stands together is one step


@pytest.mark.parametrize(
    ("together", "steps"),
    [
        (("HorizontalFlip", "RandomCrop", "VerticalFlip"), 1),
        (("HorizontalFlip", "Rotate", "VerticalFlip"), 1),
        (("VerticalFlip", "Affine", "HorizontalFlip"), 1),
        (("HorizontalFlip", "RandomCrop", "Rotate", "VerticalFlip"), 2),
        (("HorizontalFlip", "CoarseDropout", "VerticalFlip"), 3),
    ],
)
def test_geometry_that_stands_together_is_one_step_and_as_if_done_in_turn(together: Any, steps: int) -> None:
    A = albumentations()
    fixed: dict[str, Any] = {
        "HorizontalFlip": {"p": 1},
        "VerticalFlip": {"p": 1},
        "Rotate": {"limit": [25, 25], "fill": 90, "p": 1},
        "Affine": {"translate_px": {"x": [5, 5], "y": [3, 3]}, "rotate": [10, 10], "p": 1},
        "CoarseDropout": {"hole_height_range": [32, 32], "hole_width_range": [32, 32], "p": 1},
        "RandomCrop": {"padding": 4, "p": 0},
    }
    theirs = [getattr(A, name)(**_tuples(fixed[name])) for name in together if name != "RandomCrop"]
    expected = A.Compose(theirs)(image=NOISE)["image"]
    config = Augment.model_validate({name: fixed[name] for name in together})
    assert len(Augmenter(config, images_of(NOISE)).steps) == steps
    assert np.abs(draw(config, 1, image=NOISE)[0].numpy() - expected).max() <= 9


def _tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _tuples(inner) for key, inner in value.items()}
    return tuple(value) if isinstance(value, list) else value


def test_the_order_of_the_file_is_the_order_of_application() -> None:
    hole = {"hole_height_range": [3, 3], "hole_width_range": [3, 3], "fill": 100, "p": 1}
    brighter = {"brightness_limit": [0.2, 0.2], "contrast_limit": 0, "p": 1}
    assert set(draw({"CoarseDropout": hole, "RandomBrightnessContrast": brighter}, 1).flatten().tolist()) == {151}
    assert set(draw({"RandomBrightnessContrast": brighter, "CoarseDropout": hole}, 1).flatten().tolist()) == {100}


# ---------------------------------------------------------------- presets


@pytest.mark.parametrize(
    ("preset", "written"),
    [
        ({"flip_crop": {"padding": 2}}, {"HorizontalFlip": {"p": 0.5}, "RandomCrop": {"padding": 2}}),
        (
            {"standard": {}},
            {
                "HorizontalFlip": {"p": 0.5},
                "ShiftScaleRotate": {"shift_limit": 0.1, "scale_limit": 0.1, "rotate_limit": 15, "p": 0.5},
                "CoarseDropout": {
                    "num_holes_range": [1, 1],
                    "hole_height_range": [16, 16],
                    "hole_width_range": [16, 16],
                    "fill": [125, 123, 114],
                },
                "Normalize": {},
            },
        ),
        (
            {"standard": {"flip": 0.1, "shift_limit": 0.3, "scale_limit": 0, "rotate_limit": 40, "p": 0.9}},
            {
                "HorizontalFlip": {"p": 0.1},
                "ShiftScaleRotate": {"shift_limit": 0.3, "scale_limit": 0, "rotate_limit": 40, "p": 0.9},
                "standard": {"flip": 0, "p": 0},
            },
        ),
    ],
)
def test_a_preset_is_its_transforms_at_its_magnitudes(preset: Any, written: Any) -> None:
    written = dict(written)
    rest = written.pop("standard", None)
    if rest:  # the hole alone
        written["CoarseDropout"] = dict(Augment.model_validate({"standard": rest}).transforms)["CoarseDropout"]
    # The hole's sides are drawn otherwise as shares and as pixels, so outcomes are compared, not draws.
    ours, theirs = (draw(config, 2000, image=NOISE).numpy() for config in (preset, written))
    error = np.sqrt((ours.var(0) + theirs.var(0)) / 2000)
    assert (np.abs(ours.mean(0) - theirs.mean(0)) <= 6 * error + 0.5).all()


def test_the_standard_hole_is_half_a_side_of_the_mean_colour() -> None:
    found = draw({"standard": {"flip": 0, "p": 0, "hole_p": 1}}, 200, image=NOISE).numpy()
    hole = (found == (125, 123, 114)).all(3)
    assert (hole.sum((1, 2)) == 256).all() and (hole.any(1).sum(1) == 16).all()
    assert len(np.unique(hole.argmax(1).argmax(1))) > 10
    grey = draw({"standard": {"flip": 0, "p": 0, "hole_p": 1, "hole": 0.25}}, 1, image=NOISE[..., :1] // 3)
    assert (grey == 123).sum() == 64


# ---------------------------------------------------------------- image by image


@pytest.mark.parametrize("name", ["TrivialAugment", "RandAugment", "GaussNoise", "ElasticTransform", "standard"])
def test_equal_generators_draw_equally_whatever_happened_before(name: str) -> None:
    before = draw({name: True}, 20, image=NOISE)
    torch.rand(3), random.random(), np.random.rand()  # noqa: NPY002  the global generators
    state = torch.get_rng_state()
    assert torch.equal(draw({name: True}, 20, image=NOISE), before)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(draw({name: True}, 20, seed=1, image=NOISE), before)
    assert len(tally(before)) > 10


def test_two_transforms_of_the_library_draw_apart() -> None:
    counts = tally(draw({"Transpose": {"p": 0.5}, "InvertImg": {"p": 0.5}}, 1000))
    assert len(counts) == 4
    assert all(190 < count < 310 for count in counts.values())


@pytest.mark.parametrize("name", ["TrivialAugment", "RandAugment"])
def test_policies_of_torchvision_change_a_share_p_of_the_images(name: str) -> None:
    found = draw({name: {"p": 0.3}}, 400, image=NOISE)
    assert 0.15 < (found != torch.from_numpy(NOISE)).flatten(1).any(1).float().mean() < 0.4
    strong, weak = ({"num_ops": 1, "magnitude": magnitude} for magnitude in (25, 1))
    if name == "RandAugment":
        errors = [(draw({name: c}, 100, image=NOISE) - torch.from_numpy(NOISE)).abs().mean() for c in (strong, weak)]
        assert errors[0] > 1.5 * errors[1]


def test_batched_and_single_transforms_mix_and_grey_levels_stay() -> None:
    config = {"Rotate": {"p": 1}, "Blur": {"p": 1}, "HorizontalFlip": {}, "Posterize": {"num_bits": 1, "p": 1}}
    found = draw(config, 8, image=NOISE)
    assert set(found.flatten().tolist()) == {0, 128}


# ---------------------------------------------------------------- alternating flip


def test_an_alternating_flip_mirrors_each_image_in_every_other_epoch() -> None:
    images = images_of(SQUARE, 400)
    index = torch.arange(400)
    augmenter = Augmenter(Augment.model_validate({"HorizontalFlip": {"alternate": True}}), images)
    generator = torch.Generator().manual_seed(3)

    def mirrored(epoch: int, augmenter: Augmenter = augmenter, order: Tensor = index) -> Tensor:
        batch = augmenter(images.pixels(order), generator, index=order, epoch=epoch)
        return (batch[:, 0, 0, 0] * 255).round() == 3

    first = mirrored(0)
    assert 150 < first.sum() < 250
    assert torch.equal(mirrored(1), ~first) and torch.equal(mirrored(2), first)
    again = torch.Generator()
    again.set_state(generator.get_state())
    generator = again
    resumed = Augmenter(Augment.model_validate({"HorizontalFlip": {"alternate": True}}), images)
    assert torch.equal(mirrored(2, resumed, index.flip(0)), first.flip(0))
    generator = torch.Generator().manual_seed(4)
    assert not torch.equal(mirrored(0), first)


# ---------------------------------------------------------------- nothing, and everything


def test_no_augmentation_draws_nothing_and_does_nothing() -> None:
    images = images_of(NOISE, 4)
    augmenter = Augmenter(Augment(), images)
    generator = torch.Generator().manual_seed(0)
    state = generator.get_state()
    assert augmenter.steps == ()
    assert torch.equal(augmenter(images.pixels(torch.arange(4)), generator), images.batch(torch.arange(4)))
    assert torch.equal(generator.get_state(), state)


def test_the_common_recipes_need_no_library() -> None:
    steps = Augmenter(Augment.model_validate({"standard": {}}), images_of(NOISE)).steps
    assert not any(isinstance(step, PerImage) for step in steps)
    assert isinstance(Augmenter(Augment.model_validate({"flip_crop": {}}), images_of(NOISE)).steps[0], Gather)


REQUIRED: dict[str, dict[str, Any]] = {
    "GridElasticDeform": {"num_grid_xy": [4, 4], "magnitude": 2},
    "RandomSizedCrop": {"min_max_height": [8, 16]},
    "CropAndPad": {"px": -2},
    "TimeMasking": {"time_mask_param": 10},
    "Affine": {"rotate": 30},
    "XYMasking": {"num_masks_x": [2, 2], "mask_x_length": [4, 4]},
}


@pytest.mark.parametrize("name", library())
def test_every_transform_of_the_library_works(name: str) -> None:
    config = Augment.model_validate({name: REQUIRED.get(name, {})})
    check(config, 32, 3)
    found = draw({name: {**REQUIRED.get(name, {}), "p": 1}}, 2, image=NOISE)
    assert found.shape == (2, 32, 32, 3)
    assert name == "NoOp" or not torch.equal(found, torch.from_numpy(NOISE).float().expand(2, -1, -1, -1))


def test_the_catalogue_is_the_librarys() -> None:
    assert catalogue.read() == library(), "run: python -m tuner.training.catalogue"


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (
            {"GaussNoise": {"std_range": [0.5, 3]}},
            "data.augment.GaussNoise.std_range: all values in (0.5, 3.0) must be >= 0",
        ),
        (
            {"CoarseDropout": {"num_holes_range": [0, 3]}},
            "data.augment.CoarseDropout.num_holes_range: all values in (0, 3)",
        ),
        ({"CropAndPad": {}}, "data.augment.CropAndPad: both px and percent parameters cannot be None"),
        ({"TimeMasking": {}}, "data.augment.TimeMasking: does not work on images of 32 x 32 x 3: mask_x_length range"),
        ({"Posterize": {"num_bits": 12}}, "got 12"),
    ],
)
def test_a_value_that_the_library_refuses_is_said_in_one_line(config: Any, said: str) -> None:
    with pytest.raises(BadInput) as caught:
        check(Augment.model_validate(config), 32, 3)
    assert said in str(caught.value) and "\n" not in str(caught.value) and "pydantic" not in str(caught.value)


def test_grey_images_where_a_transform_needs_colour_are_refused() -> None:
    check(Augment.model_validate({"ColorJitter": {}, "CoarseDropout": {"fill": [1, 2, 3]}}), 28, 1)
    with pytest.raises(BadInput, match=r"data.augment.ISONoise: does not work on images of 28 x 28 x 1"):
        check(Augment.model_validate({"ISONoise": {}, "standard": {}}), 28, 1)


@pytest.mark.parametrize("config", [{"RandomCrop": {"padding": 9}}, {"flip_crop": {"padding": 9}}])
def test_a_crop_that_leaves_little_of_an_image_is_refused(config: Any) -> None:
    check(Augment.model_validate(config), 18, 3)
    with pytest.raises(BadInput, match=r"RandomCrop\.padding: 9 pixels on images of 16 x 16 leave little of them"):
        check(Augment.model_validate(config), 16, 3)
