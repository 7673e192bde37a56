"""Trials of another space, or of this one before it changed, as knowledge."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from tuner.search.transfer import DoesNotFit, transfer
from tuner.spec.distributions import Plain
from tuner.spec.space import Space, parse_space

OLD = """
model: {name: cnn, depth: {int: [1, 4]}, width: {choice: [8, 16, 32]}}
train:
  optimizer:
    choice:
      adam: {lr: {loguniform: [1.0e-4, 1.0e-1]}}
      sgd: {lr: 0.1, momentum: {uniform: [0, 0.9]}}
"""
ADAM: dict[str, Plain] = {
    "model.depth": 2,
    "model.width": 16,
    "train.optimizer": "adam",
    "train.optimizer[adam].lr": 0.01,
}


def space(body: str) -> Space:
    return parse_space(f"name: s\ndata: {{dataset: digits}}\n{body}", "s")


def config(parameters: Mapping[str, Plain]) -> dict[str, Any]:
    return space(OLD).resolve(lambda p: parameters[p.name]).model_dump(mode="json")


def test_the_same_space_keeps_every_parameter() -> None:
    assert transfer(space(OLD), ADAM, config(ADAM)) == ADAM


def test_a_wider_range_keeps_the_trial_and_a_narrower_one_says_which_value_is_out() -> None:
    wide = space(OLD.replace("[1, 4]", "[1, 6]"))
    assert transfer(wide, ADAM, config(ADAM)) == ADAM
    narrow = space(OLD.replace("[1, 4]", "[3, 4]"))
    with pytest.raises(DoesNotFit, match=r"model\.depth: 2 is outside 3 \.\. 4"):
        transfer(narrow, ADAM, config(ADAM))


def test_a_parameter_that_is_new_takes_what_was_fixed_before() -> None:
    found = transfer(space(OLD.replace("depth:", "dropout: {uniform: [0, 0.5]}, depth:")), ADAM, config(ADAM))
    assert found == {**ADAM, "model.dropout": 0.0}


def test_a_parameter_that_is_fixed_now_must_have_had_that_value() -> None:
    fixed = OLD.replace("{choice: [8, 16, 32]}", "16")
    assert transfer(space(fixed), ADAM, config(ADAM)).keys() == ADAM.keys() - {"model.width"}
    with pytest.raises(DoesNotFit, match=r"model\.width was 16, the space has 32"):
        transfer(space(fixed.replace("width: 16", "width: 32")), ADAM, config(ADAM))


def test_a_choice_under_another_label_is_found_by_its_kind() -> None:
    flat = (
        "model: {name: cnn, depth: {int: [1, 4]}, width: {choice: [8, 16]}}\n"
        "train: {optimizer: {name: {choice: [adam, sgd]}, lr: {loguniform: [1.0e-4, 0.5]}}}"
    )
    found = transfer(space(flat), ADAM, config(ADAM))
    assert found == {"model.depth": 2, "model.width": 16, "train.optimizer.name": "adam", "train.optimizer.lr": 0.01}


def test_other_images_or_another_length_still_teach() -> None:
    longer = OLD.replace("train:", "train:\n  epochs: 30")
    other = parse_space(f"name: s\ndata: {{dataset: shapes}}\n{longer}", "s")
    assert transfer(other, ADAM, config(ADAM)) == ADAM


def test_a_starting_fixed_setting_that_differs_does_not_fit() -> None:
    with pytest.raises(DoesNotFit, match=r"train\.batch_size was 64, the space has 128"):
        transfer(space(OLD.replace("train:", "train:\n  batch_size: 128")), ADAM, config(ADAM))
