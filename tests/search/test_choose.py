"""What `auto` means."""

from __future__ import annotations

import pytest

from tuner.search.choose import choose_sampler
from tuner.spec.space import parse_space

LARGE = "model: {name: cnn, width: {int: [1, 1000]}, depth: {int: [1, 8]}, growth: {choice: [1, 2]}}"
SMALL = "model: {name: cnn, depth: {int: [1, 3]}, width: {choice: [8, 16]}}"
WIDE = "model: {name: cnn, dropout: {uniform: [0, 0.5]}}"
FIXED = "train: {batch_size: {choice: [16, 32]}}"
RATE = "train: {optimizer: {name: adam, lr: {loguniform: [1.0e-4, 1.0e-1]}}}"


@pytest.mark.parametrize(
    ("body", "search", "trials", "name", "reason"),
    [
        (SMALL, "{}", 6, "grid", "every one of 6 combinations fits"),
        (SMALL, "{}", 5, "qmc", "fewer than 10"),
        (WIDE, "{}", 9, "qmc", "fewer than 10"),
        (WIDE, "{}", 10, "tpe", "a model"),
        (WIDE, "{metric: {val_accuracy: max, params: min}}", 50, "tpe", "a model"),
        (WIDE, "{metric: {val_accuracy: max, params: min}}", 500, "nsga2", "several objectives"),
        (LARGE, "{}", 20_000, "tpe", "a model"),
        (f"{SMALL}\n{FIXED}", "{scheduler: pbt}", 50, "random", "the population"),
        (RATE, "{scheduler: pbt}", 50, "random", "the population"),
        (WIDE, "{sampler: random}", 5, "random", ""),
        (SMALL, "{sampler: tpe}", 6, "tpe", ""),
    ],
)
def test_the_space_and_the_budget_decide_and_the_user_comes_first(
    body: str, search: str, trials: int, name: str, reason: str
) -> None:
    space = parse_space(f"name: c\ndata: {{dataset: digits}}\n{body}\nsearch: {search}\n", "c")
    sampler, why = choose_sampler(space, trials)
    assert sampler.name == name and reason in why and bool(why) == bool(reason)
