"""How long a suggestion takes after 100, 1,000 and 10,000 trials, by sampler; beside it Optuna's TPE on all of them.

    python benchmarks/ask_time.py

Ten parameters, synthetic results, two thirds stopped early. A median of 20 suggestions at each size; gp hands over to
tpe after 200 trials. Writes results/benchmarks/ask_time.json.
"""

from __future__ import annotations

import random
import time
from statistics import median
from typing import Any

import optuna
from report import machine, write

from tuner.search.preflight import Size
from tuner.search.sampler import Sampler, Told, quiet
from tuner.spec.space import parse_space
from tuner.spec.trial_config import KINDS

SIZES, ASKS = (100, 1_000, 10_000), 20
SPACE = """
name: ask
data: {dataset: digits}
model:
  {name: cnn, depth: {int: [1, 6]}, width: {int: [8, 128]}, growth: {uniform: [1, 2]}, dropout: {uniform: [0, 0.5]}}
train:
  batch_size: {int: [16, 256]}
  optimizer:
    {name: sgd, lr: {loguniform: [1.0e-4, 1]}, momentum: {uniform: [0, 0.99]}, weight_decay: {uniform: [0, 0.1]}}
  schedule: {name: onecycle, warmup: {uniform: [0, 0.5]}, final_lr: {uniform: [0, 0.01]}}
"""


def make(name: str) -> Any:
    """A sampler's section with its defaults."""
    return KINDS["search.sampler"][name]()


def tell(sampler: Sampler, number: int, chance: random.Random) -> None:
    """A made-up result; two of three are stopped."""
    value = chance.random()
    sampler.tell(number, Told("stopped" if chance.random() < 2 / 3 else "finished", (value,), {1: value}))


def ours(name: str) -> dict[str, float]:
    """Milliseconds a suggestion by size."""
    print(name, flush=True)
    space, chance = parse_space(SPACE, "ask.yaml"), random.Random(0)
    sampler = Sampler(space, lambda config: Size(1, 1), make(name))
    quick = Sampler(space, lambda config: Size(1, 1), make("random"))
    found, asked = {}, 0
    for size in SIZES:
        while asked < size:
            if name in ("cmaes", "nsga2"):  # their state grows by being asked
                proposal = sampler.ask()
            elif proposal := quick.ask():
                sampler.readmit(asked, proposal.parameters)
                tell(quick, proposal.number, chance)
            assert proposal
            tell(sampler, asked, chance)
            asked += 1
        times = []
        for _ in range(ASKS):
            start = time.perf_counter()
            sampler.ask()
            times.append(time.perf_counter() - start)
            tell(sampler, asked, chance)
            asked += 1
        found[str(size)] = 1000 * median(times)
    return found


def plain() -> dict[str, float]:
    """The same of an Optuna study with its TPE sampler, fitted on everything."""
    space, chance, found = parse_space(SPACE, "ask.yaml"), random.Random(0), {}
    with quiet():
        for size in SIZES:
            filled = Sampler(space, lambda config: Size(1, 1), make("random"))
            for number in range(size):
                filled.ask()
                tell(filled, number, chance)
            study = filled.study
            study.sampler = optuna.samplers.TPESampler(seed=0, multivariate=True, group=True)
            kinds = study.trials[0].distributions
            times = []
            for _ in range(ASKS):
                start = time.perf_counter()
                study.ask(kinds)
                times.append(time.perf_counter() - start)
            found[str(size)] = 1000 * median(times)
    return found


def main() -> None:
    """Every sampler that has a model, and the peer."""
    names = [name for name in KINDS["search.sampler"] if name not in ("auto", "grid")]
    rows: dict[str, dict[str, Any]] = {**{name: ours(name) for name in names}, "optuna's tpe": plain()}
    print(f"{'ms a suggestion after':24}" + "".join(f"{size:>10,}" for size in SIZES) + "  trials")
    for name, found in rows.items():
        print(f"{name:24}" + "".join(f"{found[str(size)]:>10.1f}" for size in SIZES))
    write("ask_time", {"machine": machine(), "asks": ASKS, "milliseconds": rows})


if __name__ == "__main__":
    main()
