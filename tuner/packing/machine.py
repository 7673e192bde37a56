"""Machine: what of the machine that this runs on may be used: by the process's affinity, its container, its cards."""

from __future__ import annotations

import os
from pathlib import Path

from tuner.packing.packing import Machine
from tuner.training.limits import CONTROL, SELF, read_cores
from tuner.training.stream import machine_bytes

GRAIN = 64 * 2**20
"""Memory is rounded down to this: the kernels of equal machines leave a few KB more or less of it."""


def this_machine() -> Machine:
    """The machine that this runs on; where its cards differ, by the one with the least memory."""
    import torch

    cards = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    least = min(cards, key=lambda card: card.total_memory, default=None)
    return Machine(
        cores=count_cores(),
        memory=machine_bytes() // GRAIN * GRAIN,
        gpus=len(cards),
        gpu=least.name if least else "",
        gpu_memory=least.total_memory if least else 0,
    )


def count_cores(control: Path = CONTROL, own: Path = SELF) -> int:
    """Cores that this process may use: by its affinity, and by the quota of its container where it has one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, int(read_cores(control, own) or cores)))
