"""What samplers are told about a space, and the quasi-random points of our own."""

from __future__ import annotations

from typing import Literal

import optuna
import pytest

from tuner.search.preflight import Size
from tuner.search.sampler import Sampler, Told
from tuner.search.samplers import SAMPLERS, STATEFUL, Quasi, Question, always, distributions
from tuner.spec.search import Qmc, RandomSampler
from tuner.spec.space import Space, parse_space
from tuner.spec.trial_config import KINDS

SPACE = """
name: s
data: {dataset: digits}
model:
  name: cnn
  depth: {int: [2, 3]}
  width: [{choice: [8, 16]}, {int: [4, 9]}, {int: [4, 9]}]
  dropout: {uniform: [0, 0.5]}
train:
  optimizer: {choice: {adam: {lr: {loguniform: [1.0e-4, 1.0e-2]}}}}
  schedule: {choice: {constant: {}, onecycle: {warmup: {uniform: [0, 0.5]}}}}
"""
ALWAYS = [
    "model.depth",
    "model.dropout",
    "model.width.0",
    "model.width.1",
    "train.optimizer[adam].lr",
    "train.schedule",
]


def space() -> Space:
    return parse_space(SPACE, "s")


def test_what_always_exists_is_what_optuna_would_find_in_the_trials() -> None:
    sampler = Sampler(space(), lambda config: Size(1, 1), RandomSampler())
    for _ in range(40):
        proposal = sampler.ask()
        assert proposal
        sampler.tell(proposal.number, Told("finished", (0.5,), {1: 0.5}))
    common = optuna.search_space.intersection_search_space(sampler.study.trials)
    assert always(space()) == {name: kind for name, kind in common.items() if not kind.single()}
    assert list(always(space())) == ALWAYS


@pytest.mark.parametrize("name", ["gp", "cmaes", "nsga2"])
def test_samplers_model_what_always_exists_and_cmaes_its_numbers(name: str) -> None:
    sampler = SAMPLERS[name](KINDS["search.sampler"][name](), Question(0, 0, always(space())))
    study = optuna.create_study()
    found = sampler.infer_relative_search_space(study, study.ask()._get_latest_trial())
    numbers = [n for n in ALWAYS if n not in ("train.schedule", "model.width.0")]
    assert list(found) == (numbers if name == "cmaes" else ALWAYS)


def test_only_samplers_that_are_known_are_rebuilt_by_asking_again() -> None:
    assert set(STATEFUL) < set(SAMPLERS)


def test_distributions_are_those_that_a_trial_is_asked_for() -> None:
    trial = optuna.create_study().ask()
    trial.suggest_int("model.depth", 2, 3)
    trial.suggest_categorical("model.width.0", (8, 16))
    trial.suggest_float("train.optimizer[adam].lr", 1e-4, 1e-2, log=True)
    found = distributions(space())
    assert all(found[name] == kind for name, kind in trial.distributions.items())


@pytest.mark.parametrize("sequence", ["sobol", "halton"])
def test_quasi_random_points_take_every_cell_of_a_coarse_grid(sequence: Literal["sobol", "halton"]) -> None:
    where = parse_space(
        "name: q\ndata: {dataset: digits}\nmodel: {name: cnn, depth: {int: [1, 4]}, dropout: {uniform: [0, 0.4]}}\n",
        "q",
    )
    quasi, cells = Quasi(where, Qmc(sequence=sequence)), set()
    for _ in range(32):
        choose = quasi.next()
        depth, dropout = (choose(p) for p in where.parameters)
        assert isinstance(dropout, float)
        cells.add((depth, int(dropout / 0.1)))
    assert len(cells) == 16
