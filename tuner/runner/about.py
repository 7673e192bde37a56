"""About: what run.json says of a run: what is searched on which images, with which versions, on what machine."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tuner.packing.machine import count_cores
from tuner.records.writer import now
from tuner.runner.plan import Plan
from tuner.spec.data import expand_home

PACKAGES = ("hypertune", "torch", "ray", "optuna")


def describe(plan: Plan, name: str) -> dict[str, Any]:
    """What run.json says at the start (results/README.md)."""
    fixed, facts = plan.space.fixed, plan.facts
    search = fixed.search
    return {
        "name": name,
        "created": now(),
        "objectives": [{"metric": o.metric, "mode": o.mode} for o in search.objectives],
        "constraints": list(search.constraints),
        "epochs": plan.full,
        "expected_epochs": plan.expected_epochs,
        "trials": plan.trials,
        "repeats": search.repeats,
        "sampler": {**plan.sampler.model_dump(), "reason": plan.sampler_reason},
        "scheduler": search.scheduler.model_dump(),
        "time_budget": search.seconds,
        "seeds": {"search": fixed.seed, "split": fixed.seed, "training": fixed.seed},
        "data": {
            "dataset": facts.dataset,
            "root": None if fixed.data.root is None else str(expand_home(fixed.data.root).resolve()),
            "fingerprint": facts.fingerprint,
            "classes": list(facts.classes),
            "image_size": facts.image_size,
            "channels": facts.channels,
            "train": facts.train,
            "validation": facts.validation,
            "test": facts.test,
        },
        "versions": versions(),
        "git_commit": git_commit(),
        "hardware": hardware(),
        "working_directory": str(Path.cwd()),
        "command_line": shlex.join(sys.argv),
        "resources": {**dict(fixed.resources), "trials_at_once": plan.at_once},
        "packing": [asdict(packing) for packing in plan.packings],
        "device": plan.device,
        "precision": plan.precision,
    }


def versions() -> dict[str, str]:
    """What can change a search's course when it changes."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def hardware() -> dict[str, Any]:
    """This machine, as far as it helps to compare times."""
    import torch

    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "host": platform.node(),
        "cpu": names[0] if names else platform.processor() or platform.machine(),
        "cores": count_cores(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
    }


def git_commit() -> str | None:
    """Commit of the working directory, None where there is none."""
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
