"""How fast and small analysis.load is, with a cache too, against Ray's own ExperimentAnalysis on the same folders.

`python benchmarks/loading.py`: about ten minutes, and 3 GB below the system's folder for temporary files.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import loading_folders
from report import machine, spread, write

REPEATS = 5
THEIRS = 1  # of ExperimentAnalysis: half a minute each
SHAPES = ((10_000, 20), (1_000, 100))  # trials, epochs
GROWTH = (500, 1_500, 5_000, 15_000, 50_000)  # trials of 20 epochs: 10,000 to 1,000,000 rows
MAKERS: dict[str, Callable[[Path, int, int], None]] = {
    "ray": loading_folders.make_ray,
    "hypertune": loading_folders.make_ours,
}
# Each in a process of its own; libraries are imported before the clock starts, and count for the memory.
START = """
import json, re, sys, time
folder = sys.argv[1]
{imports}
wall, work = time.perf_counter(), time.process_time()
{load}
wall, work = time.perf_counter() - wall, time.process_time() - work
# Not ru_maxrss: that begins with what the process that started this one had.
megabytes = int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024
print(json.dumps({{"seconds": wall, "cpu_seconds": work, "peak_mb": megabytes}}))
"""
OURS = (
    "import pandas, pyarrow.pandas_compat, analysis.results, analysis.folders.ray_folder, analysis.folders.run_folder"
)
RAYS = "from ray.tune import ExperimentAnalysis"
EXPERIMENT = """found = ExperimentAnalysis(folder)
tables = found.dataframe("val_accuracy", "max"), found.trial_dataframes"""
LOAD = "results = analysis.results.load(folder)"
CACHED = "results = analysis.results.load(folder, cache=folder + '/report/cache')"


def measure(imports: str, load: str, folder: Path) -> dict[str, float]:
    """Seconds, seconds of the processor and the peak memory of one load in a process of its own."""
    script = START.format(imports=imports, load=load)
    done = subprocess.run([sys.executable, "-c", script, str(folder)], capture_output=True, text=True, check=True)
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return measured


def summarise(runs: list[dict[str, float]]) -> dict[str, Any]:
    return {name: spread([run[name] for run in runs]) for name in runs[0]}


def compare(folder: Path, kind: str) -> dict[str, Any]:
    """One folder by each way in turn, so that what else the machine does meets all of them."""
    measure(OURS, CACHED, folder)  # keeps it
    plain, cached, theirs = [], [], []
    for repeat in range(REPEATS):
        plain.append(measure(OURS, LOAD, folder))
        cached.append(measure(OURS, CACHED, folder))
        if kind == "ray" and repeat < THEIRS:
            theirs.append(measure(RAYS, EXPERIMENT, folder))
    found: dict[str, Any] = {"load": summarise(plain), "cached": summarise(cached)}
    if theirs:
        found["experiment_analysis"] = summarise(theirs)
        for name, runs in (("load", plain), ("cached", cached)):
            for clock in ("seconds", "cpu_seconds"):
                ratio = median(run[clock] for run in theirs) / median(run[clock] for run in runs)
                found[f"times_faster_{name}_by_{clock}"] = ratio
    return found


def grow(home: Path, kind: str) -> list[dict[str, Any]]:
    """Times from 10,000 to 1,000,000 rows."""
    rows = []
    for trials in GROWTH:
        folder = home / f"{kind}_{trials}"
        MAKERS[kind](folder, trials, 20)
        runs = [measure(OURS, LOAD, folder) for _ in range(3)]
        best = min(run["cpu_seconds"] for run in runs)
        rows.append({"rows": trials * 20, **summarise(runs), "cpu_microseconds_a_row": best / trials / 20 * 1e6})
        shutil.rmtree(folder)
    return rows


def main() -> None:
    found: dict[str, Any] = {"machine": machine()}
    with tempfile.TemporaryDirectory() as text:
        home = Path(text)
        for kind, make in MAKERS.items():
            for trials, epochs in SHAPES:
                folder = home / f"{kind}_{trials}_{epochs}"
                make(folder, trials, epochs)
                found[f"{kind}_{trials}x{epochs}"] = compare(folder, kind)
                print(f"{kind} {trials}x{epochs}", json.dumps(found[f"{kind}_{trials}x{epochs}"]), flush=True)
                shutil.rmtree(folder)
            found[f"{kind}_growth"] = grow(home, kind)
    write("loading", found)


if __name__ == "__main__":
    main()
