"""Kills a process at a marked point, and lets workers keep a record of their own, wherever this file is on the path.

SIDE: a file to which workers append one line a trained epoch: process, configuration, epoch; and one a checkpoint to
go on from that is on disk: "saved", trial, epoch.
KILL_DRIVER, KILL_WORKER: `point:n`, killed at the n-th time that it passes the point. Points of the driver:
append-before, append-after, whole-before, whole-after; of a worker: checkpoint-before, checkpoint-after, epoch-before.
KILL_WITH: the signal's number, SIGKILL where it is missing; SIGSTOP makes a process hang.
SLOW: seconds that an epoch takes at least, so that there is a search to be killed on a fast machine too.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

counts: dict[str, int] = {}


def passing(point: str, wish: str) -> None:
    counts[point] = counts.get(point, 0) + 1
    marker = os.environ.get("KILLED")  # a worker's death is once for the whole run, not once a process
    if os.environ.get(wish) == f"{point}:{counts[point]}" and not (marker and Path(marker).exists()):
        if marker:
            Path(marker).touch()
        os.kill(os.getpid(), int(os.environ.get("KILL_WITH", signal.SIGKILL)))


def around(function: Callable[..., Any], point: str, wish: str) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        passing(f"{point}-before", wish)
        done = function(*args, **kwargs)
        passing(f"{point}-after", wish)
        return done

    return wrapped


def note(*words: object) -> None:
    with open(os.environ["SIDE"], "a") as file:  # noqa: PTH123 - one short line, appended at once
        file.write(" ".join(map(str, words)) + "\n")


if "default_worker" in " ".join(sys.argv) and "SIDE" in os.environ:
    from tuner.training import checkpoint
    from tuner.training.trainer import Trainer

    save = around(checkpoint.save, "checkpoint", "KILL_WORKER")

    def save_and_note(folder: Path, *args: Any, **kwargs: Any) -> None:
        save(folder, *args, **kwargs)
        if folder.name != "checkpoint_best":
            note("saved", folder.parent.name, int(folder.name.split("_")[1]))

    checkpoint.save = save_and_note
    train = around(Trainer.run_epoch, "epoch", "KILL_WORKER")

    def run_epoch(trainer: Any) -> Any:
        metrics = train(trainer)
        threading.Event().wait(float(os.environ.get("SLOW", "0")))
        note(os.getpid(), zlib.crc32(trainer.config.model_dump_json().encode()), trainer.epoch)
        return metrics

    Trainer.run_epoch = run_epoch  # type: ignore[method-assign,assignment]
elif Path(sys.argv[0]).name == "hypertune" and "KILL_DRIVER" in os.environ:
    from tuner.records import writer

    writer.RunFolder._append = around(writer.RunFolder._append, "append", "KILL_DRIVER")  # type: ignore[method-assign]
    writer.write_whole = around(writer.write_whole, "whole", "KILL_DRIVER")
