"""How often the report finds what is there, and how often what is not: synthetic searches of known truth, many seeds.

    python benchmarks/findings.py [--seeds 100] [--runs results/a results/b ...]

Six settings are searched under asynchronous successive halving; of these none, one, two or three decide, or two decide
only together. Of a real run (--runs) the settings are dealt out anew among its trials, so that nothing can be found.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from report import machine, write
from truths import TRUTHS, search

import analysis
from analysis.findings import findings
from analysis.results import Results


def deal_anew(results: Results, seed: int) -> Results:
    """The same trials with the configurations of others."""
    trials = results.trials.copy()
    searched = np.flatnonzero(trials["repeat_of"].isna())
    order = np.random.default_rng(seed).permutation(searched)
    for column in {p.column for p in results.parameters}:
        values = trials[column].to_numpy().copy()
        values[searched] = values[order]
        trials[column] = values
    return replace(results, trials=trials)


def false_alarms(made: Sequence[Results]) -> dict[str, int]:
    """Reports with a finding, of all."""
    found = [findings(results).findings for results in made]
    return {"reports": len(found), "with a finding": sum(map(bool, found))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--runs", type=Path, nargs="*", default=[])
    options = parser.parse_args()
    alarms: dict[str, Any] = {}
    for count in (20, 50, 150):
        alarms[f"{count} trials, nothing matters"] = false_alarms(
            [search(TRUTHS["nothing"][0], count, seed) for seed in range(options.seeds)]
        )
        print(count, alarms[f"{count} trials, nothing matters"], flush=True)
    for path in options.runs:
        results = analysis.load(path)
        alarms[f"{results.name}, {len(results.trials)} trials, configurations dealt out anew"] = false_alarms(
            [deal_anew(results, seed) for seed in range(options.seeds)]
        )
        print(path.name, list(alarms.values())[-1], flush=True)
    power: dict[str, Any] = {}
    for name, (truth, expected) in list(TRUTHS.items())[1:]:
        for count in (20, 50, 150):
            named: list[set[str]] = []
            for seed in range(options.seeds // 5):
                found = findings(search(truth, count, 1000 + seed)).findings
                named.append({setting for f in found for setting in f.settings})
            power[f"{name}, {count} trials"] = {
                "reports": len(named),
                "name all that matter": sum(expected <= one for one in named),
                "name one that does not": sum(bool(one - expected) for one in named),
            }
            print(name, count, power[f"{name}, {count} trials"], flush=True)
    write("findings", {"machine": machine(), "false alarms": alarms, "power": power})


if __name__ == "__main__":
    main()
