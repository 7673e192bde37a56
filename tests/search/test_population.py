"""A population's rounds: who copies whom, what changes, and that nobody waits for ever."""

from __future__ import annotations

import math
import random
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.errors import BadInput
from tuner.search.population import Exploit, Population, mutable, perturb
from tuner.search.preflight import draw
from tuner.spec.distributions import Choice, Distribution, Int, LogInt, LogUniform, Plain, Uniform
from tuner.spec.search import Pbt
from tuner.spec.space import Parameter, Space, parse_space

FULL = 12
BODY = """
name: s
data:
  dataset: digits
  augment: {RandomCrop: {choice: {without: null, with: {padding: {int: [1, 4]}, p: {uniform: [0.5, 1]}}}}}
model: {name: cnn, depth: {int: [1, 3]}, width: {choice: [8, 16]}, dropout: {uniform: [0, 0.5, 0.05]}}
train:
  epochs: 12
  batch_size: {choice: [16, 32, 64]}
  optimizer:
    choice:
      adam: {lr: {loguniform: [1.0e-4, 1.0e-1]}}
      sgd: {lr: {loguniform: [1.0e-3, 1]}, momentum: {uniform: [0, 0.9]}}
"""
SPACE = parse_space(BODY, "s")
FIXED = {"model.depth", "model.width", "train.optimizer"}
"""Names that no running trial can change."""


def drawn(seed: int, space: Space = SPACE) -> dict[str, Plain]:
    chance, found = random.Random(seed), dict[str, Plain]()

    def choose(parameter: Parameter) -> Plain:
        found[parameter.name] = draw(parameter, chance)
        return found[parameter.name]

    space.resolve(choose)
    return found


def make(
    members: int = 8, *, config: Pbt | None = None, space: Space = SPACE, seed: int = 0, first: int = 0
) -> Population:
    """A population whose members have joined."""
    found = Population(space, config or Pbt(), size=members, full=FULL, seed=seed)
    for number in range(members):
        found.join(f"{number:03d}", drawn(first + number, space))
    return found


def decide(population: Population, scores: list[float], epoch: int = 4) -> tuple[Exploit, ...]:
    for number, score in enumerate(scores):
        assert population.enter(f"{number:03d}", epoch, score)
    changes = population.decide()
    assert changes is not None
    return changes


SCORES = st.lists(st.sampled_from([-math.inf, 0.1, 0.2, 0.3, 0.4]), min_size=1, max_size=9)


# ---------------------------------------------------------------- who copies whom


def test_the_worst_quarter_copies_the_best_quarter() -> None:
    changes = decide(make(), [0.5, 0.9, 0.1, 0.6, 0.4, 0.2, 0.8, 0.7])
    assert [c.trial for c in changes] == ["005", "002"]
    assert {c.source for c in changes} <= {"001", "006"}
    place = {"001": 1, "006": 2}[changes[1].source]
    assert changes[1].reason == f"round at epoch 4: place 8 of 8, goes on from {changes[1].source} in place {place}"


def test_every_one_of_the_best_is_copied_at_some_seed() -> None:
    sources = {decide(make(seed=seed), [i / 10 for i in range(8)])[0].source for seed in range(20)}
    assert sources == {"006", "007"}


@pytest.mark.parametrize(
    ("members", "share", "replaced"),
    [(1, 0.5, 0), (2, 0.5, 1), (3, 0.25, 0), (3, 0.5, 1), (4, 0.01, 1), (5, 0.5, 2), (8, 0.25, 2), (100, 0.29, 29)],
)
def test_so_many_are_replaced(members: int, share: float, replaced: int) -> None:
    changes = decide(make(members, config=Pbt(share=share)), [i / members for i in range(members)])
    assert len(changes) == replaced


@given(SCORES, st.floats(0.01, 0.5), st.integers(0, 5))
def test_nobody_is_copied_and_replaced_and_no_copy_is_of_a_lower_or_no_score(
    scores: list[float], share: float, seed: int
) -> None:
    changes = decide(make(len(scores), config=Pbt(share=share), seed=seed), scores)
    assert not {c.trial for c in changes} & {c.source for c in changes}
    kept = [s for i, s in enumerate(scores) if f"{i:03d}" not in {c.trial for c in changes}]
    for change in changes:
        assert scores[int(change.source)] >= max(scores[int(change.trial)], 0.1)
        assert scores[int(change.trial)] <= min(kept)


def test_a_score_that_is_not_a_number_is_the_worst_and_equal_ones_rank_by_id() -> None:
    for place in range(4):
        scores = [0.1, 0.2, 0.3]
        assert [c.trial for c in decide(make(4), [*scores[:place], math.nan, *scores[place:]])] == [f"{place:03d}"]
    assert [(c.trial, c.source) for c in decide(make(4), [0.5] * 4)] == [("003", "000")]
    assert decide(make(4), [-math.inf] * 4) == ()


def test_two_that_are_replaced_in_a_round_change_each_in_its_own_way() -> None:
    rounds = [decide(make(seed=seed), [i / 10 for i in range(8)]) for seed in range(20)]
    assert any(a.source != b.source for a, b in rounds)
    assert any(a.source == b.source and a.parameters != b.parameters for a, b in rounds)


# ---------------------------------------------------------------- when


@pytest.mark.parametrize(("epoch", "waits"), [(1, False), (4, True), (6, False), (8, True), (12, False), (16, False)])
def test_members_wait_at_multiples_of_every_below_the_full_length(epoch: int, waits: bool) -> None:
    assert make().enter("000", epoch, 0.5) == waits


def test_nothing_is_decided_while_somebody_has_not_joined_or_not_arrived() -> None:
    population = Population(SPACE, Pbt(), size=3, full=FULL, seed=0)
    assert population.decide() is None
    for number in range(2):
        population.join(f"{number:03d}", drawn(number))
        population.enter(f"{number:03d}", 4, 0.5)
    assert population.decide() is None  # the third has not joined
    population.join("002", drawn(2))
    assert population.decide() is None  # it has not arrived
    population.enter("002", 4, 0.5)
    assert population.decide() == ()


def test_a_smaller_size_and_a_member_that_left_are_not_waited_for() -> None:
    population = make(3)
    population.size = 4
    for number in range(2):
        population.enter(f"{number:03d}", 4, 0.5)
    population.leave("002")
    assert population.decide() is None
    population.size = 3
    assert population.decide() == ()
    assert not population.enter("002", 8, 0.9)


def test_release_lets_all_of_the_round_go_on_in_the_order_of_joining() -> None:
    population = make(3)
    for trial in ("002", "000", "001"):
        population.enter(trial, 4, 0.5)
    assert population.release() == ("000", "001", "002")
    assert not population.waiting and population.decide() is None and population.release() == ()


def test_members_that_joined_later_catch_up_before_they_are_compared() -> None:
    population = make(4)
    for trial in ("000", "001"):
        population.enter(trial, 8, 0.9)
    for trial in ("002", "003"):
        population.enter(trial, 4, 0.1)
    assert population.decide() == ()
    assert population.release() == ("002", "003")
    assert population.decide() is None
    for trial in ("002", "003"):
        population.enter(trial, 8, 0.1)
    assert [c.trial for c in population.decide() or ()] == ["003"]


def test_a_second_score_at_a_milestone_changes_nothing() -> None:
    population = make(4)
    for number in range(4):
        population.enter(f"{number:03d}", 4, number / 10)
    before = population.decide()
    assert population.enter("003", 4, -1.0)
    assert population.decide() == before


# ---------------------------------------------------------------- the same whatever happens


@given(SCORES, st.randoms(use_true_random=False))
def test_any_order_of_arrival_gives_the_same_changes(scores: list[float], chance: random.Random) -> None:
    straight, shuffled = make(len(scores)), make(len(scores))
    expected = decide(straight, scores)
    for number in chance.sample(range(len(scores)), len(scores)):
        shuffled.enter(f"{number:03d}", 4, scores[number])
    assert shuffled.decide() == expected


@given(SCORES, st.integers(0, 5))
def test_a_round_decides_the_same_however_often_asked_also_in_the_midst_of_its_changes(
    scores: list[float], seed: int
) -> None:
    population = make(len(scores), seed=seed)
    changes = decide(population, scores)
    for change in changes:
        population.change(change.trial, change.parameters)
        assert population.decide() == changes


def test_another_seed_or_epoch_changes_otherwise() -> None:
    scores = [i / 10 for i in range(8)]
    assert decide(make(seed=0), scores) != decide(make(seed=1), scores)
    later = tuple(replace(c, epoch=4, reason="") for c in decide(make(seed=0), scores, epoch=8))
    assert later != tuple(replace(c, reason="") for c in decide(make(seed=0), scores))


Line = tuple[str, tuple[Any, ...]]
"""A method of a population and what it was called with: what a run folder records."""


def live(members: int, seed: int, death: float) -> tuple[list[Line], dict[int, tuple[Exploit, ...]]]:
    """A whole search of members that train at random times and may die; its lines, and what was decided after which."""
    chance, lines, decided = random.Random(seed), list[Line](), dict[int, tuple[Exploit, ...]]()
    population = empty(members, seed)

    def do(name: str, *said: Any) -> Any:
        lines.append((name, said))
        return getattr(population, name)(*said)

    epochs = {f"{number:03d}": 0 for number in range(members)}
    for trial in epochs:
        do("join", trial, drawn(int(trial)))
    running = set(epochs)
    while running:
        trial = chance.choice(sorted(running))
        epochs[trial] += 1
        if do("enter", trial, epochs[trial], chance.random()):
            running.remove(trial)
        if epochs[trial] == FULL or chance.random() < death:
            do("leave", trial)
            running.discard(trial)
        if not running and (changes := population.decide()) is not None:
            decided[len(lines)] = changes
            for change in changes:
                do("change", change.trial, change.parameters)
            running |= set(do("release"))
    assert not population.waiting
    return lines, decided


def empty(members: int, seed: int) -> Population:
    return Population(SPACE, Pbt(every=3), size=members, full=FULL, seed=seed)


@given(st.integers(1, 7), st.integers(0, 1000), st.sampled_from([0.0, 0.05, 0.3]))
def test_nobody_waits_for_ever_whoever_leaves(members: int, seed: int, death: float) -> None:
    lines, decided = live(members, seed, death)
    assert {said[0] for name, said in lines if name == "leave"} == {f"{number:03d}" for number in range(members)}
    assert death or len(decided) == 3


@given(st.integers(2, 7), st.integers(0, 1000), st.sampled_from([0.0, 0.05]))
def test_a_population_replayed_from_its_lines_decides_on_as_it_would_have(
    members: int, seed: int, death: float
) -> None:
    lines, decided = live(members, seed, death)
    replayed = empty(members, seed)
    for number, (name, said) in enumerate(lines):
        if number in decided:
            assert replayed.decide() == decided[number]
        getattr(replayed, name)(*said)


# ---------------------------------------------------------------- what changes


@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.25, 1.0]))
def test_a_copy_is_a_configuration_that_keeps_what_the_sources_weights_need(first: int, resample: float) -> None:
    population = make(4, config=Pbt(resample=resample), first=first, seed=first)
    (change,) = decide(population, [0.4, 0.3, 0.2, 0.1])
    source, asked = drawn(first + int(change.source)), dict[str, Plain]()

    def choose(parameter: Parameter) -> Plain:
        asked[parameter.name] = change.parameters[parameter.name]
        return asked[parameter.name]

    SPACE.resolve(choose)  # refuses what is none of a parameter's values
    assert asked == change.parameters
    assert {n: v for n, v in change.parameters.items() if n in FIXED} == {n: source[n] for n in FIXED}


def test_a_member_that_changed_is_copied_as_it_is_now() -> None:
    population = make(4)
    now = {**drawn(0), "model.depth": 3, "model.width": 16}
    assert now != drawn(0)
    population.change("000", now)
    (change,) = decide(population, [0.4, 0.3, 0.2, 0.1])
    assert {n: change.parameters[n] for n in FIXED} == {n: now[n] for n in FIXED}


def test_only_what_mutate_names_changes() -> None:
    config = Pbt(mutate=("train.optimizer.lr",), resample=0)
    for first in range(20):
        (change,) = decide(make(4, config=config, first=first), [0.4, 0.3, 0.2, 0.1])
        source = drawn(first)
        (name,) = (n for n in source if n.endswith(".lr"))
        assert {n: v for n, v in change.parameters.items() if n != name} == {
            n: v for n, v in source.items() if n != name
        }
        lr, old = change.parameters[name], source[name]
        assert isinstance(lr, float) and isinstance(old, float)
        low, high = (1e-4, 1e-1) if "adam" in name else (1e-3, 1.0)
        assert lr in [pytest.approx(min(max(old * factor, low), high)) for factor in (0.8, 1.2)]


def changed_rates(resample: float) -> list[float]:
    """How many times as large as the source's the copy's rate is, over many rounds."""
    space = parse_space(
        "name: s\ndata: {dataset: digits}\ntrain: {optimizer: {name: sgd, lr: {loguniform: [1.0e-6, 1]}}}", "s"
    )
    found = []
    for seed in range(200):
        population = Population(space, Pbt(resample=resample), size=4, full=FULL, seed=seed)
        for number in range(4):
            population.join(f"{number:03d}", {"train.optimizer.lr": 1e-3})
        rate = decide(population, [0.4, 0.3, 0.2, 0.1])[0].parameters["train.optimizer.lr"]
        assert isinstance(rate, float)
        found.append(round(rate / 1e-3, 6))
    return found


def test_resample_is_the_share_that_is_drawn_anew() -> None:
    counts = Counter(changed_rates(0))
    assert counts.keys() == {0.8, 1.2} and min(counts.values()) > 70
    assert sum(rate in (0.8, 1.2) for rate in changed_rates(0.25)) / 200 == pytest.approx(0.75, abs=0.1)
    anew = changed_rates(1)
    assert not {0.8, 1.2} & set(anew)
    assert sum(rate < 1 for rate in anew) / 200 == pytest.approx(0.5, abs=0.1)  # 1e-3 is the middle of the range


def test_a_choice_that_changes_opens_and_closes_what_is_under_it() -> None:
    crop = "data.augment.RandomCrop"
    opened = set()
    for first in range(60):
        population = make(4, config=Pbt(mutate=(crop,)), first=first, seed=first)
        (change,) = decide(population, [0.4, 0.3, 0.2, 0.1])
        has = f"{crop}[with].padding" in change.parameters
        assert has == (change.parameters[crop] == "with") == (f"{crop}[with].p" in change.parameters)
        opened.add((drawn(first)[crop], change.parameters[crop]))
    assert len(opened) == 4


def test_a_setting_that_the_model_follows_by_same_as_never_changes() -> None:
    text = BODY.replace("width: {choice: [8, 16]}", "width: {same_as: train.batch_size}")
    space = parse_space(text, "s")
    for first in range(20):
        changes = decide(make(4, space=space, config=Pbt(resample=1), first=first, seed=first), [0.4, 0.3, 0.2, 0.1])
        assert changes[0].parameters["train.batch_size"] == drawn(first, space)["train.batch_size"]


def test_changes_that_break_a_rule_together_are_passed_over() -> None:
    augment = (
        "{HorizontalFlip: {choice: {off: null, on: {choice: {x: {p: 0.5}, y: null}}}},"
        " flip_crop: {choice: {x: null, y: {choice: {x: null, y: {padding: 1}}}}}}"
    )
    space, both = parse_space(f"name: s\ndata: {{dataset: digits, augment: {augment}}}", "s"), set()
    flips = {"data.augment.HorizontalFlip": "on", "data.augment.HorizontalFlip[on]": "x", "data.augment.flip_crop": "x"}
    for seed in range(40):
        population = Population(space, Pbt(resample=1), size=4, full=FULL, seed=seed)
        for number in range(4):
            population.join(f"{number:03d}", flips)
        (change,) = decide(population, [0.4, 0.3, 0.2, 0.1])
        config = space.resolve(lambda p, found=change.parameters: found[p.name])  # type: ignore[misc]
        both.add((config.data.augment.HorizontalFlip is None, config.data.augment.flip_crop is None))
    assert both == {(True, True), (True, False), (False, True)}


def test_what_a_new_choice_opens_is_drawn_and_not_changed_after() -> None:
    crop, drawn_anew = "data.augment.RandomCrop", list[Plain]()
    for first in range(80):
        (change,) = decide(make(4, config=Pbt(resample=0), first=first, seed=first), [0.4, 0.3, 0.2, 0.1])
        if drawn(first)[crop] == "without" and change.parameters[crop] == "with":
            drawn_anew.append(change.parameters[f"{crop}[with].p"])
    assert len(drawn_anew) > 10 and 1.0 not in drawn_anew  # a change by a fifth would often be clipped at the end


# ---------------------------------------------------------------- small changes, worked by hand


SIZES = Choice((64, 16, 32), (64, 16, 32))
WORDS = Choice(("a", "b", "c"), ("a", "b", "c"))


@pytest.mark.parametrize(
    ("distribution", "value", "near"),
    [
        (Uniform(0.0, 1.0), 0.5, {0.4, 0.6}),
        (Uniform(0, 1), 0.9, {0.72, 1.0}),
        (Uniform(0.45, 0.55), 0.5, {0.45, 0.55}),
        (Uniform(0.0, 0.5, 0.1), 0.1, {0.0, 0.2}),  # 0.08 and 0.12 would be 0.1 again: one step at least
        (Uniform(0.0, 1.0, 0.1), 1.0, {0.8, 1.0}),
        (Uniform(0.0, 0.5, 0.1), 0.0, {0.0, 0.1}),
        (Uniform(0.0, 0.9, 0.3), 0.6, {0.3, 0.9}),  # 3 * 0.3 is below 0.9
        (LogUniform(1e-4, 1e-1), 1e-2, {0.008, 0.012}),
        (LogUniform(1e-4, 1e-1), 9e-2, {0.072, 0.1}),
        (Int(1, 4), 2, {1, 3}),
        (Int(1, 4), 4, {3, 4}),
        (Int(10, 100), 50, {40, 60}),
        (Int(0, 100, 5), 50, {40, 60}),
        (Int(3, 11, 4), 7, {3, 11}),
        (LogInt(1, 1000), 100, {80, 120}),
        (LogInt(1, 1000), 1, {1, 2}),
        (SIZES, 32, {16, 64}),
        (SIZES, 64, {32}),
        (SIZES, 16, {32}),
        (Choice((8,), (8,)), 8, {8}),
        (WORDS, "a", {"a", "b", "c"}),
        (Choice((True, False), (True, False)), True, {True, False}),
    ],
)
def test_a_small_change_is_a_fifth_or_a_step_within_the_range(
    distribution: Distribution, value: Plain, near: set[Plain]
) -> None:
    found = {perturb(distribution, value, random.Random(seed)) for seed in range(40)}
    rounded = {round(v, 9) if isinstance(v, float) else v for v in found}
    assert rounded == near
    assert all(distribution.contains(v) for v in found)
    assert found <= set(distribution.grid() or found)
    assert {type(v) for v in found} == {type(v) for v in near}


@given(st.sampled_from(SPACE.parameters), st.integers(0, 10_000))
def test_small_changes_of_any_draw_stay_in_the_distribution(parameter: Parameter, seed: int) -> None:
    chance = random.Random(seed)
    value = draw(parameter, chance)
    for _ in range(20):
        value = perturb(parameter.distribution, value, chance)
        assert parameter.distribution.contains(value)


# ---------------------------------------------------------------- what may change


def names(config: Pbt, space: Space = SPACE) -> list[str]:
    return [p.name for p in mutable(space, config)]


def test_all_that_can_change_in_mid_run_does_unless_some_are_named() -> None:
    rates = ["train.optimizer[adam].lr", "train.optimizer[sgd].lr"]
    assert set(names(Pbt())) == {p.name for p in SPACE.parameters} - FIXED
    assert names(Pbt(mutate=("train.optimizer.lr",))) == rates
    assert names(Pbt(mutate=("train.optimizer[sgd].lr", "model.dropout"))) == ["model.dropout", rates[1]]


def test_all_that_mutate_names_wrongly_is_said_at_once_with_what_can_change() -> None:
    with pytest.raises(BadInput) as caught:
        mutable(SPACE, Pbt(mutate=("model.width", "model.dropout", "train.momentum")))
    first, second = map(str, caught.value.problems)
    assert first.startswith("s: search.scheduler.mutate: model.width: cannot change in a trial that runs; those that")
    assert "train.momentum: is not searched in this space; those that can: data.augment.RandomCrop" in second
    with pytest.raises(BadInput, match=r"mutate: names nothing to change; those that can: data\.augment"):
        mutable(SPACE, Pbt(mutate=()))


def test_a_space_in_which_nothing_can_change_is_refused() -> None:
    space = parse_space("name: s\ndata: {dataset: digits}\nmodel: {name: cnn, depth: {int: [1, 3]}}", "s")
    with pytest.raises(BadInput, match=r"none that can change is searched: train\.optimizer\.lr, "):
        mutable(space, Pbt())
