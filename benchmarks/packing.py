"""How many trials at once a machine takes: what all of them reach together, and what `auto` chooses from it.

    python benchmarks/packing.py

With a GPU: 1, 2, 4, 8, 16 trials on one card, which are the shares 1, 0.5, 0.25, 0.125 and 0.0625 that one would write
by hand for Ray. On a CPU: as many trials as there are cores with one thread each, down to one with all of them. The
drawn shapes, a CNN of three blocks (32, 64, 128) and batches of 64; five repeats, each in processes of its own.
Writes results/benchmarks/packing.json.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import torch
from report import machine, spread, write

from tuner.packing.curve import Request
from tuner.packing.machine import this_machine
from tuner.packing.measure import measure
from tuner.packing.pack import Need, counts_to_try, pack
from tuner.spec.trial_config import Resources, TrialConfig
from tuner.training import cost
from tuner.training.datasets import prepare

REPEATS = 5
ON_CARD = (1, 2, 4, 8, 16)
CONFIG = {
    "data": {"dataset": "shapes", "subset": 2000},
    "model": {"name": "cnn", "depth": 3, "width": 32},
    "train": {"batch_size": 64},
}


def main() -> None:
    here, config = this_machine(), TrialConfig.model_validate(CONFIG)
    wanted = Resources(cpu="auto", gpu="auto")
    device = "cuda" if here.gpus else "cpu"
    here = replace(here, gpus=min(here.gpus, 1))
    counts = ON_CARD if here.gpus else counts_to_try(here, wanted, 1000)
    rates: dict[int, list[float]] = {}
    chosen: list[int] = []
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        prepared = prepare(config.data, 0, Path(folder))
        size = cost.count(config, classes=len(prepared.facts.classes), image_size=32, channels=3)
        trial, images = config.model_dump_json(), str(prepared.folder)
        request = Request(trial, trial, images, images, 0, device, here.gpus, here.cores, here.memory, counts)
        for repeat in range(REPEATS):
            start = time.perf_counter()
            found = measure(request)
            seconds.append(time.perf_counter() - start)
            for point in found.points:
                rates.setdefault(point.at_once, []).append(point.images_per_second)
            packing = pack(here, wanted, 1000, Need(size.memory_mb, size.memory_mb), found)
            chosen.append(packing.at_once)
            print(f"repeat {repeat + 1}: {packing.at_once} at once; {packing.reason}", flush=True)
    for count, values in rates.items():
        share = f"{1 / count:g} GPU" if here.gpus else f"{max(1, here.cores // count)} threads"
        said = spread(values)
        print(f"{count:3} x {share:10} {said['median']:9,.0f} images/s ({said['low']:,.0f} to {said['high']:,.0f})")
    print(f"measuring took {spread(seconds)['median']:.1f} s ({min(seconds):.1f} to {max(seconds):.1f})")
    card = {"gpu": torch.cuda.get_device_name(0)} if here.gpus else {}
    write("packing", {
        "machine": {**machine(), **card},
        "repeats": REPEATS,
        "images_per_second": {str(count): spread(values) for count, values in rates.items()},
        "chosen": {str(count): times for count, times in Counter(chosen).items()},
        "seconds": spread(seconds),
    })  # fmt: skip


if __name__ == "__main__":
    main()
