"""Configurations in words."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.comparison import recipe


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ({"name": "cnn", "depth": 3, "width": 32, "convs": 1, "growth": 2.0}, "cnn, 3 blocks, width 32"),
        (
            {"name": "cnn", "depth": 1, "width": 8, "convs": 2, "growth": 1.5, "kind": "separable", "residual": True},
            "cnn, 1 block, width 8, growth 1.5, 2 convolutions each, separable, residual",
        ),
        ({"name": "cnn", "blocks": [{"width": 16}, {"width": 64}]}, "cnn, 2 blocks, widths 16-64"),
        ({"name": "resnet", "depth": 14, "width": 16, "dropout": 0}, "resnet, depth 14, width 16"),
        ({"name": "backbone", "arch": "resnet18", "weights": "imagenet"}, "resnet18, weights imagenet"),
        ({"name": "nets:tiny", "units": 7}, "nets:tiny, units 7"),
        ({"name": "a\nb\x1b[31m"}, "a b [31m"),
    ],
)
def test_a_network_in_words(model: Any, words: str) -> None:
    assert recipe.network({"model": model}) == words


def test_augmentation_in_words() -> None:
    config = {"data": {"augment": {"HorizontalFlip": {"p": 0.5}, "RandomCrop": None}}, "train": {"cutmix": 1.0}}
    assert recipe.augmentation(config) == "horizontal flip, cutmix 1"
    assert recipe.augmentation({"data": {"augment": {}}, "train": {}}) == "none"


json_values = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=True) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=40)
@given(st.dictionaries(st.sampled_from(["model", "train", "data", "layers", "x"]), json_values | st.fixed_dictionaries(
    {"name": st.sampled_from(["cnn", "backbone", "u:v", 3]), "depth": json_values, "blocks": json_values,
     "schedule": json_values, "augment": json_values, "cutmix": json_values})))  # fmt: skip
def test_any_configuration_has_words(config: dict[str, Any]) -> None:
    for words in (recipe.network(config), recipe.schedule(config), recipe.augmentation(config)):
        assert words
        assert "\n" not in words
