"""Cap: a trial's process may take its share of the GPU's memory and no more, so that it harms no neighbour."""

from __future__ import annotations

import torch


def cap_memory(memory: int | None) -> None:
    """Let torch's allocator in this process take so many bytes of its GPU; None: all of it, or there is no GPU.

    Beyond them torch raises OutOfMemoryError in this process alone. What the CUDA context takes is not counted. Called
    for each job, as a process lives on from one to the next.
    """
    if memory is None and not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return
    whole = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(1.0 if memory is None else min(1.0, memory / whole), 0)
