"""Child: one of the trials that are trained at once to measure a machine; orders and answers are lines of JSON."""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import torch

from tuner.errors import HypertuneError
from tuner.packing.curve import OUT_OF_MEMORY
from tuner.spec.trial_config import TrialConfig
from tuner.training import transfer
from tuner.training.datasets import open_dataset, prepare
from tuner.training.memory import MIB, images_at_once, read_peak_mb
from tuner.training.trainer import Trainer

WARM_UP = 4
"""Steps before the clock runs: libraries choose and allocate in them, and a graph is captured."""

UNSEEN = 16
"""Steps after which a GPU is waited for, so that the clock is read of what is done and not of what is asked for."""

LOW = 0.01
"""Of the configuration's learning rate: the first steps of a schedule are low too, and nothing shall diverge."""


class Load:
    """A trial that only makes its machine busy."""

    def __init__(self) -> None:
        self._trainer: Trainer | None = None
        self._steps: Iterator[int] = iter(())

    def prepare(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """Build what an order's configuration asks for, train a few steps and look at a batch, as an epoch does."""
        self.drop(order)
        config = TrialConfig.model_validate_json(order["trial"])
        folder = Path(order["folder"])
        if not folder.is_dir():  # another machine than the driver's
            folder = prepare(config.data, order["split_seed"]).folder
        data = open_dataset(folder, config.data, order["split_seed"])
        few = images_at_once(data.image_size, config.train.batch_size)
        part = replace(data, validation=data.validation[:few])
        trainer = self._trainer = Trainer(config, part, device=order["device"], threads=order["threads"])
        torch.set_num_threads(order["threads"])
        self._steps = _steps(trainer)
        for _ in range(WARM_UP):
            next(self._steps)
        trainer.validate()
        trainer.model.train()
        return self.look(order)

    def go(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """Train for so many seconds."""
        assert self._trainer is not None
        on_gpu = self._trainer.device.type == "cuda"
        start, images = time.perf_counter(), 0
        for number in count(1):
            images += next(self._steps)
            if on_gpu and number % UNSEEN == 0:
                torch.cuda.synchronize()
            if time.perf_counter() - start >= order["seconds"]:
                break
        if on_gpu:
            torch.cuda.synchronize()
        return {"rate": images / (time.perf_counter() - start), **self.look(order)}

    def look(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """Bytes that this process took at most of its card and of main memory, and that are taken of its card now."""
        if order["device"] != "cuda":
            return {"reserved": 0, "used": 0, "host": _own_bytes()}
        free, whole = torch.cuda.mem_get_info()
        return {"reserved": torch.cuda.max_memory_reserved(), "used": whole - free, "host": _own_bytes()}

    def drop(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """Give everything back."""
        self._trainer, self._steps = None, iter(())
        gc.collect()
        if order["device"] == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        return {}


def _steps(trainer: Trainer) -> Iterator[int]:
    """Train without end, the number of images of each step."""
    train = trainer.config.train
    trainer.model.train()
    transfer.apply(trainer.model, train, 0, trainer.learning)
    window = min(train.accumulate, trainer.steps)
    batches = (batch for _ in count() for batch in trainer.batches(trainer.order()))
    for number, (index, pixels) in enumerate(batches, 1):
        trainer.step(index, pixels, LOW * train.optimizer.lr, update=number % window == 0, window=window)
        yield len(index)


def _own_bytes() -> int:
    """The peak of this process's memory, without the pages of files, which all such processes share."""
    shared = 0
    if (status := Path("/proc/self/status")).exists():
        lines = [line.split() for line in status.read_text().splitlines()]
        shared = sum(int(line[1]) * 1024 for line in lines if line[0] in ("RssFile:", "RssShmem:"))
    return int(read_peak_mb(torch.device("cpu")) * MIB) - shared


def answer(load: Load, order: Mapping[str, Any]) -> dict[str, Any]:
    """Do what an order says; what goes wrong is an answer too."""
    does = {"prepare": load.prepare, "go": load.go, "drop": load.drop}
    try:
        return does[order["do"]](order)
    except HypertuneError as error:
        return {"refused": str(error)}
    except Exception as error:  # a user's own network may raise anything
        text = f"{type(error).__name__}: {error}"
        return {"failed": OUT_OF_MEMORY} if out_of_memory(error) else {"broken": text}


def out_of_memory(error: Exception) -> bool:
    """Whether an error means that memory is full; libraries below torch have their own words for it."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    words = ("out of memory", "alloc_failed", "defaultcpuallocator: ")
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in words)


def main() -> None:
    """Answer orders until there are no more: then whoever measures is done, or gone."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a user's own code prints is no answer
    load = Load()
    for line in sys.stdin:
        order = json.loads(line)
        sys.path.extend(path for path in order.get("paths", ()) if path not in sys.path)
        print(json.dumps(answer(load, order)), file=out, flush=True)


if __name__ == "__main__":
    main()
