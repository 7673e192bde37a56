"""Peak memory of an epoch, for workers that train one trial after another."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import torch

MIB = 2.0**20
MOST_IMAGES, MOST_PIXELS = 256, 2**20  # of a batch that is only looked at; 113 images of 96 x 96, 20 of 224 x 224


def images_at_once(side: int, batch_size: int = 1) -> int:
    """Images (side, side) of a batch without a way back: beyond these no faster, and never more than training takes."""
    return max(batch_size, min(MOST_IMAGES, MOST_PIXELS // side**2))


def reset_peak(device: torch.device) -> None:
    """Forgets earlier peaks, so that a reused worker does not report the trial before."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        Path("/proc/self/clear_refs").write_text("5")  # sets VmHWM back to what is resident now
    except OSError:  # no Linux, or a kernel or container without it
        return


def read_peak_mb(device: torch.device) -> float:
    """Peak since the reset in MiB.

    On a GPU what torch allocated there. On a CPU the resident memory of the whole process: Python and torch (about
    720 MiB) and the pages of the dataset that it touched, which other workers share. Where the peak cannot be reset
    (macOS, some containers) it is the largest since the process started.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / MIB
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / MIB
    except OSError:
        pass
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MIB
