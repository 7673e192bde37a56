"""The trial on a worker, as Ray wants it: one step is one epoch. The worker's process lives on from job to job."""

from __future__ import annotations

import json
import os
import platform
import shutil
from typing import Any

from ray import tune

from tuner.packing.cap import cap_memory
from tuner.runner.node import settle
from tuner.runner.stretch import Stretch

NESTED = ("row", "passed_over", "notes")


class TrialTrainable(tune.Trainable):
    """Runs one job after the other; config: what `drive.describer` says."""

    def setup(self, config: dict[str, Any]) -> None:
        """Called once a process, then `reset_config` for each further job."""
        cap_memory(config["memory"])
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """The next job on this process; the trainer of the one before goes first."""
        self.cleanup()
        self._begin(new_config)
        return True

    def _begin(self, config: dict[str, Any]) -> None:
        job = settle(config)
        self._stretch = Stretch(job)
        self._scratch = None if job["folder"] == config["folder"] else job["folder"]

    def cleanup(self) -> None:
        """A job has ended: what goes to a store is there, and nothing of it stays on this machine."""
        self._stretch.close()
        if self._scratch:
            shutil.rmtree(self._scratch, ignore_errors=True)

    def step(self) -> dict[str, Any]:
        """Train an epoch."""
        result = {"host": platform.node(), "pid": os.getpid(), **self._stretch.step()}
        if row := result.get("row"):
            result["training_iteration"] = row["epoch"]
        # As text: Ray flattens nested results, and its loggers choke on NaN.
        return {name: json.dumps(value) if name in NESTED else value for name, value in result.items()}
