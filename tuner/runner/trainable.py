"""The trial on a worker: one step is one epoch. The worker's process lives on from trial to trial."""

from __future__ import annotations

import json
import math
import os
import platform
import sys
import traceback
from pathlib import Path
from typing import Any

import torch
from ray import tune

from tuner.spec.trial_config import TrialConfig
from tuner.training import checkpoint
from tuner.training.datasets import open_dataset
from tuner.training.trainer import Trainer


class TrialTrainable(tune.Trainable):
    """Trains one configuration after the other; a step that breaks is reported as a row, so that the process stays.

    config: id, trial (a TrialConfig as plain JSON), data (folder of the decoded images), split_seed, folder (of the
    trial), metric, sign, threads, user_path.
    """

    def setup(self, config: dict[str, Any]) -> None:
        """Called once a process, then `reset_config` for each further trial."""
        if config["user_path"] not in sys.path:
            sys.path.append(config["user_path"])  # last: a user's own tuner/ must not hide ours
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """The next trial on this process."""
        self._begin(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Train an epoch; keep the weights when it is the best so far."""
        where = {"host": platform.node(), "pid": os.getpid()}
        try:
            row = self._train()
        except (torch.OutOfMemoryError, torch.AcceleratorError):
            raise  # the device's state is doubtful: a fresh process is wanted
        except Exception:  # whatever breaks a trial must not take the worker with it
            return {**where, "failure": traceback.format_exc()}
        # As text: Ray flattens nested results, and its loggers choke on NaN.
        return {**where, "row": json.dumps(row), "training_iteration": row["epoch"]}

    def _begin(self, config: dict[str, Any]) -> None:
        self._job = config
        self._trainer: Trainer | None = None
        self._best = -math.inf

    def _train(self) -> dict[str, Any]:
        job = self._job
        if self._trainer is None:
            config = TrialConfig.model_validate_json(job["trial"])
            dataset = open_dataset(Path(job["data"]), config.data, job["split_seed"])
            device = "cuda" if job["gpu"] else "cpu"
            self._trainer = Trainer(config, dataset, device=device, threads=job["threads"])
        metrics = self._trainer.run_epoch()
        row = metrics.as_dict()
        value = job["sign"] * float(row[job["metric"]])
        if value > self._best and all(math.isfinite(number) for number in row.values()):
            self._best = value
            weights = self._trainer.model.state_dict()
            tensors = {f"model.{name}": tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
            state = {"trial": job["id"], "metrics": row, "config": self._trainer.config.model_dump(mode="json")}
            checkpoint.save(Path(job["folder"]) / "checkpoint_best", tensors, state)
        return row
