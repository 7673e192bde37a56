"""A grid is every combination once, conditional parameters included, and nothing is built ahead."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from tuner.errors import BadInput
from tuner.search import grid
from tuner.spec.check import walk
from tuner.spec.space import Space, parse_space


def space(model: str, train: str = "{}") -> Space:
    return parse_space(
        f"name: g\ndata: {{dataset: digits}}\nmodel: {model}\ntrain: {train}\nsearch: {{sampler: grid}}\n", "g"
    )


def test_points_are_the_product_in_the_order_written() -> None:
    found = list(grid.points(space("{name: cnn, depth: {int: [1, 2]}, width: {choice: [8, 16, 32]}}")))
    expected = [{"model.depth": d, "model.width": w} for d, w in itertools.product([1, 2], [8, 16, 32])]
    assert found == expected


def test_a_branch_counts_only_its_own_parameters() -> None:
    sgd = "{momentum: {choice: [0.8, 0.9]}, lr: 0.1}"
    train = f"{{optimizer: {{choice: {{adam: {{lr: {{choice: [0.1, 0.2]}}}}, sgd: {sgd}, rmsprop: {{}}}}}}}}"
    found = list(grid.points(space("cnn", train)))
    names = [tuple(point) for point in found]
    assert names == [("train.optimizer", "train.optimizer[adam].lr")] * 2 + [
        ("train.optimizer", "train.optimizer[sgd].momentum")
    ] * 2 + [("train.optimizer",)]


def test_items_of_blocks_that_do_not_exist_are_not_turned() -> None:
    model = "{name: cnn, depth: {int: [1, 2]}, width: [{choice: [8, 16]}, {choice: [8, 16]}]}"
    assert grid.size(space(model)) == 2 + 4


def test_a_stepped_range_has_its_steps() -> None:
    found = list(grid.points(space("{name: cnn, dropout: {uniform: [0, 0.5, 0.25]}}")))
    assert [point["model.dropout"] for point in found] == [0, 0.25, 0.5]


def test_a_space_without_parameters_has_one_point() -> None:
    assert list(grid.points(space("cnn"))) == [{}]


def test_a_continuous_range_is_refused_with_what_to_write() -> None:
    with pytest.raises(BadInput, match=r"model\.dropout: .*grid.*step"):
        space("{name: cnn, dropout: {uniform: [0, 0.5]}}")


def test_a_grid_of_10_to_the_10_is_refused_and_not_built() -> None:
    train = "{batch_size: {int: [1, 1000]}, optimizer: {name: adam, lr: {choice: [0.1, 0.2]}}}"
    wide = "{int: [1, 1000]}"
    model = (
        f"{{name: cnn, width: {wide}, convs: {{int: [1, 8]}}, growth: {{choice: [1, 2]}}, head: {{hidden: [{wide}]}}}}"
    )
    with pytest.raises(BadInput, match="more than 10,000 points"):
        grid.size(space(model, train))


def test_points_that_break_a_rule_are_counted_and_a_huge_range_is_not_built() -> None:
    assert grid.count(space("{name: cnn, kernel: {int: [3, 7]}}")) == 5
    assert grid.count(space("{name: cnn, width: {logint: [8, 100000]}}")) == 10_001


def test_the_size_of_a_space_is_counted_up_to_a_limit_or_endless() -> None:
    assert grid.count(space("{name: cnn, depth: {int: [1, 3]}}")) == 3
    text = "name: g\ndata: {dataset: digits}\nmodel: {name: cnn, dropout: {uniform: [0, 0.5]}}\n"
    assert grid.count(parse_space(text, "g")) is None
    assert (
        grid.count(space("{name: cnn, width: {int: [1, 1000]}, convs: {int: [1, 8]}, growth: {choice: [1, 2]}}"))
        == 10_001
    )


CONDITIONAL = """
model: {name: cnn, depth: {int: [1, 3]}, width: [{choice: [8, 16]}, 8, {choice: [4, 8, 16]}]}
train:
  optimizer:
    choice:
      adam: {lr: {choice: [0.1, 0.2]}, weight_decay: {uniform: [0, 1, 0.25]}}
      sgd: {lr: 0.1, momentum: {choice: [0.8, 0.9]}}
      rmsprop: {}
  schedule: {choice: {constant: {}, onecycle: {warmup: {choice: [0.1, 0.2]}}}}
"""


def test_points_under_conditions_are_counted_as_they_are_walked() -> None:
    where = parse_space(f"name: g\ndata: {{dataset: digits}}{CONDITIONAL}", "g")
    assert grid.count(where) == len(list(grid.points(where))) == (2 + 2 + 6) * (10 + 2 + 1) * (1 + 2)


def test_a_grid_of_many_small_conditional_choices_is_counted_in_a_few_walks(monkeypatch: pytest.MonkeyPatch) -> None:
    walks = 0

    def counted(*given: Any) -> Any:
        nonlocal walks
        walks += 1
        return walk(*given)

    monkeypatch.setattr(grid, "walk", counted)
    two = ", ".join(["{choice: [8, 16]}"] * 20)
    where = space(f"{{name: cnn, depth: {{int: [1, 20]}}, down: none, width: [{two}]}}")
    assert grid.count(where) == 10_001 and walks < 20


@pytest.mark.parametrize("dropout", ["{uniform: [0, 0.5, 1.0e-12]}", "{choice: [0, 0.1]}"])
def test_a_range_with_more_values_than_memory_is_refused_at_once(dropout: str) -> None:
    with pytest.raises(BadInput, match="more than 10,000 points"):
        grid.size(space(f"{{name: cnn, width: {{int: [1, 1000000000000]}}, dropout: {dropout}}}"))
