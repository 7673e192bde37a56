"""How long a command takes before it answers, against bare Python and against importing what we do not import.

    python benchmarks/startup.py

Writes results/benchmarks/startup.json. Ratios travel between machines, seconds do not.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from report import machine, spread, write

REPEATS = 9
HYPERTUNE = [str(Path(sys.executable).with_name("hypertune"))]
SPACE = str(Path(__file__).parent.parent / "search_spaces" / "digits.yaml")
COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "hypertune --help": [*HYPERTUNE, "--help"],
    "hypertune validate": [*HYPERTUNE, "validate", SPACE],
    "hypertune runs": [*HYPERTUNE, "runs"],
    "python -c 'import torch'": [sys.executable, "-c", "import torch"],
    "python -c 'from ray import tune'": [sys.executable, "-c", "from ray import tune"],
}


def main() -> None:
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for repeat in range(REPEATS + 1):  # the first round warms the file cache
        for name, command in COMMANDS.items():
            start = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            if repeat:
                seconds[name].append(time.perf_counter() - start)
    rows = {name: spread(times) for name, times in seconds.items()}
    peer = rows["python -c 'from ray import tune'"]["median"]
    for name, row in rows.items():
        print(f"{name:36} {row['median']:.3f} s ({row['low']:.3f} to {row['high']:.3f})  {row['median'] / peer:.2f} x")
    write("startup", {"machine": machine(), "repeats": REPEATS, "seconds": rows})


if __name__ == "__main__":
    main()
