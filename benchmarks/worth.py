"""Is another hour worth it? Predicts what more trials gain from the first half of a search, and looks at the second.

    python benchmarks/worth.py [--runs results]

Of draws from known distributions, of searches by our engine on the learning curves of curves.py, and of the recorded
runs in a folder: the gain of as many trials again, and of the next ten or tenth. Told of each way to predict: its error
(CRPS: the mean absolute error, of a whole distribution; Gneiting and Raftery, 2007), its bias, how often its 80%
interval holds what came, and how probable it called a new best beside how often there was one. Then what `until: worth`
would have done to the searches. Writes results/benchmarks/worth.json.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from curves import NOISE, Task
from numpy.typing import NDArray
from race import Engine, simulate
from report import machine, write

import analysis
from analysis.gain import KNOWN, LEAST, enough, predict
from analysis.worth import ended_values

Floats = NDArray[np.float64]
Told = tuple[Floats, Floats]
"""Gains from 0 up, and how likely at most each is."""

HORIZONS = ("as many again", "round")  # a round: the next ten, or a tenth of those done; `until` looks at the first
SEEDS, LENGTHS = 30, (24, 40, 80, 120)
VALIDATION = 1000  # images of which curves.py has its noise
SEARCHES = {
    "random": ("trials: 120, sampler: random, scheduler: none", 9, 120 * 9),
    "tpe": ("trials: 120, sampler: tpe, scheduler: none", 9, 120 * 9),
    "tpe, asha": ("trials: 400, sampler: tpe", 27, 1000),
}
DRAWS: dict[str, Callable[[np.random.Generator, int], Floats]] = {
    "normal": lambda r, n: r.normal(0.6, 0.1, n),
    "ceiling": lambda r, n: 0.1 + 0.8 * r.beta(4, 1.2, n),
    "heavy": lambda r, n: 0.5 + 0.02 * r.standard_t(3, n),
    "peak": lambda r, n: 0.8 - r.normal(0, 0.3, n) ** 2 + r.normal(0, math.sqrt(2) * NOISE, n),
    "closing in": lambda r, n: (
        0.8
        - ((r.normal(0, 0.35, (n, 4)) * np.exp(-np.linspace(0, 2.5, n))[:, None]) ** 2).sum(1)
        + r.normal(0, math.sqrt(2) * NOISE, n)
    ),
}


# ---------------------------------------------------------------- ways to predict


def exponential(values: Floats, more: int) -> Told:
    """An exponential tail over the top quarter of the later half, its parameters bootstrapped."""
    chance, best = np.random.default_rng(0), np.nanmax(values)
    late = values[-max(12, len(values) // 2) :]
    late = late if np.isfinite(late).sum() > KNOWN else values
    known = np.sort(late[np.isfinite(late)])[::-1]
    top = min(max(4, len(late) // 4), len(known) - 1)
    excess = known[:top] - known[top] + 1e-9
    scale = chance.choice(excess, (300, top)).mean(1)
    rate = chance.binomial(len(late), top / len(late), 300) / len(late)
    gains = 20 * excess.mean() * np.linspace(0, 1, 160) ** 2
    passing = np.exp(-(best - known[top] + gains) / scale[:, None])
    return gains, np.exp(-more * rate[:, None] * passing).mean(0)


def normal(values: Floats, more: int) -> Told:
    """The normal distribution of the later half, its parameters bootstrapped."""
    chance, best = np.random.default_rng(0), np.nanmax(values)
    late = values[-max(12, len(values) // 2) :]
    late = late if np.isfinite(late).sum() > KNOWN else values
    known = late[np.isfinite(late)]
    again = chance.choice(known, (300, len(known)))
    draws = chance.normal(again.mean(1), again.std(1), (more, 300))
    draws[chance.random(draws.shape) > len(known) / len(late)] = -math.inf
    gains = 20 * known.std() * np.linspace(0, 1, 160) ** 2
    won = np.sort(np.maximum(0, draws.max(0) - best))
    return gains, np.searchsorted(won, gains, side="right") / len(won)


def ranks(values: Floats, more: int) -> Told:
    """A new best in more / (n + more) of all cases, as of any exchangeable draws; by the mean excess of the top."""
    known = np.sort(values[np.isfinite(values)])[::-1]
    top = min(max(4, len(values) // 4), len(known) - 1)
    scale = float((known[:top] - known[top]).mean()) + 1e-9
    gains = 20 * scale * np.linspace(0, 1, 160) ** 2
    return gains, len(values) / (len(values) + more * np.exp(-gains / scale))


WAYS: dict[str, Callable[[Floats, int], Told]] = {
    "ours": predict,
    "ours, late half": lambda values, more: late_half(values, more),
    "exponential": exponential,
    "normal": normal,
    "ranks": ranks,
}


def late_half(values: Floats, more: int) -> Told:
    """Ours on the later half alone, which knows the sampler as it is now."""
    late = values[-max(12, len(values) // 2) :]
    if np.isfinite(late).sum() <= KNOWN:
        return predict(values, more)
    gains, at_most = predict(late, more)
    return gains, np.interp(gains + np.nanmax(values) - np.nanmax(late), gains, at_most)


# ---------------------------------------------------------------- searches


def search(seed: int, text: str, full: int, budget: int) -> Floats:
    """Values of a search's trials in the order in which they ended; NaN for one that was stopped."""
    best, epochs, ended = dict[str, float](), dict[str, int](), dict[str, int]()
    for number, epoch in enumerate(simulate(Engine(seed, full, text), Task(seed, full), workers=2, budget=budget)):
        if math.isfinite(epoch.value):
            best[epoch.trial] = max(best.get(epoch.trial, 0.0), epoch.value)
        epochs[epoch.trial], ended[epoch.trial] = epoch.epoch, number
    order = sorted(ended, key=ended.__getitem__)
    return np.array([best.get(trial, math.nan) if epochs[trial] == full else math.nan for trial in order])


def score(told: Told, did: float) -> dict[str, float]:
    """One prediction beside what came."""
    gains, at_most = told
    middle, steps = (at_most[1:] + at_most[:-1]) / 2, np.diff(gains)
    low, high = np.interp((0.1, 0.9), at_most, gains)
    return {
        "crps": float((middle - (gains[1:] >= did)) ** 2 @ steps),
        "expected": float((1 - middle) @ steps),
        "inside": float(low - 1e-12 <= did <= high + 1e-12),
        "chance": float(1 - at_most[0]),
    }


def judge(searches: Sequence[Floats], horizon: str) -> dict[str, Any]:
    """All ways on the first halves of these searches."""
    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    did: list[float] = []
    for values in searches:
        half = len(values) // 2
        seen, later = values[:half], values[half:]
        later = later[: max(10, half // 10)] if horizon == "round" else later
        if half < LEAST or np.isfinite(seen).sum() < KNOWN + 1:
            continue
        did.append(max(0.0, np.nanmax(later, initial=-math.inf) - np.nanmax(seen)))
        for way, tell in WAYS.items():
            found[way].append(score(tell(seen, len(later)), did[-1]))
    means = {
        way: {name: float(np.mean([each[name] for each in rows])) for name in rows[0]} for way, rows in found.items()
    }
    return {"searches": len(did), "gain": float(np.mean(did)), "new best": float(np.mean(np.array(did) > 0)), **means}


def stop_early(values: Floats, horizon: str, least: int = 20) -> tuple[int, float]:
    """At how many trials `until: worth` ends a search, if it looks so far ahead; what the rest would have gained."""
    for number in range(least, len(values) + 1):
        more = number if horizon == "as many again" else max(10, number // 10)
        seen = values[:number].tolist()
        if enough(seen, maximise=True, more=more, metric="val_accuracy", validation=VALIDATION):
            return number, max(0.0, float(np.nanmax(values) - np.nanmax(values[:number])))
    return len(values), 0.0


def print_table(name: str, horizon: str, result: Mapping[str, Any]) -> None:
    """Points of accuracy."""
    print(
        f"\n{name}, {horizon}: {result['searches']} searches, gained {100 * result['gain']:.2f} points on average, "
        f"a new best in {result['new best']:.0%}"
    )
    for way in WAYS:
        r = result[way]
        print(
            f"   {way:16} error {100 * r['crps']:5.2f}  expected {100 * r['expected']:5.2f}  "
            f"bias {100 * (r['expected'] - result['gain']):+6.2f}  80% holds {r['inside']:.0%}  "
            f"new best {r['chance']:.0%}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, help="folder of recorded runs")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    arguments = parser.parse_args()
    began, random = time.perf_counter(), np.random.default_rng(0)
    searches = {
        name: [draw(random, n) for n in LENGTHS for _ in range(arguments.seeds)] for name, draw in DRAWS.items()
    }
    whole = {name: [search(seed, *made) for seed in range(arguments.seeds)] for name, made in SEARCHES.items()}
    for name, found in whole.items():
        searches[name] = [values[:n] for values in found for n in sorted({min(n, len(values)) for n in LENGTHS})]
    if arguments.runs:
        loaded = [analysis.load(run.path) for run in analysis.index(arguments.runs)]
        recorded = [np.array(ended_values(run)) * (1 if run.mode == "max" else -1) for run in loaded]
        if any(len(v) // 2 >= LEAST and np.isfinite(v[: len(v) // 2]).sum() > KNOWN for v in recorded):
            searches["recorded"] = recorded
        else:
            print(
                f"{len(recorded)} recorded runs, and none has {LEAST} trials in its first half, {KNOWN + 1} to the end"
            )
    result: dict[str, Any] = {"machine": machine(), "seeds": arguments.seeds, "predictions": {}, "until": {}}
    for horizon in HORIZONS:
        for name, found in searches.items():
            result["predictions"][f"{name}, {horizon}"] = told = judge(found, horizon)
            print_table(name, horizon, told)
    for name, found in whole.items():
        for horizon in HORIZONS:
            ends = [stop_early(values, horizon) for values in found]
            share = float(np.mean([n / len(values) for (n, _), values in zip(ends, found, strict=True)]))
            lost = [loss for _, loss in ends]
            result["until"][f"{name}, {horizon}"] = {
                "share of trials": share,
                "lost": lost,
                "ends": [n for n, _ in ends],
            }
            print(
                f"\nuntil worth, {name}, {horizon}: {share:.0%} of the trials; the rest would have gained "
                f"{100 * np.mean(lost):.2f} points on average, in one of ten {100 * np.percentile(lost, 90):.1f}"
            )
    result["seconds"] = round(time.perf_counter() - began)
    write("worth", result)


if __name__ == "__main__":
    main()
