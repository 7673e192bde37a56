"""The trial on a worker, as Ray wants it: one step is one epoch. The worker's process lives on from job to job."""

from __future__ import annotations

import json
import os
import platform
import sys
from typing import Any

from ray import tune

from tuner.runner.stretch import Stretch

NESTED = ("row", "passed_over", "notes")


class TrialTrainable(tune.Trainable):
    """Runs one job after the other; config: what `Stretch` takes, and user_path."""

    def setup(self, config: dict[str, Any]) -> None:
        """Called once a process, then `reset_config` for each further job."""
        if config["user_path"] not in sys.path:
            sys.path.append(config["user_path"])  # last: a user's own tuner/ must not hide ours
        self._stretch = Stretch(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """The next job on this process; the trainer of the one before goes first."""
        self._stretch = Stretch(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Train an epoch."""
        result = {"host": platform.node(), "pid": os.getpid(), **self._stretch.step()}
        if row := result.get("row"):
            result["training_iteration"] = row["epoch"]
        # As text: Ray flattens nested results, and its loggers choke on NaN.
        return {name: json.dumps(value) if name in NESTED else value for name, value in result.items()}
