"""Distributions against Optuna's own, as the oracle."""

import json
from typing import Any

import optuna
import pytest

from tuner.spec.distributions import Choice, Distribution, Int, LogInt, LogUniform, Uniform, text_of

PAIRS = [
    (
        Choice((1, "a", None, True), (1, "a", None, True)),
        optuna.distributions.CategoricalDistribution((1, "a", None, True)),
    ),
    (Uniform(0.0, 0.5), optuna.distributions.FloatDistribution(0, 0.5)),
    (Uniform(0.0, 0.5, 0.1), optuna.distributions.FloatDistribution(0, 0.5, step=0.1)),
    (LogUniform(1e-4, 0.1), optuna.distributions.FloatDistribution(1e-4, 0.1, log=True)),
    (Int(1, 4), optuna.distributions.IntDistribution(1, 4)),
    (Int(1, 9, 2), optuna.distributions.IntDistribution(1, 9, step=2)),
    (LogInt(1, 64), optuna.distributions.IntDistribution(1, 64, log=True)),
]


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_the_json_form_is_optunas(ours: Distribution, theirs: Any) -> None:
    assert ours.to_optuna_json() == json.loads(optuna.distributions.distribution_to_json(theirs))


@pytest.mark.parametrize(("ours", "theirs"), PAIRS[1:])
def test_contains_agrees_with_optuna(ours: Distribution, theirs: Any) -> None:
    inside = [theirs.to_internal_repr(v) for v in ours.values()]
    assert all(theirs._contains(v) for v in inside)
    for value in (-1, 0, 0.05, 0.1, 0.30000000000000004, 0.5, 0.6, 2, 3, 4, 64, 65):
        if isinstance(ours, Uniform | LogUniform) or isinstance(value, int):
            assert ours.contains(value) == theirs._contains(value), value


def test_one_and_true_and_text_are_no_members_of_each_other() -> None:
    choice = Choice((1, "a"), (1, "a"))
    assert choice.contains(1)
    assert not choice.contains(True)
    assert not choice.contains("1")
    assert not Int(0, 3).contains(True)
    assert not Uniform(0.0, 1.0).contains("0.5")


def test_a_grid_walks_both_ends() -> None:
    assert Uniform(0.0, 0.3, 0.1).grid() == pytest.approx((0, 0.1, 0.2, 0.3))
    assert Int(1, 5, 2).grid() == (1, 3, 5)
    assert LogInt(1, 3).grid() == (1, 2, 3)
    assert Uniform(0.0, 1.0).grid() is None
    assert LogUniform(0.1, 1.0).grid() is None


@pytest.mark.parametrize("ours", [ours for ours, _ in PAIRS])
def test_the_size_of_a_grid_is_counted_without_building_it(ours: Distribution) -> None:
    grid = ours.grid()
    assert ours.count() == (None if grid is None else len(grid))
    assert Uniform(1.0, 1e12, 1.0).count() == Int(1, 10**12).count() == LogInt(1, 10**12).count() == 10**12


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ([32, 64], "32-64"),
        (0.1, "0.1"),
        (1e-4, "0.0001"),
        (3.0, "3"),
        (True, "true"),
        (None, "null"),
        ("a", "a"),
        (1 / 3, repr(1 / 3)),
    ],
)
def test_labels_are_short_and_exact(value: object, text: str) -> None:
    assert text_of(value) == text


def test_only_choices_of_numbers_are_ordered() -> None:
    assert Choice((1, 2.5), (1, 2.5)).ordered
    assert not Choice((1, None), (1, None)).ordered
    assert not Choice((True, False), (True, False)).ordered
    assert Int(1, 2).ordered
