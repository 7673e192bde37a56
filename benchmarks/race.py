"""The default search against random search and against Ray Tune's own, on learning curves that cost nothing.

    python benchmarks/race.py [--full 81] [--seeds 30] [--json]

Workers on a virtual clock train configurations of the tasks of curves.py, epoch by epoch; no torch, no processes. A
contestant hands out configurations and says after each epoch which end. It is judged by its pick: the configuration
with the best accuracy that it has seen, at any epoch. The pick's regret is the accuracy that the task's optimum has
after full training, minus what the pick has after full training, both without noise.

| contestant | |
|---|---|
| random, full | random draws, all trained to the end |
| random, ASHA | random draws, grace 1, factor 3 |
| hypertune | what a space file gets that names neither sampler nor scheduler |
| Ray | OptunaSearch (define-by-run) and AsyncHyperBandScheduler as Tune calls them, same grace, factor and length |
| Ray, NaN | the same, told "not a number" where a trial diverged; the one above is told chance, as accuracy would be |
| one epoch | one epoch for all, then the best three to the end (Egele et al., 2024, arXiv:2404.04111) |

"One epoch" must know its budget and runs anew for each. All are paired by seed: the same task, the same noise.
"Reached" is the epoch from which on the median regret stays at or below the one that random search with full training
ends with. Writes results/benchmarks/race.json.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import json
import logging
import math
import time
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any, Protocol

import numpy as np
import optuna
from curves import CHANCE, DROPOUT, RATES, WIDTHS, Settings, Task, make_space, settings
from numpy.typing import NDArray
from report import machine, write

from tuner.search.choose import choose_sampler
from tuner.search.preflight import Size
from tuner.search.sampler import Proposal, Sampler, State, Told
from tuner.search.schedulers import make_scheduler
from tuner.spec.trial_config import TrialConfig

BUDGETS = (3, 5, 10, 20, 40)
"""In full trainings; the last is the length of the race."""
KEPT = 3
TARGET, OURS = "random, full", "hypertune"
Regrets = NDArray[np.float64]


class Contestant(Protocol):
    """A way to search."""

    def next(self) -> tuple[str, Settings] | None:
        """A trial to begin or to go on with; None while it has none."""

    def hear(self, trial: str, epoch: int, value: float) -> bool:
        """Take in the accuracy of a trial's epoch; whether the worker is free."""


@dataclass(frozen=True)
class Heard:
    """An epoch that was trained: when it ended, of which trial, what was measured."""

    clock: float
    trial: str
    epoch: int
    value: float
    settings: Settings


def simulate(contestant: Contestant, task: Task, *, workers: int, budget: int) -> list[Heard]:
    """Train on `workers` until `budget` epochs are done or the contestant has nothing left; epochs as they ended."""
    clock, order, heard = 0.0, itertools.count(), list[Heard]()
    busy: list[tuple[float, int, str, Settings]] = []
    epochs: Counter[str] = Counter()
    while len(heard) < budget:
        while len(busy) < workers and (job := contestant.next()):
            heapq.heappush(busy, (clock + task.seconds(job[1]), next(order), *job))
        if not busy:
            break
        clock, _, trial, config = heapq.heappop(busy)
        epochs[trial] += 1
        heard.append(Heard(clock, trial, epochs[trial], task.accuracy(config, epochs[trial]), config))
        if not contestant.hear(trial, epochs[trial], heard[-1].value):
            heapq.heappush(busy, (clock + task.seconds(config), next(order), trial, config))
    return heard


def regrets(heard: Sequence[Heard], task: Task, budget: int) -> list[float]:
    """Regret of the pick after each epoch up to `budget`: chance's before any, the last one's after an early end."""
    best, regret, found = -math.inf, task.optimum - CHANCE, list[float]()
    for epoch in heard:
        if epoch.value > best:  # not a number is never greater
            best, regret = epoch.value, task.optimum - task.final(epoch.settings)
        found.append(regret)
    return found + [regret] * (budget - len(found))


# ---------------------------------------------------------------- contestants


def count(config: TrialConfig) -> Size:
    """Every configuration can be built."""
    return Size(1, 1)


class Engine:
    """Our sampler and scheduler, called as tuner.runner.conductor calls them."""

    def __init__(self, seed: int, full: int, search: str = "") -> None:
        space = make_space(seed, full, search)
        chosen = space.fixed.search
        self.full, self.objective = full, chosen.objectives[0]
        self.sampler = Sampler(space, count, choose_sampler(space, chosen.trials)[0])
        self.scheduler = make_scheduler(chosen.scheduler, full=full, seed=seed)
        self.proposals: dict[str, Proposal] = {}
        self.curves: dict[str, dict[int, float]] = {}
        self.states: dict[str, State] = {}

    def next(self) -> tuple[str, Settings] | None:
        """Ask."""
        proposal = self.sampler.ask()
        if proposal is None:
            return None
        trial = f"{proposal.number + 1:03d}"
        self.proposals[trial], self.curves[trial] = proposal, {}
        return trial, settings(proposal.parameters)

    def hear(self, trial: str, epoch: int, value: float) -> bool:
        """Judge, and tell when the trial is over."""
        verdict = self.scheduler.judge(trial, epoch, self.objective.score({self.objective.metric: value}))
        curve = self.curves[trial]
        state: State | None = "stopped" if verdict.stop else None
        if not math.isfinite(value):
            state = "diverged"
        else:
            curve[epoch] = value
            state = "finished" if epoch >= self.full else state
        if state:
            self.states[trial] = state
            self.sampler.tell(self.proposals[trial].number, Told(state, (max(curve.values()),) if curve else (), curve))
        return state is not None


def define(trial: optuna.Trial) -> None:
    """The space of curves.py as a Ray user would write it."""
    trial.suggest_categorical("data.augment.flip_crop", ["without", "with"])
    trial.suggest_int("model.depth", 1, 5)
    trial.suggest_categorical("model.width", WIDTHS)
    trial.suggest_float("model.dropout", *DROPOUT)
    optimizer = trial.suggest_categorical("train.optimizer", list(RATES))
    trial.suggest_float(f"train.optimizer[{optimizer}].lr", *RATES[optimizer], log=True)


class Ray:
    """Ray's searcher and scheduler, called as its TuneController calls them with max_concurrent_trials = workers."""

    def __init__(self, seed: int, full: int, *, diverged: float = CHANCE) -> None:
        from ray.tune.schedulers import AsyncHyperBandScheduler
        from ray.tune.search.optuna import OptunaSearch

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        logging.getLogger("ray.tune.search.optuna.optuna_search").setLevel(logging.ERROR)  # a line for each NaN
        np.random.seed(seed)  # noqa: NPY002 the scheduler draws brackets from the global state
        self.search: Any = OptunaSearch(define, metric="accuracy", mode="max", seed=seed)
        self.scheduler: Any = AsyncHyperBandScheduler(
            metric="accuracy", mode="max", max_t=full, grace_period=1, reduction_factor=3
        )
        self.diverged = diverged
        self.trials: dict[str, Any] = {}

    def next(self) -> tuple[str, Settings] | None:
        """Suggest."""
        trial = f"{len(self.trials) + 1:03d}"
        parameters = self.search.suggest(trial)
        assert parameters is not None
        self.trials[trial] = SimpleNamespace(trial_id=trial)
        self.scheduler.on_trial_add(None, self.trials[trial])
        return trial, settings(parameters)

    def hear(self, trial: str, epoch: int, value: float) -> bool:
        """Scheduler first; the searcher hears a result only of a trial that goes on; a stop completes with the last."""
        result = {"accuracy": value if math.isfinite(value) else self.diverged, "training_iteration": epoch}
        with warnings.catch_warnings(action="ignore", category=RuntimeWarning):  # a rung of nothing but NaN
            stop: bool = self.scheduler.on_trial_result(None, self.trials[trial], result) == self.scheduler.STOP
            if stop:
                self.scheduler.on_trial_complete(None, self.trials[trial], result)
                self.search.on_trial_complete(trial, result=result)
            else:
                self.search.on_trial_result(trial, result)
        return stop


class OneEpoch:
    """One epoch for as many as the budget bears when the best `KEPT` of them then train to the end."""

    def __init__(self, draw: Callable[[int], Settings], full: int, budget: int) -> None:
        self.kept = min(KEPT, budget // full)
        self.screened = budget - self.kept * (full - 1)
        self.draw, self.full, self.begun = draw, full, 0
        self.first: dict[str, float] = {}
        self.best: list[str] | None = None

    def next(self) -> tuple[str, Settings] | None:
        """The next draw; when all are heard, the best."""
        if self.begun < self.screened:
            self.begun += 1
            return str(self.begun), self.draw(self.begun - 1)
        if self.best is None and len(self.first) == self.screened:
            alive = [trial for trial, value in self.first.items() if math.isfinite(value)]
            self.best = sorted(alive, key=self.first.__getitem__)[-self.kept :]
        return (trial := self.best.pop(), self.draw(int(trial) - 1)) if self.best else None

    def hear(self, trial: str, epoch: int, value: float) -> bool:
        """Nobody goes on after the first epoch before all had theirs."""
        self.first.setdefault(trial, value)
        return epoch in (1, self.full) or not math.isfinite(value)


ANYTIME: dict[str, Callable[[int, int], Contestant]] = {
    TARGET: partial(Engine, search="sampler: random, scheduler: none"),
    "random, ASHA": partial(Engine, search="sampler: random"),
    OURS: Engine,
    "Ray": Ray,
    "Ray, NaN": partial(Ray, diverged=math.nan),
}


def run_one_epoch(seed: int, full: int, *, workers: int, budgets: Sequence[int]) -> list[float]:
    """Regret of one epoch for all at each budget: a race of its own for each, over the same draws."""
    task, engine, known = Task(seed, full), Engine(seed, full, "sampler: random"), list[Settings]()

    def draw(number: int) -> Settings:
        while len(known) <= number:
            job = engine.next()
            assert job is not None
            known.append(job[1])
        return known[number]

    return [regrets(simulate(OneEpoch(draw, full, b), task, workers=workers, budget=b), task, b)[-1] for b in budgets]


# ---------------------------------------------------------------- what is reported


def race(seeds: int, full: int, workers: int) -> tuple[dict[str, Regrets], Regrets]:
    """Regrets of every anytime contestant, a row a seed and a column an epoch; of one epoch for all at each budget."""
    budget = BUDGETS[-1] * full
    rows: dict[str, list[list[float]]] = {name: [] for name in ANYTIME}
    peers = []
    for seed in range(seeds):
        task = Task(seed, full)
        for name, make in ANYTIME.items():
            rows[name].append(regrets(simulate(make(seed, full), task, workers=workers, budget=budget), task, budget))
        peers.append(run_one_epoch(seed, full, workers=workers, budgets=[b * full for b in BUDGETS]))
    return {name: np.array(found) for name, found in rows.items()}, np.array(peers)


def reached(rows: Regrets, target: float) -> int | None:
    """The epoch from which on the median over seeds stays at or below `target`; None where it ends above."""
    above = np.flatnonzero(np.median(rows, axis=0) > target + 1e-12)
    first = int(above[-1]) + 2 if len(above) else 1
    return first if first <= rows.shape[1] else None


def ratio_of_epochs(rows: Regrets, base: Regrets) -> dict[str, float | None]:
    """Epochs of `rows` over those of `base` to reach the median that `base` ends with; None where it does not.

    With a bootstrap's 95% over seeds, in which a race that does not reach it counts with its whole length.
    """

    def ratio(rows: Regrets, base: Regrets) -> float:
        target = float(np.median(base[:, -1]))
        return (reached(rows, target) or rows.shape[1]) / (reached(base, target) or base.shape[1])

    did = reached(rows, float(np.median(base[:, -1]))) is not None
    return {"ratio": ratio(rows, base) if did else None, **interval(ratio, rows, base)}


def interval(statistic: Callable[[Regrets, Regrets], float], a: Regrets, b: Regrets) -> dict[str, float]:
    """A paired bootstrap's 95% of a statistic over seeds, 500 resamples."""
    chance = np.random.default_rng(0)
    draws = [chance.integers(len(a), size=len(a)) for _ in range(500)]
    low, high = np.percentile([statistic(a[d], b[d]) for d in draws], (2.5, 97.5))
    return {"low": float(low), "high": float(high)}


def compare(a: Regrets, b: Regrets) -> dict[str, float]:
    """Median of `a` over that of `b`, its interval, and the number of seeds in which `a` is better or worse."""

    def ratio(a: Regrets, b: Regrets) -> float:
        return float(np.median(a) / np.median(b))

    return {"ratio": ratio(a, b), **interval(ratio, a, b), "better": int((a < b).sum()), "worse": int((a > b).sum())}


def summarise(found: Mapping[str, Regrets], peers: Regrets, full: int) -> dict[str, Any]:
    """Quartiles of the regret at each budget, epochs to random's median, ours against others' at equal epochs."""
    at = [b * full - 1 for b in BUDGETS]
    target = float(np.median(found[TARGET][:, -1]))
    columns = {**{name: rows[:, at] for name, rows in found.items()}, "one epoch": peers}
    return {
        "regret": {
            name: [
                dict(zip(("q25", "median", "q75"), np.percentile(c, (25, 50, 75)).tolist(), strict=True)) for c in r.T
            ]
            for name, r in columns.items()
        },
        "reached": {name: reached(rows, target) for name, rows in found.items()},
        "epochs_to_random": {name: ratio_of_epochs(rows, found[TARGET]) for name, rows in found.items()},
        "ours_to": {
            name: [compare(a, b) for a, b in zip(columns[OURS].T, rows.T, strict=True)]
            for name, rows in columns.items()
            if name != OURS
        },
    }


def print_table(result: Mapping[str, Any], full: int) -> None:
    """The summary of one number of workers."""

    def percent(cell: Mapping[str, float]) -> str:
        return f"{100 * cell['median']:.2f} ({100 * cell['q25']:.2f}-{100 * cell['q75']:.2f})"

    def share(cell: Mapping[str, float | None]) -> str:
        return f"{cell['ratio']:.2f} ({cell['low']:.2f}-{cell['high']:.2f})" if cell["ratio"] else "not reached"

    def line(name: str, cells: Sequence[str]) -> None:
        print(f"{name:14}" + "".join(f"{cell:>20}" for cell in cells))

    line("epochs", [f"{b * full:,}" for b in BUDGETS])
    print("regret in points, median (quartiles)")
    for name, cells in result["regret"].items():
        line(name, [percent(cell) for cell in cells])
    print("hypertune's regret over another's, ratio of medians (95%), seeds better : worse")
    for name, cells in result["ours_to"].items():
        line(name, [share(cell) for cell in cells])
        line("", [f"{cell['better']} : {cell['worse']}" for cell in cells])
    print(f"epochs to the median that {TARGET} ends with, and over those of {TARGET} (95%)")
    for name, epochs in result["reached"].items():
        line(name, [f"{epochs:,}" if epochs else "-", share(result["epochs_to_random"][name])])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", type=int, default=27, help="epochs of a full training")
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    arguments = parser.parse_args()
    began, summaries = time.perf_counter(), dict[str, Any]()
    for workers in arguments.workers:
        found, peers = race(arguments.seeds, arguments.full, workers)
        summaries[str(workers)] = summarise(found, peers, arguments.full)
        if not arguments.json:
            print(f"\n{workers} at once, {arguments.seeds} seeds, {arguments.full} epochs a full training")
            print_table(summaries[str(workers)], arguments.full)
    result = {
        "machine": machine(),
        "seconds": round(time.perf_counter() - began),
        "seeds": arguments.seeds,
        "full": arguments.full,
        "budgets": [b * arguments.full for b in BUDGETS],
        "workers": summaries,
    }
    if arguments.json:
        print(json.dumps(result, indent=1))
    else:
        print(f"\n{result['seconds']} s")
        write("race", result)


if __name__ == "__main__":
    main()
