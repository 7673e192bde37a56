"""data.augment: names, arguments, order and presets, and what is said of mistakes."""

import pickle
import subprocess
import sys
from typing import Any

import pytest
from pydantic import ValidationError

from tuner.errors import BadInput
from tuner.spec.augment import Augment
from tuner.spec.distributions import WORDS
from tuner.spec.space import Space, parse_space
from tuner.spec.transforms import ALIASES, OURS, REFUSED, arguments_of, library, names, section_of
from tuner.spec.trial_config import TrialConfig

TEXT = "name: test\nmodel: cnn\ndata: {dataset: digits, augment: %s}\n"
STUDY = """{
  HorizontalFlip: {p: 0.5},
  ShiftScaleRotate: {shift_limit: {uniform: [0, 0.2]}, scale_limit: 0.1, rotate_limit: {uniform: [0, 30]}, p: 0.5},
  CoarseDropout: {choice: {without: null, with: {hole_height_range: [16, 16], hole_width_range: [16, {int: [4, 16]}]}}},
  ColorJitter: {choice: {without: null, with: {brightness: {uniform: [0.05, 0.4]}}}},
  TrivialAugment: {choice: [true, false]}}"""


def parse(text: str) -> Space:
    return parse_space(TEXT % text.replace("\n", ""), "f")


def read(config: Any) -> Augment:
    return Augment.model_validate(config)


def used(augment: Augment) -> list[str]:
    return [name for name, _ in augment.transforms]


def test_every_argument_may_be_searched() -> None:
    space = parse(STUDY)
    assert [p.name.removeprefix("data.augment.") for p in space.parameters] == [
        "ShiftScaleRotate.shift_limit",
        "ShiftScaleRotate.rotate_limit",
        "CoarseDropout",
        "CoarseDropout[with].hole_width_range.1",
        "ColorJitter",
        "ColorJitter[with].brightness",
        "TrivialAugment",
    ]
    found = space.resolve(lambda p: p.distribution.values()[-1]).data.augment
    assert used(found) == ["HorizontalFlip", "ShiftScaleRotate", "CoarseDropout", "ColorJitter"]
    assert found.ShiftScaleRotate.rotate_limit == 30
    assert found.CoarseDropout.hole_width_range == (16, 16)
    assert found.TrivialAugment is None


def test_true_is_with_defaults_and_false_and_null_are_not_used() -> None:
    assert used(read({"Blur": True, "Transpose": None, "VerticalFlip": False, "Erasing": {}})) == ["Blur", "Erasing"]
    assert read({"Blur": True}) == read({"Blur": {}}) != read({})
    assert read({"Blur": None}) == read({}) == Augment()


def test_the_order_of_the_file_survives_the_way_to_a_worker() -> None:
    order = ["Rotate", "HorizontalFlip", "Affine", "CoarseDropout", "Blur"]
    for names_of_it in (order, order[::-1]):
        config = TrialConfig.model_validate(
            {"data": {"dataset": "digits", "augment": dict.fromkeys(names_of_it, True)}}
        )
        there = TrialConfig.model_validate_json(config.model_dump_json())
        back = TrialConfig.model_validate(there.model_dump(mode="json"))
        assert used(config.data.augment) == used(back.data.augment) == names_of_it
        assert config == there == back == pickle.loads(pickle.dumps(config))


def test_another_order_is_another_augmentation() -> None:
    assert read({"Rotate": {}, "Blur": {}}) != read({"Blur": {}, "Rotate": {}})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{Afine: {}}", "f:3:35: data.augment.Afine: no such field of augment; did you mean Affine?"),
        ("{Affine: {rotat: 1}}", "f:3:44: data.augment.Affine.rotat: no such field of Affine; did you mean rotate?"),
        ("{CoarseDropout: {max_holes: 1}}", "data.augment.CoarseDropout.max_holes: no such field of CoarseDropout"),
        ("{Resize: {height: 8, width: 8}}", "f:3:35: data.augment.Resize: changes the size of the images"),
        ("{Crop: null}", "data.augment.Crop: changes the size of the images"),
        ("{FDA: {}}", "data.augment.FDA: needs other images"),
        ("{Rotate: {p: 2}}", "f:3:44: data.augment.Rotate.p: must be at most 1, got 2"),
        ("{Rotate: {interpolation: 1}}", "Rotate.interpolation: must be one of nearest, linear, cubic, area, lanczos4"),
        ("{Rotate: {border_mode: wrapped}}", "must be one of constant, replicate, reflect, wrap, reflect_101, got"),
        ("{Affine: {scale: 1.2}}", "data.augment.Affine.scale: must be below 1, got 1.2"),
        ("{Affine: {rotate: [1, 2, 3]}}", "data.augment.Affine.rotate: has too many items"),
        ("{Affine: {shear: {x: 1}}}", "data.augment.Affine.shear.y: is missing"),
        ("{Blur: {blur_limit: {uniform: [3, 7]}}}", "Blur.blur_limit: must be a whole number; write {int: [low"),
        ("{Blur: 3}", "data.augment.Blur: must be a mapping of its fields, got 3"),
        ("{GridElasticDeform: {magnitude: 1}}", "data.augment.GridElasticDeform.num_grid_xy: is missing"),
        ("{Normalize: {mean: 0.5}}", "data.augment.Normalize.mean: no such field of Normalize"),
        ("{Normalize: {}, Blur: {}}", "data.augment: Normalize comes last"),
        ("{HorizontalFlip: {alternate: true, p: 0.2}}", "data.augment.HorizontalFlip: alternate flips each image"),
        ("{RandAugment: {magnitude: 31}}", "data.augment.RandAugment: magnitude must be below num_magnitude_bins"),
        ("{flip_crop: {}, RandomCrop: {}}", "data.augment: flip_crop has RandomCrop already; write either the preset"),
        ("{standard: {}, flip_crop: {}}", "has HorizontalFlip already; write either the preset or its transforms"),
        ("{standard: {rotate: 15}}", "standard.rotate: no such field of standard; did you mean rotate_limit?"),
        ("[Blur]", "data.augment: must be a mapping of its fields"),
        ("standart", "data.augment: no such augment: standart; did you mean standard?"),
    ],
)  # fmt: skip
def test_mistakes_are_said_where_they_are(text: str, said: str) -> None:
    with pytest.raises(BadInput) as caught:
        parse(text)
    assert said in str(caught.value)
    assert len(caught.value.problems) == 1


def test_an_unknown_name_of_a_config_is_an_error_too() -> None:
    with pytest.raises(ValidationError, match="no such transform: Blurr; did you mean Blur"):
        read({"Blurr": {}})


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"Affine": {"rotate": 15}}, {"rotate": (-15, 15), "scale": (1, 1), "shear": (0, 0)}),
        ({"Affine": {"scale": 0.25, "rotate": [0, 15]}}, {"rotate": (0, 15), "scale": (0.75, 1.25)}),
        ({"Affine": {"translate_px": 2}}, {"translate_px": (-2, 2), "translate_percent": None}),
        ({"Affine": {"shear": {"x": 5, "y": [0, 2]}}}, {"shear": {"x": (-5, 5), "y": (0, 2)}}),
        ({"ShiftScaleRotate": {"scale_limit": 0.2}}, {"scale_limit": (-0.2, 0.2), "shift_limit_x": None}),
        ({"ColorJitter": {"contrast": 0.25, "hue": 0.1}}, {"contrast": (0.75, 1.25), "hue": (-0.1, 0.1)}),
        ({"Affine": {"border_mode": "reflect_101", "interpolation": "cubic"}}, {"border_mode": 4, "interpolation": 2}),
        ({"Downscale": {}}, {"interpolation_pair": {"upscale": 0, "downscale": 0}}),
        ({"RandomErasing": {"scale": [0.1, 0.2]}}, {"scale": (0.1, 0.2)}),
    ],
)
def test_a_bare_number_is_a_limit_to_both_sides_and_words_are_opencvs(config: Any, expected: Any) -> None:
    ((name, section),) = read(config).transforms
    found = arguments_of(name, section)
    assert {key: found[key] for key in expected} == expected


def test_presets_stand_for_their_transforms() -> None:
    text = "{choice: {off: none, crop: {flip_crop: {padding: {int: [1, 3]}}}, all: {standard: {rotate_limit: 5}}}}"
    space = parse(text)
    off, crop, whole = (
        space.resolve(lambda p, label=label: label if p.name == "data.augment" else 3).data.augment  # type: ignore[misc]
        for label in ("off", "crop", "all")
    )
    assert off == Augment()
    assert used(crop) == ["HorizontalFlip", "RandomCrop"] and dict(crop.transforms)["RandomCrop"].padding == 3  # type: ignore[attr-defined]
    assert used(whole) == ["HorizontalFlip", "ShiftScaleRotate", "CoarseDropout"]
    assert parse("standard").fixed.data.augment == read({"standard": {}})


def test_what_there_is_can_be_listed_and_described() -> None:
    fields = {name: Augment.field(name) for name in Augment.known()}
    assert {"HorizontalFlip", "Affine", "TrivialAugment", "RandomErasing", "standard"} <= set(fields)
    assert all(info is not None and info.description for info in fields.values())
    assert Augment.field("Nothing") is None
    assert not set(REFUSED) & {*names(), *OURS, *ALIASES}
    assert set(Augment.model_json_schema()["properties"]) == set(names())


def test_no_argument_is_called_like_a_distribution() -> None:
    sections = [section_of(name) for name in names()]
    assert not {field for section in sections if section for field in section.model_fields} & set(WORDS)
    assert len(library()) > 70


def test_the_catalogue_is_read_only_where_a_file_names_a_transform() -> None:
    code = (
        "from tuner.spec.space import parse_space; from tuner.spec.transforms import library;"
        "parse_space('name: a\\nmodel: cnn\\ndata: {dataset: digits, augment: flip_crop}', 'f');"
        "print(library.cache_info().currsize)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0"
