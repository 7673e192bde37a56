"""How long a whole report takes, from the folder to page, images and tables, and how large the page is.

    python benchmarks/report_time.py [--repeats 3]

`hypertune analyze` in a process of its own, imports included, without a cache, on 1,000 trials of 100 epochs and 10,000
of 20.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from loading_folders import make_ours
from report import machine, spread, write

SHAPES = ((1_000, 100), (10_000, 20))  # trials, epochs


def measure(folder: Path, out: Path) -> float:
    """Seconds of one report."""
    begun = time.perf_counter()
    command = [sys.executable, "-m", "tuner.cli", "analyze", str(folder), "--out", str(out)]
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    measured: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as place:
        for trials, epochs in SHAPES:
            folder = Path(place) / f"{trials}x{epochs}"
            make_ours(folder, trials, epochs)
            outs = [Path(place) / f"report-{trials}-{n}" for n in range(options.repeats)]
            seconds = [measure(folder, out) for out in outs]
            megabytes = (outs[0] / "report.html").stat().st_size / 1e6
            measured[f"{trials:,} trials x {epochs} epochs"] = {"seconds": spread(seconds), "page_mb": megabytes}
            print(trials, epochs, measured[f"{trials:,} trials x {epochs} epochs"], flush=True)
    write("report_time", {"machine": machine(), "repeats": options.repeats, "report": measured})


if __name__ == "__main__":
    main()
