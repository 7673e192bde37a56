"""Before anything is spent: sizes, and what cannot be built."""

from __future__ import annotations

import random

import pytest

from tuner.errors import BadInput, Infeasible
from tuner.search.preflight import Size, draw, keeping, look, resolve
from tuner.spec.distributions import Choice, Int, LogInt, LogUniform, Uniform
from tuner.spec.model import Cnn
from tuner.spec.objective import parse_constraint
from tuner.spec.space import Parameter, Space, parse_space
from tuner.spec.trial_config import TrialConfig


def space(depth: str) -> Space:
    return parse_space(f"name: p\ndata: {{dataset: digits}}\nmodel: {{name: cnn, depth: {depth}}}\n", "p")


def cnn(config: TrialConfig) -> Cnn:
    assert isinstance(config.model, Cnn)
    return config.model


def by_depth(config: TrialConfig) -> Size:
    if cnn(config).depth > 3:
        raise Infeasible(f"depth {cnn(config).depth} pools the image away")
    return Size(100 * cnn(config).depth, 10 * cnn(config).depth)


def test_both_ends_are_always_looked_at() -> None:
    seen = look(space("{int: [1, 3]}"), by_depth)
    assert (seen.smallest, seen.largest, seen.feasible) == (Size(100, 10), Size(300, 30), 1.0)


def test_the_share_that_can_be_built_is_told_with_a_reason() -> None:
    seen = look(space("{int: [1, 4]}"), by_depth)
    assert 0.6 < seen.feasible < 0.9 and seen.reason == "depth 4 pools the image away"


def test_a_space_of_which_nothing_can_be_built_is_refused() -> None:
    with pytest.raises(
        BadInput,
        match="no configuration of this space can be trained; of 2,202 drawn the nearest: depth 4 pools the image away",
    ):
        look(space("{int: [4, 5]}"), by_depth)


def test_a_space_without_parameters_is_one_configuration() -> None:
    assert cnn(look(space("2"), by_depth).middle).depth == 2


@pytest.mark.parametrize(
    "distribution",
    [
        Choice(("a", None, 3), ("a", None, 3)),
        Uniform(0, 1),
        Uniform(0, 1, 0.25),
        LogUniform(1e-4, 1e-1),
        Int(1, 9, 2),
        LogInt(1, 100),
    ],
    ids=lambda d: type(d).__name__,
)
def test_draws_stay_in_their_distribution_and_reach_its_ends(
    distribution: Choice | Uniform | LogUniform | Int | LogInt,
) -> None:
    chance = random.Random(0)
    values = [draw(Parameter("p", "p", distribution), chance) for _ in range(2000)]
    assert all(distribution.contains(v) for v in values)
    grid = distribution.grid()
    if grid is not None and len(grid) < 20:
        assert set(values) == set(grid)


def test_values_that_break_a_rule_together_count_as_impossible_to_build() -> None:
    text = "name: p\ndata: {dataset: digits}\nmodel: {name: cnn, dropout: {uniform: [0, 0.5]}}\n"
    with pytest.raises(Infeasible, match=r"model\.dropout"):
        resolve(parse_space(text, "p"), lambda p: 5.0)


def test_a_counted_constraint_refuses_before_anything_is_trained() -> None:
    count = keeping(by_depth, [parse_constraint("params <= 250"), parse_constraint("latency_ms <= 5")])
    assert count(space("2").resolve(lambda p: 2)) == Size(200, 20)
    with pytest.raises(Infeasible, match="params 300 breaks params <= 250"):
        count(space("3").resolve(lambda p: 3))


def test_the_share_that_keeps_a_constraint_is_shown() -> None:
    seen = look(space("{int: [1, 3]}"), keeping(by_depth, [parse_constraint("flops <= 40")]))
    assert 0.5 < seen.feasible < 0.8 and seen.largest.flops == 40


def test_a_constraint_that_nothing_keeps_is_refused_with_the_nearest_miss() -> None:
    with pytest.raises(BadInput, match="of 2,202 drawn the nearest: params 100 breaks params <= 50"):
        look(space("{int: [1, 3]}"), keeping(by_depth, [parse_constraint("params <= 50")]))


def test_a_starting_point_that_breaks_a_constraint_is_refused_by_name() -> None:
    text = "name: p\ndata: {dataset: digits}\nmodel: {name: cnn, depth: {int: [1, 3]}}\n"
    wanted = parse_space(f"{text}search: {{start_from: [{{label: mine, model.depth: 3}}]}}\n", "p")
    with pytest.raises(BadInput, match="mine cannot be trained: params 300 breaks params <= 250"):
        look(wanted, keeping(by_depth, [parse_constraint("params <= 250")]))


def test_a_range_with_more_values_than_memory_is_drawn_from() -> None:
    for distribution in (Int(1, 10**12, 3), Uniform(0, 1, 1e-12)):
        assert distribution.contains(draw(Parameter("p", "p", distribution), random.Random(0)))


def test_a_share_too_small_for_the_first_look_is_told_as_it_was_found() -> None:
    def one_width_of_500(config: TrialConfig) -> Size:
        if cnn(config).width != 250:
            raise Infeasible("another width")
        return Size(1, 1)

    text = "name: p\ndata: {dataset: digits}\nmodel: {name: cnn, width: {int: [1, 500]}}\n"
    assert 1 / 2200 < look(parse_space(text, "p"), one_width_of_500).feasible < 1 / 200
