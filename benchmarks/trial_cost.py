"""What a trial costs beyond its training: 200 one-epoch trials of a tiny model, against Ray Tune's defaults.

    python benchmarks/trial_cost.py

Both train the same network on the same 40 digits for one epoch. Ours runs 200 trials on long-lived workers; the peer is
a function trainable with Ray Tune's defaults (a new process a trial), 20 trials. Cost of a trial = (wall time from the
first trial's start to the last one's end x trials at once - seconds spent in training) / trials.
Writes results/benchmarks/trial_cost.json.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from report import machine, spread, write

OURS, THEIRS, REPEATS = 200, 20, 5
HYPERTUNE = str(Path(sys.executable).with_name("hypertune"))
SPACE = """
name: tiny
data: {dataset: digits, subset: 40}
model: {name: cnn, depth: 1, width: 4}
train: {epochs: 1, batch_size: 16, optimizer: {name: adam, lr: {loguniform: [1.0e-4, 1.0e-1]}}}
search: {sampler: random, scheduler: none, trials: 200}
"""
PEER = """
import json, sys, time
from ray import tune
import ray

def train(config):
    import torch
    from sklearn.datasets import load_digits
    start = time.perf_counter()
    x = torch.from_numpy(load_digits().images[:40]).float().unsqueeze(1) / 16
    y = torch.from_numpy(load_digits().target[:40])
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.Flatten(),
                              torch.nn.Linear(256, 10))
    optimizer = torch.optim.Adam(net.parameters(), lr=config["lr"])
    for i in range(0, 40, 16):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(x[i:i + 16]), y[i:i + 16]).backward()
        optimizer.step()
    tune.report({"train_seconds": time.perf_counter() - start, "began": time.time()})

ray.init(num_cpus=2, include_dashboard=False)
tuner = tune.Tuner(tune.with_resources(train, {"cpu": 1}), param_space={"lr": tune.loguniform(1e-4, 1e-1)},
                   tune_config=tune.TuneConfig(num_samples=int(sys.argv[1])),
                   run_config=tune.RunConfig(storage_path=sys.argv[2]))
results = tuner.fit()
rows = [r.metrics for r in results]
first = min(r["began"] - r["train_seconds"] for r in rows)
wall = time.time() - first
print("RESULT", json.dumps({"wall": wall, "training": sum(r["train_seconds"] for r in rows)}))
"""


def ours(folder: Path) -> float:
    """Seconds a trial of hypertune costs beyond its training."""
    (folder / "tiny.yaml").write_text(SPACE)
    subprocess.run([HYPERTUNE, "run", "tiny.yaml", "--json"], cwd=folder, check=True, capture_output=True)
    run = folder / "results" / "tiny"
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    rows = [json.loads((run / "trials" / f"{i:03d}" / "result.json").read_text()) for i in range(1, OURS + 1)]
    wall = max(e["elapsed"] for e in events if e["event"] == "ended") - min(
        e["elapsed"] for e in events if e["event"] == "started"
    )
    return cost(wall, sum(row["epoch_seconds"] for row in rows), OURS)


def theirs(folder: Path) -> float:
    """Seconds a trial of plain Ray Tune costs beyond its training."""
    (folder / "peer.py").write_text(PEER)
    command = [sys.executable, "peer.py", str(THEIRS), str(folder / "ray")]
    done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    result: dict[str, Any] = json.loads(next(x for x in done.stdout.splitlines() if x.startswith("RESULT"))[7:])
    return cost(result["wall"], result["training"], THEIRS)


def cost(wall: float, training: float, trials: int, at_once: int = 2) -> float:
    """Seconds a trial beyond its training."""
    return (wall * at_once - training) / trials


def main() -> None:
    seconds: dict[str, list[float]] = {"hypertune": [], "plain Ray Tune": []}
    for repeat in range(REPEATS):
        for name, measure in (("hypertune", ours), ("plain Ray Tune", theirs)):
            with tempfile.TemporaryDirectory() as folder:
                seconds[name].append(measure(Path(folder)))
            print(
                f"{time.strftime('%H:%M:%S')} round {repeat + 1}: {name} {seconds[name][-1]:.3f} s a trial", flush=True
            )
    rows = {name: spread(times) for name, times in seconds.items()}
    print(f"ratio of medians: {rows['plain Ray Tune']['median'] / rows['hypertune']['median']:.1f}")
    write("trial_cost", {"machine": machine(), "repeats": REPEATS, "trials": [OURS, THEIRS], "seconds": rows})


if __name__ == "__main__":
    main()
