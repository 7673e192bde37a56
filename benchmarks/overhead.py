"""What hypertune takes beside the training, with epochs of a second: share of the wall time, checkpoints included.

    python benchmarks/overhead.py

One trial at a time of 25 epochs of a 3-block network on 1,437 digits, five times. From the first epoch's line to the
last one's, wall time (of the driver's monotonic clock) less the seconds in training and validation (of the worker's),
over the wall time. Writes results/benchmarks/overhead.json.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from report import machine, spread, write

REPEATS = 5
HYPERTUNE = str(Path(sys.executable).with_name("hypertune"))
SPACE = """
name: overhead
data: {dataset: digits, augment: flip_crop}
model: {name: cnn, depth: 3, width: 96, convs: 2}
train: {epochs: 25, batch_size: 32, optimizer: {name: sgd, lr: {uniform: [0.01, 0.05]}}}
search: {sampler: random, scheduler: none, trials: 1}
"""


def measure(home: Path) -> tuple[float, float]:
    """Share of the wall time that is overhead, and the median epoch in seconds."""
    (home / "overhead.yaml").write_text(SPACE)
    subprocess.run([HYPERTUNE, "run", "overhead.yaml", "--json"], cwd=home, check=True, capture_output=True)
    lines = (home / "results/overhead/trials/001/result.json").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    wall = rows[-1]["elapsed"] - rows[0]["elapsed"]
    epochs = [row["epoch_seconds"] for row in rows[1:]]
    return (wall - sum(epochs)) / wall, sorted(epochs)[len(epochs) // 2]


def main() -> None:
    """Five runs."""
    found = []
    for _ in range(REPEATS):
        with tempfile.TemporaryDirectory() as home:
            found.append(measure(Path(home)))
    share, epoch = spread([one for one, _ in found]), spread([one for _, one in found])
    print(f"overhead {share['median']:.2%}   ({share['low']:.2%} to {share['high']:.2%})")
    print(f"epoch    {epoch['median']:.2f} s  ({epoch['low']:.2f} to {epoch['high']:.2f})")
    write("overhead", {"machine": machine(), "repeats": REPEATS, "share": share, "epoch_seconds": epoch})


if __name__ == "__main__":
    main()
