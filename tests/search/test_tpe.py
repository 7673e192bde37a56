"""The quick TPE proposes what Optuna's own does, whatever is in the study."""

from __future__ import annotations

import random
from typing import Any

import optuna
import pytest

from tuner.errors import Infeasible
from tuner.search import history
from tuner.search.preflight import Size
from tuner.search.sampler import Proposal, Sampler, Told
from tuner.search.samplers import SAMPLERS, Question
from tuner.spec.search import Tpe
from tuner.spec.space import parse_space
from tuner.spec.trial_config import TrialConfig

SPACE = """
name: s
data: {dataset: digits}
model: {name: cnn, depth: {int: [1, 3]}, width: {choice: [8, 16, 32]}, dropout: {uniform: [0, 0.5, 0.1]}}
train:
  batch_size: {choice: [64]}
  optimizer:
    choice:
      adam: {lr: {loguniform: [1.0e-4, 1.0e-2]}, weight_decay: {choice: [0, 1.0e-4]}}
      sgd: {lr: {loguniform: [1.0e-3, 0.3]}, momentum: {uniform: [0.5, 0.99]}}
"""


def plain(config: Tpe, question: Question) -> optuna.samplers.BaseSampler:
    return optuna.samplers.TPESampler(
        seed=question.seed,
        multivariate=True,
        group=True,
        n_startup_trials=config.startup_trials + question.refused,
        n_ei_candidates=config.candidates,
    )


def play(search: str, trials: int) -> list[dict[str, Any]]:
    """Proposals of a search with a dozen trials open at once, that end in any order and in every way."""
    space, chance, waiting = parse_space(f"{SPACE}search: {{{search}}}\n", "s"), random.Random(0), list[Proposal]()

    def count(config: TrialConfig) -> Size:
        if config.train.optimizer.lr > 0.1:
            raise Infeasible("too fast")
        return Size(1, 1)

    sampler, asked = Sampler(space, count, Tpe(startup_trials=4)), []
    for _ in range(trials):
        proposal = sampler.ask()
        assert proposal
        asked.append(dict(proposal.parameters))
        waiting.append(proposal)
        if len(waiting) > 12:
            one = waiting.pop(chance.randrange(len(waiting)))
            values = tuple(chance.random() for _ in space.fixed.search.objectives)
            state = chance.choice(["finished", "finished", "stopped", "diverged", "failed"])
            curve = {epoch: chance.random() for epoch in range(1, chance.randint(2, 4))}
            sampler.tell(one.number, Told(state, values, curve, {"latency_ms <= 5": chance.uniform(-1, 1)}))  # type: ignore[arg-type]
    return asked


@pytest.mark.slow
@pytest.mark.parametrize(
    "search", ["trials: 5", "trials: 5, constraints: [latency_ms <= 5]", "metric: {val_accuracy: max, val_loss: min}"]
)
def test_it_proposes_what_optunas_own_does(search: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "FITTED", 25)  # thinned twice on the way
    monkeypatch.setattr(history, "GOOD", 5)
    quick = play(search, 90)
    monkeypatch.setitem(SAMPLERS, "tpe", plain)
    assert quick == play(search, 90)
