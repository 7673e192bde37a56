"""How long one image takes on the device that trains."""

from __future__ import annotations

import statistics
import time

import torch

from tuner.training.trainer import Trainer

WARM_UP, TIMES = 5, 30


def measure_latency_ms(trainer: Trainer) -> float:
    """Milliseconds that one image takes on this device: the median of 30 forward passes, 5 before to warm up.

    Batch normalisation and dropout as in use, in the precision that trains; nothing that trains is touched.
    """
    torch.set_num_threads(trainer.threads)
    trainer.model.eval()
    image, taken = trainer.images.batch(trainer.validation_index[:1]), []
    with torch.inference_mode():
        for _ in range(WARM_UP + TIMES):
            start = time.perf_counter()
            with trainer.autocast():
                trainer.model(image)
            if trainer.device.type == "cuda":
                torch.cuda.synchronize(trainer.device)
            taken.append(time.perf_counter() - start)
    return 1000 * statistics.median(taken[WARM_UP:])
